"""Which attributes an object shows of itself, and in which order."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest

import weft as nnx
from weft._object.shown import shown_attributes


class Box(nnx.Module):
    def __init__(self, **attributes: Any):
        for name, value in attributes.items():
            setattr(self, name, value)


class Defined(nnx.Linear):
    def __init__(self, *, rngs: nnx.Rngs):
        self.scale = nnx.Param(jnp.ones(()))
        super().__init__(2, 2, rngs=rngs)
        self.after = nnx.Param(jnp.zeros(()))


@nnx.dataclass
class Fields(nnx.Module):
    weight: nnx.Param[Any]
    bias: nnx.Param[Any]


@pytest.mark.parametrize(
    "put_together",
    [
        nnx.clone,
        lambda m: nnx.merge(*nnx.split(m)),
        lambda m: jax.tree.map(lambda x: x, m),
        nnx.jit(lambda m: nnx.clone(m)),
    ],
    ids=["clone", "merge", "jax.tree.map", "nnx.jit"],
)
def test_what_is_put_together_again_shows_the_order_of_definition(put_together: Any) -> None:
    for model in (
        nnx.Linear(2, 2, rngs=nnx.Rngs(0)),
        nnx.BatchNorm(2, rngs=nnx.Rngs(0)),
        nnx.GRUCell(2, 2, rngs=nnx.Rngs(0)),  # a method that its constructor calls makes the parts
        Fields(nnx.Param(jnp.ones(1)), nnx.Param(jnp.zeros(1))),
    ):
        assert repr(put_together(model)) == repr(model)
    names = [name for name, _ in shown_attributes(put_together(Defined(rngs=nnx.Rngs(0))))]
    assert names == ["kernel", "bias", "in_features", "out_features", "scale", "after"]
    assert repr(put_together(Box(b=1, a=2))) == "Box(a=2, b=1)"


def test_layers_show_what_they_were_given() -> None:
    layer = nnx.Linear(8, 3, rngs=nnx.Rngs(0), dtype=jnp.bfloat16, use_bias=False)
    assert repr(layer) == (
        "Linear(  # Param: 24 (96 B)\n  kernel=Param(f32[8,3]),\n  bias=None,\n  in_features=8,\n"
        "  out_features=3,\n  use_bias=False,\n  dtype=bfloat16,\n)"
    )
    layer.dtype, layer.use_bias = None, True
    assert repr(layer) == "Linear(kernel=Param(f32[8,3]), bias=None, in_features=8, out_features=3)"


def test_users_see_all_that_they_set() -> None:
    class Mine(nnx.Linear):
        def __init__(self, rate: float = 0.5):
            super().__init__(8, 8, rngs=nnx.Rngs(0))
            self.rate = rate

    assert "rate=0.5" in repr(Mine()) and "use_bias" not in repr(Mine())
