"""Writing back: all of it, or nothing."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

import weft as nnx
from weft._core.static import Static
from weft._graph.records import NodeDef
from weft._graph.walk import NONE
from weft._graph.write_back import write_back


def test_variables_and_objects_are_filled() -> None:
    model = nnx.Dict(w=nnx.Param(1.0, tag="old"))
    record = NodeDef(0, nnx.Dict, (), (), NONE)
    variable = model.w
    write_back(
        [(variable, 2.0, Static({"tag": "new"}))], [(model, [("w", variable), ("n", 1)], record)]
    )
    assert model.w is variable and model.n == 1
    assert (variable.get_raw_value(), variable.tag) == (2.0, "new")
    write_back([(variable, 3.0, None)], [])
    assert (variable.get_raw_value(), variable.tag) == (3.0, "new")


def test_nothing_is_written_where_something_may_not_be() -> None:
    inner, outer = nnx.Param(jnp.ones(())), nnx.Param(jnp.ones(()))

    @jax.jit
    def write(x: jax.Array) -> jax.Array:
        mine = nnx.Param(x)
        with pytest.raises(nnx.TraceContextError):
            write_back([(mine, x + 1, None), (outer, x, None)], [])
        return mine[...]

    assert write(inner[...]) == 1.0
    assert outer[...] == 1.0
