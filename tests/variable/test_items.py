"""Writing items of Variables: what does not fit names the Variable."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx

SQUARE = jnp.ones((2, 2))


@pytest.mark.parametrize(
    ("value", "index", "item", "error", "found"),
    [
        (SQUARE, ..., jnp.ones((3, 3)), ValueError, r"value of shape \(3, 3\) to v\[\.\.\.\]"),
        (SQUARE, 0, jnp.ones(3), ValueError, r"value of shape \(3,\) to v\[0\].*`v\.set_value"),
        (SQUARE, (0, 0, 0), 1.0, IndexError, r"float to v\[\(0, 0, 0\)\].*Too many"),
        (np.ones(3), slice(2), np.ones(3), ValueError, r"value of shape \(3,\) to v\[slice"),
        (3, 0, 1, TypeError, r"int to v\[0\], where v is a Param \(made at .*test_items"),
    ],
)
def test_a_write_that_does_not_fit_names_the_variable(
    value: Any, index: Any, item: Any, error: type[Exception], found: str
) -> None:
    variable = nnx.Param(value)
    with pytest.raises(error, match=f"^cannot write a {found}") as caught:
        variable[index] = item
    assert "v is a Param" in str(caught.value) and "test_items.py" in str(caught.value)
    assert variable.get_value() is value
    if isinstance(value, jax.Array):
        with pytest.raises(error, match=f"^cannot write a {found}"):
            nnx.jit(lambda v: v.set_value(item, index=index))(variable)


def test_errors_of_jax_that_say_enough_stay() -> None:
    variable = nnx.Param(jnp.ones(3))
    with pytest.raises(jax.errors.NonConcreteBooleanIndexError):
        jax.jit(lambda v, mask: v.set_value(jnp.ones(1), index=mask))(variable, jnp.ones(3, bool))
