"""What is kept between calls of loops and branches, and what must not be."""

import dataclasses
import enum
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx
from weft._lift import memo
from weft._lift.memo import compiled_once, key_of_references

FACTOR = 2.0
MODEL = nnx.Dict(w=nnx.Param(jnp.ones(())))
SIZES = [1, 2]


def scaled(x):
    return x * FACTOR


def uses_model(x):
    return x * MODEL["w"]


def nested(x):
    return (lambda y: scaled(y) + uses_model(y))(x)


@nnx.vmap
def row(x):
    return x + 1.0


@jax.jit
def jitted_with_model(x):
    return x * MODEL["w"]


class Color(enum.Enum):
    RED = 1


@dataclasses.dataclass
class Config:
    size: int
    scale: object = None


@dataclasses.dataclass(eq=False)
class Opaque:
    size: int


def closing_over(value):
    return lambda x: (x, value)


def key(*functions):
    return key_of_references(functions)


STATIC = [
    *(1, 1.5, "a", None, ..., (1, [2], {"a": {3}}), Color.RED, Config(2, (1, 2)), nnx.Param, jnp),
    *(jnp.float32, np.dtype("int8"), jnp.sin, jax.nn.relu, np.add, len, list[int], int | None),
    *(functools.partial(scaled, 1), scaled, row, nnx.StateAxes({nnx.Param: 0, ...: None})),
]
DATA = [
    *(jnp.ones(2), np.ones(2), nnx.Param(1.0), MODEL, [nnx.Param(1.0)], MODEL.items),
    *(Config(1, jnp.ones(2)), Opaque(1), object(), types.SimpleNamespace(a=1)),
    *(functools.partial(scaled, jnp.ones(2)), uses_model, nested, jitted_with_model),
]


@pytest.mark.parametrize("value", STATIC, ids=map(str, range(len(STATIC))))
def test_static_values_may_be_kept(value):
    assert key(closing_over(value)) is not None
    assert key(closing_over(value)) == key(closing_over(value))
    hash(key(closing_over(value)))


@pytest.mark.parametrize("value", DATA, ids=map(str, range(len(DATA))))
def test_data_and_what_cannot_be_seen_into_is_not_kept(value):
    assert key(closing_over(value)) is None


def test_functions_are_equal_by_what_they_refer_to(monkeypatch):
    assert key(closing_over(1)) == key(closing_over(1)) != key(closing_over(True))
    assert key(closing_over(Config(1))) == key(closing_over(Config(1)))
    assert key(closing_over(Config(1))) != key(closing_over(Config(2)))
    assert key(lambda x, y=1: x) != key(lambda x, y=2: x)
    before = key(scaled)
    monkeypatch.setitem(globals(), "FACTOR", 3.0)
    assert key(scaled) != before
    before = key(lambda x: x * SIZES[0])
    SIZES.append(3)
    assert key(lambda x: x * SIZES[0]) != before

    def recursive(n):
        return recursive(n - 1) if n else 0

    assert key(recursive) is not None

    def unfilled():
        return later

    assert key(unfilled) is not None
    later = jnp.ones(2)
    assert key(unfilled) is None


def test_globals_are_read_anew(monkeypatch):
    def run(x):
        return nnx.cond(True, scaled, lambda x: x, x)

    assert run(1.0) == 2.0
    monkeypatch.setitem(globals(), "FACTOR", 5.0)
    assert run(1.0) == 5.0


def test_objects_that_are_globals_are_read_anew():
    def add(c, x):
        return c + MODEL["w"] * x

    def run():
        return nnx.scan(add, in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)(0.0, jnp.ones(3))

    old = MODEL["w"][...]
    assert run() == 3.0
    MODEL["w"][...] = 2.0 * old
    assert run() == 6.0
    assert nnx.fori_loop(0, 2, lambda i, x: uses_model(x), 1.0) == 4.0
    MODEL["w"][...] = old
    assert nnx.fori_loop(0, 2, lambda i, x: uses_model(x), 1.0) == 1.0


def test_equal_functions_share_what_was_made():
    made = []

    def make():
        made.append(1)
        return lambda spec, x: x

    def get(value, options):
        return compiled_once((closing_over(value),), options, make)

    assert get("memo", ("a", 1)) is get("memo", ("a", 1))
    assert get("memo", ("a", True)) is not get("memo", ("a", 1))
    assert get("other", ("a", 1)) is not get("memo", ("a", 1))
    assert len(made) == 3
    assert get(jnp.ones(2), ("a", 1)) is not get(jnp.ones(2), ("a", 1))


def test_a_count_of_traces_is_no_reason_for_another():
    count = 0

    def body(m):
        nonlocal count
        count += 1
        return m + 1.0

    for _ in range(3):
        nnx.while_loop(lambda m: m < 2.0, body, 0.0)
    assert count == 2
    nnx.while_loop(lambda m: m < 2.0, body, jnp.zeros(3)[0])
    assert count == 4


def test_what_is_kept_is_limited(monkeypatch):
    monkeypatch.setattr(memo, "_LIMIT", 3)
    monkeypatch.setattr(memo, "_kept", type(memo._kept)())
    kept = [compiled_once((closing_over(i),), (), lambda: lambda spec: 0) for i in range(5)]
    assert list(memo._kept.values()) == kept[2:]
    assert compiled_once((closing_over(2),), (), lambda: None) is kept[2]  # now the newest
    compiled_once((closing_over(5),), (), lambda: lambda spec: 0)
    assert kept[2] in memo._kept.values()
    assert kept[3] not in memo._kept.values()


def test_bound_methods_are_not_taken_for_functions():
    class Model(nnx.Module):
        def __init__(self):
            self.n = nnx.Variable(jnp.zeros(()))

        def step(self, x):
            self.n[...] = self.n + 1.0
            return x

    model = Model()
    nnx.scan(model.step, length=2, in_axes=nnx.Carry, out_axes=nnx.Carry)(1.0)
    axes = nnx.StateAxes({...: nnx.Carry})
    nnx.scan(Model.step, length=2, in_axes=(axes, nnx.Carry), out_axes=nnx.Carry)(model, 1.0)
    nnx.scan(model.step, length=2, in_axes=nnx.Carry, out_axes=nnx.Carry)(1.0)
    assert model.n[...] == 6.0


def test_settings_of_jax_lead_to_another_trace():
    def body(i, x):
        return x + i

    assert nnx.fori_loop(0, 2, body, jnp.zeros((), int)).dtype == jnp.int32
    with jax.enable_x64(True):
        assert nnx.fori_loop(0, 2, body, jnp.zeros((), int)).dtype == jnp.int64
