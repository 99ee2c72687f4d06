"""Updates that write nothing but values, and those that look so and are more."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx
from tests.variable.models import Model

SOURCES: dict[str, Any] = {
    "State": lambda m: nnx.state(m),
    "mapped State": lambda m: jax.tree.map(lambda x: x, nnx.state(m)),
    "pure dict": lambda m: nnx.to_pure_dict(nnx.state(m)),
    "abstract State": lambda m: nnx.pure(nnx.state(m)),
    "object": lambda m: m,
}


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("times", [1, 4])
def test_update(name: str, times: int) -> None:
    target = Model()
    for i in range(times):
        nnx.update(target, SOURCES[name](Model(2.0 + i)))
    np.testing.assert_array_equal(target.a, np.full(2, 1.0 + times))
    np.testing.assert_array_equal(target.b, np.full(3, 1.0 + times))
    assert target.c.value == 1.0 + times
    assert type(target.b) is nnx.BatchStat


def test_update_brings_metadata_and_values_of_other_kinds() -> None:
    for times in range(3):
        target = Model(tag="old")
        for _ in range(times):
            nnx.state(target)
        nnx.update(target, nnx.state(Model(3.0, tag="new")))
        assert target.a.tag == "new"
        with pytest.raises(nnx.StructureError, match=r"a: expected shape \(2,\), found \(5,\)"):
            nnx.update(target, {"a": jnp.ones(5)})
        plain = Model()
        for _ in range(times):
            nnx.state(plain)
        nnx.update(plain, {"a": np.ones(2), "c": 2.0})
        assert isinstance(plain.a.get_raw_value(), np.ndarray)
        assert plain.c.value == 2.0


@pytest.mark.parametrize("looks", [0, 1, 3])
def test_other_shapes_are_refused_at_the_root_too(looks: int) -> None:
    """However often the object was looked at, which makes writing quicker."""
    layer = nnx.Linear(4, 4, rngs=nnx.Rngs(0))
    for _ in range(looks):
        nnx.split(layer)
    before = layer.kernel[...]
    found = re.escape(
        "bias: expected shape (4,), found (3,)\n  kernel: expected shape (4, 4), foun"
    )
    for wrong in (
        nnx.state(nnx.Linear(4, 3, rngs=nnx.Rngs(0))),
        nnx.Linear(4, 3, rngs=nnx.Rngs(0)),
    ):
        with pytest.raises(nnx.StructureError, match=found):
            nnx.update(layer, wrong)
    with pytest.raises(nnx.StructureError, match=r"kernel: expected shape \(4, 4\), found \(16,\)"):
        nnx.update(layer, {"kernel": jnp.ones(16), "bias": jnp.ones(4)})
    with pytest.raises(nnx.StructureError, match=r"unexpected: scale"):
        nnx.update(layer, {"kernel": jnp.ones((4, 4)), "scale": nnx.Param(jnp.ones(4))})
    assert layer.kernel[...] is before
    assert layer.bias[...].tolist() == [0.0] * 4
    variable = nnx.Param(jnp.ones(2))
    with pytest.raises(nnx.StructureError, match=r"expected shape \(2,\), found \(3,\)"):
        nnx.update(variable, jnp.ones(3))


def test_update_of_a_part_of_a_new_model() -> None:
    m = Model()
    m.inner = [Model(), {"x": Model()}]
    nnx.update(m, {"inner": {1: {"x": {"a": jnp.zeros(2)}}, 0: {"c": jnp.zeros(())}}})
    np.testing.assert_array_equal(m.inner[1]["x"].a, [0.0, 0.0])
    assert m.inner[0].c.value == 0.0
    for wrong in ({"inner": {2: {"a": jnp.ones(2)}}}, {"a": {"x": 1}}, {"none": {}, "x": 1}):
        new = nnx.clone(m)
        with pytest.raises(nnx.StructureError, match="nothing was written"):
            nnx.update(new, {"b": jnp.zeros(3), **wrong})
        np.testing.assert_array_equal(new.b, np.ones(3))


def test_update_refuses_shared_references_on_request() -> None:
    m = Model()
    m.again = m.a
    with nnx.set_graph_mode(False), pytest.raises(nnx.SharedReferenceError, match="graph=True"):
        nnx.update(m, {"b": jnp.zeros(3)})
    np.testing.assert_array_equal(m.b, np.ones(3))
