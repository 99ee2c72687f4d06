"""Metadata on its way from an initializer into a Variable."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import weft as nnx
from weft._variable.metadata import HOOKS


def zeros(key: Any, shape: tuple[int, ...]) -> jax.Array:
    """Makes zeros."""
    return jnp.zeros(shape)


def test_metadata_reaches_the_variable() -> None:
    calls = []
    init = nnx.with_metadata(
        zeros,
        on_set_value=lambda variable, value: calls.append("set") or value,
        on_get_value=[lambda variable, value: value + 1.0],
        on_add_axis=lambda variable, index, name: calls.append((index, name)),
        group="decay",
    )
    assert (init.__name__, init.__doc__) == ("zeros", "Makes zeros.")
    made = init(jax.random.key(0), (2,))
    assert isinstance(made, nnx.VariableMetadata)
    assert made.metadata == {"group": "decay"}
    assert made.raw_value.shape == (2,)
    variable = nnx.Param(made, extra=1)
    assert (variable.group, variable.extra) == ("decay", 1)
    assert variable[...].tolist() == [1.0, 1.0]
    variable.value = jnp.ones(2)
    variable.add_axis(0, "x")
    assert calls == ["set", (0, "x")]


def test_keywords_of_the_variable_win() -> None:
    made = nnx.VariableMetadata(1.0, metadata={"group": "a", "kept": 1})
    assert nnx.Param(made, group="b").get_metadata() == {"group": "b", "kept": 1}


def test_nested_wrappers_join() -> None:
    hook = lambda variable, value: value * 2.0  # noqa: E731
    inner = nnx.with_metadata(zeros, on_set_value=hook, a=1, b=1)
    made = nnx.with_metadata(inner, b=2)(jax.random.key(0), ())
    assert made.metadata == {"a": 1, "b": 2}
    assert made.on_set_value == (hook,)
    variable = nnx.Param(made)
    variable.value = jnp.ones(())
    assert float(variable) == 2.0
    made = nnx.with_metadata(inner, on_set_value=hook)(jax.random.key(0), ())
    assert made.on_set_value == (hook, hook)


def test_only_hooks_that_exist_become_metadata() -> None:
    assert nnx.VariableMetadata(1.0).as_keywords() == {}
    fields = [field.name for field in dataclasses.fields(nnx.VariableMetadata)]
    assert set(fields) == {"raw_value", "metadata", *HOOKS}


def test_layers_take_such_initializers() -> None:
    init = nnx.with_metadata(nnx.initializers.zeros_init(), out_sharding=("in", "out"))
    with nnx.use_eager_sharding(False):
        layer = nnx.Linear(2, 3, kernel_init=init, rngs=nnx.Rngs(0))
    assert layer.kernel.out_sharding == ("in", "out")
    assert layer.kernel[...].tolist() == [[0.0] * 3] * 2


def test_a_metadata_record_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        nnx.VariableMetadata(1.0).raw_value = 2.0  # type: ignore[misc]
