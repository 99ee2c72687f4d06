"""Held arrays: whatever is called in whatever order, what a user holds stays as it is.

A state machine runs compiled functions that donate and others that do not, moves Variables about in
between, and holds arrays of all kinds of origin. The same is done with plain NumPy cells. The
number of its histories is WEFT_HISTORIES.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, rule

import weft as nnx
from tests.lift.donated import peek

HISTORIES = int(os.environ.get("WEFT_HISTORIES", "15"))


class Cell:
    """A Variable in NumPy."""

    def __init__(self, value: Any):
        self.value = np.array(value)

    def __getitem__(self, index: Any) -> Any:
        return self.value[index]

    def __setitem__(self, index: Any, value: Any) -> None:
        self.value = np.array(value)


class Model(nnx.Module):
    def __init__(self, parts: list[Any]) -> None:
        self.parts = parts


class Mirror:
    def __init__(self, parts: list[Any]) -> None:
        self.parts = parts


# -- functions of Variables and cells alike
def grow(m: Any, n: Any, x: Any) -> Any:
    for v in m.parts:
        v[...] = v[...] + 1


def flip(m: Any, n: Any, x: Any) -> Any:
    m.parts[0][...] = 1 - m.parts[0][...]


def exchange(m: Any, n: Any, x: Any) -> Any:
    a, b = m.parts[0], n.parts[1]
    a[...], b[...] = b[...], a[...]


def borrow(m: Any, n: Any, x: Any) -> Any:
    m.parts[1][...] = x
    return x


def hand_out(m: Any, n: Any, x: Any) -> Any:
    m.parts[0][...] = m.parts[0][...] + x
    return m.parts[0][...], n.parts[0][...]


def turn(m: Any, n: Any, x: Any) -> Any:
    m.parts.reverse()
    m.parts[0][...] = m.parts[0][...] + 1


def read(m: Any, n: Any, x: Any) -> Any:
    return m.parts[0][...] + n.parts[1][...] + x


BODIES = [grow, flip, exchange, borrow, hand_out, turn, read]
WAYS = ["written", None, "nested"]


@functools.cache
def compiled(body: Callable[..., Any], way: str | None) -> Callable[..., Any]:
    if way == "nested":
        return nnx.jit(lambda m, n, x: compiled(body, "written")(m, n, x), on_retrace=None)
    return nnx.jit(body, donate=way, on_retrace=None)


HOLDS: list[Callable[[Model], Any]] = [
    lambda m: m.parts[0][...],
    lambda m: m.parts[1].value,
    lambda m: jax.tree.leaves(nnx.state(m)),
    lambda m: jax.tree.leaves(m),
    lambda m: jax.device_put(m.parts[0].value),
    lambda m: jnp.asarray(m.parts[0].value).addressable_data(0),
    lambda m: np.asarray(m.parts[1]),
    lambda m: jax.tree.leaves(nnx.clone(m)),
    lambda m: nnx.merge(*nnx.split(m)).parts[0][...],
]

MODELS, PARTS = st.integers(0, 1), st.integers(0, 1)
NUMBERS = st.integers(0, 9)


class HeldArrays(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.models = [Model([self.variable(2 * i + k) for k in (0, 1)]) for i in (0, 1)]
        self.mirrors = [Mirror([Cell([2.0 * i + k] * 2) for k in (0, 1)]) for i in (0, 1)]
        self.held: list[tuple[Any, list[np.ndarray]]] = []

    def variable(self, number: float) -> nnx.Variable:
        return nnx.Param(jnp.full(2, float(number)))

    def hold(self, arrays: Any) -> None:
        self.held = [*self.held[-8:], (arrays, [np.array(x) for x in jax.tree.leaves(arrays)])]

    def check(self) -> None:
        for model, mirror in zip(self.models, self.mirrors, strict=True):
            for variable, cell in zip(model.parts, mirror.parts, strict=True):
                np.testing.assert_array_equal(np.array(peek(variable)), cell.value)
        for arrays, before in self.held:
            for array, then in zip(jax.tree.leaves(arrays), before, strict=True):
                np.testing.assert_array_equal(np.array(array), then)

    @rule(
        body=st.sampled_from(BODIES),
        way=st.sampled_from(WAYS),
        which=st.tuples(MODELS, MODELS),
        number=NUMBERS,
        times=st.integers(1, 3),
    )
    def call(
        self, body: Any, way: str | None, which: tuple[int, int], number: int, times: int
    ) -> None:
        x = jnp.full(2, float(number))
        for _ in range(times):
            out = compiled(body, way)(*[self.models[i] for i in which], x)
            expected = body(*[self.mirrors[i] for i in which], np.full(2, float(number)))
            jax.tree.map(np.testing.assert_array_equal, out, expected)
            self.hold((out, x))
            self.check()

    @rule(which=MODELS, way=st.sampled_from(HOLDS))
    def hold_what_is_read(self, which: int, way: Callable[[Model], Any]) -> None:
        self.hold(way(self.models[which]))

    @rule(which=MODELS, part=PARTS, number=NUMBERS, make=st.sampled_from([jnp.full, np.full]))
    def write(self, which: int, part: int, number: int, make: Any) -> None:
        array = make(2, float(number), np.float32)
        self.hold(array)
        self.models[which].parts[part].value = array
        self.mirrors[which].parts[part][...] = np.array(array)
        self.check()

    @rule(which=MODELS, part=PARTS, number=NUMBERS)
    def replace(self, which: int, part: int, number: int) -> None:
        """Replaces a Variable by one that may get its address."""
        self.models[which].parts[part] = None
        self.models[which].parts[part] = self.variable(number)
        self.mirrors[which].parts[part] = Cell([float(number)] * 2)
        self.check()

    @rule(from_model=MODELS, from_part=PARTS, to_model=MODELS, to_part=PARTS)
    def share(self, from_model: int, from_part: int, to_model: int, to_part: int) -> None:
        for models in (self.models, self.mirrors):
            models[to_model].parts[to_part] = models[from_model].parts[from_part]
        self.check()

    @rule(from_model=MODELS, from_part=PARTS, to_model=MODELS, to_part=PARTS)
    def share_an_array(self, from_model: int, from_part: int, to_model: int, to_part: int) -> None:
        for models in (self.models, self.mirrors):
            models[to_model].parts[to_part][...] = models[from_model].parts[from_part][...]
        self.check()

    @rule(which=MODELS)
    def renew(self, which: int) -> None:
        """Puts the Variables into another model that may get the address of the old one."""
        parts = self.models[which].parts
        self.models[which] = None  # type: ignore[call-overload]
        self.models[which] = Model(parts)
        self.check()

    @rule(which=MODELS)
    def copy_model(self, which: int) -> None:
        self.models[which] = nnx.clone(self.models[which])
        cells = {id(cell): Cell(cell.value) for cell in self.mirrors[which].parts}
        self.mirrors[which] = Mirror([cells[id(cell)] for cell in self.mirrors[which].parts])
        self.check()


TestHeldArrays = HeldArrays.TestCase
TestHeldArrays.settings = settings(
    max_examples=HISTORIES, stateful_step_count=25, suppress_health_check=list(HealthCheck)
)
