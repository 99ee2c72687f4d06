"""Arrays that a lease holds between calls: whoever uses a Variable finds the newest value in it."""

from __future__ import annotations

import copy
import functools
import gc
import os
import pickle
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx
from tests.lift.donated import peek
from weft._core.types import HELD
from weft._variable.storage import get_slot


class Part(nnx.Module):
    def __init__(self) -> None:
        self.w = nnx.Param(jnp.arange(3.0))


class Model(nnx.Module):
    def __init__(self) -> None:
        self.parts = nnx.List([Part(), Part()])
        self.count = nnx.Variable(jnp.zeros(()))
        self.fixed = nnx.BatchStat(jnp.ones(3))


def train(m: Model) -> Any:
    for part in m.parts:
        part.w[...] = part.w * 2 + m.fixed
    m.count[...] = m.count + 1
    return m.count[...]


def total(m: Model) -> Any:
    return sum(part.w.sum() for part in m.parts) + m.count


step, sum_up = nnx.jit(train, on_retrace=None), nnx.jit(total, on_retrace=None)


@nnx.jit
def shrink(m: Model) -> None:
    m.parts[0].w[...] = m.parts[0].w / 4


@functools.partial(nnx.jit, on_retrace=None)
def fails(m: Model) -> None:
    train(m)
    raise RuntimeError("while tracing")


def is_held(m: Model) -> bool:
    return all(get_slot(v) is HELD for v in (m.parts[0].w, m.parts[1].w, m.count))


def trained() -> Model:
    m = Model()
    for _ in range(4):
        step(m)
    assert is_held(m)
    return m


def values(m: Model) -> list[np.ndarray]:
    return [np.array(peek(v)) for _, v in nnx.iter_graph(m) if isinstance(v, nnx.Variable)]


def _write(m: Model) -> None:
    m.parts[1].w[...] = jnp.ones(3)


def _update(m: Model) -> None:
    nnx.update(m, jax.tree.map(lambda x: x + 1, nnx.state(m)))


def _pickled(m: Model) -> Any:
    return nnx.state(pickle.loads(pickle.dumps(nnx.split(m)[1])))


def _removed(m: Model) -> Any:
    part = m.parts.pop()
    assert len(m.parts) == 1
    return part.w[...]


def _rebound(m: Model) -> Any:
    old, m.count = m.count, nnx.Variable(jnp.ones(()))
    return old[...]


def _elsewhere(use: Callable[[Model], Any]) -> Callable[[Model], Any]:
    """Returns a function that does something in another thread."""

    def run(m: Model) -> Any:
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.append(use(m)))
        thread.start()
        thread.join()
        return found[0]

    return run


def _without_donation(m: Model) -> Any:
    with nnx.set_auto_donation(False):
        return step(m)


def _without_compiling(m: Model) -> Any:
    with jax.disable_jit():
        return step(m)


def _failing(m: Model) -> Any:
    for _ in range(2):
        with pytest.raises(RuntimeError, match="while tracing"):
            fails(m)
    return total(m)


USES: dict[str, Callable[[Model], Any]] = {
    "read": lambda m: m.parts[0].w[...],
    "write": _write,
    "write a part": lambda m: m.parts[1].w.__setitem__(0, 7.0),
    "arithmetic": lambda m: m.count + 1,
    "jnp": lambda m: jnp.sum(m.parts[0].w),
    "copy": lambda m: m.parts[0].w.copy()[...],
    "deep copy": lambda m: total(copy.deepcopy(m)),
    "pickle": _pickled,
    "split and merge": lambda m: total(nnx.merge(*nnx.split(m))),
    "split by type": lambda m: nnx.split(m, nnx.Param, ...)[1],
    "state": nnx.state,
    "clone": lambda m: total(nnx.clone(m)),
    "update": _update,
    "leaves": jax.tree.leaves,
    "tree map": lambda m: total(jax.tree.map(lambda x: x + 1, m)),
    "repr": lambda m: "Array" in repr(m),
    "metadata": lambda m: m.count.set_metadata(tag=1),
    "grad": lambda m: nnx.grad(total)(m),
    "another reading function": sum_up,
    "the same twice": lambda m: (sum_up(m), sum_up(m)),
    "another writing function": shrink,
    "both in turns": lambda m: [(shrink(m), step(m), sum_up(m))[1:] for _ in range(3)],
    "a function of jax": lambda m: jax.jit(lambda m: total(m))(m),
    "inside of another function": lambda m: nnx.jit(lambda m: (step(m), total(m)))(m),
    "under vmap": lambda m: jax.vmap(lambda x: sum_up(m) + x)(jnp.ones(2)),
    "remove": _removed,
    "replace": _rebound,
    "new attribute": lambda m: setattr(m, "extra", nnx.Param(jnp.zeros(1))),
    "another thread reads": _elsewhere(lambda m: m.count[...]),
    "another thread sums up": _elsewhere(sum_up),
    "another thread trains": _elsewhere(step),
    "without donation": _without_donation,
    "without compiling": _without_compiling,
    "a function that fails": _failing,
}


@pytest.mark.parametrize("use", USES)
def test_a_use_between_calls_sees_and_makes_the_same(use: str) -> None:
    mine, expected = trained(), Model()
    for _ in range(4):
        train(expected)
    for _ in range(3):
        if len(mine.parts) == 2 or use != "remove":
            found, wanted = USES[use](mine), _plainly(use, expected)
            jax.tree.map(np.testing.assert_array_equal, found, wanted)
        for _ in range(3):
            np.testing.assert_array_equal(step(mine), train(expected))
        jax.tree.map(np.testing.assert_array_equal, values(mine), values(expected))


def _plainly(use: str, m: Model) -> Any:
    """Does the same to a model whose arrays nobody holds."""
    with nnx.set_auto_donation(False):
        return USES[use](m)


@pytest.mark.parametrize("use", USES)
def test_a_function_that_only_reads_sees_what_a_use_wrote(use: str) -> None:
    m = trained()
    for _ in range(3):
        for _ in range(3):
            np.testing.assert_array_equal(sum_up(m), total(m))
        if len(m.parts) == 2 or use != "remove":
            USES[use](m)


def test_calls_go_on_without_touching_variables() -> None:
    m = trained()
    for i in range(5):
        assert float(step(m)) == 5.0 + i
        assert is_held(m)
    assert float(m.count[...]) == 9.0
    assert not is_held(m)


def test_a_lease_that_is_disturbed_each_time_does_not_hold() -> None:
    m = trained()
    for i in range(4):
        assert float(step(m)) == 5.0 + i and float(m.count[...]) == 5.0 + i
        assert not is_held(m)


def test_arguments_by_name() -> None:
    @nnx.jit
    def add(m: Model, *, x: Any) -> Any:
        m.count[...] = m.count + x
        return {"count": m.count[...]}

    m = Model()
    for i in range(5):
        assert float(add(m, x=jnp.ones(()))["count"]) == i + 1.0
    assert get_slot(m.count) is HELD


def test_a_variable_outlives_its_model() -> None:
    m = trained()
    count, other = m.count, weakref.ref(m.parts[0].w)
    del m
    assert get_slot(count) is not HELD and float(count[...]) == 4.0
    assert other() is None


def test_variables_outlive_the_function() -> None:
    local = nnx.jit(train)
    m = Model()
    for _ in range(4):
        local(m)
    assert is_held(m)
    del local
    gc.collect()
    assert float(m.count[...]) == 4.0
    np.testing.assert_array_equal(m.parts[1].w, np.arange(3.0) * 16 + 15)
    assert float(step(m)) == 5.0


def test_a_cycle_of_garbage_is_collected() -> None:
    m = trained()
    around: list[Any] = [m]
    around.append(around)
    gone = weakref.ref(m.count)
    del m, around
    gc.collect()
    assert gone() is None


def test_nothing_else_keeps_arrays() -> None:
    m = trained()
    step(m)
    held = weakref.ref(peek(m.count))
    nnx.update(m, nnx.state(Model()))
    gc.collect()
    assert held() is None


def test_a_process_ends_quietly_while_arrays_are_held() -> None:
    script = "import jax; from tests.lift.test_held import trained; jax.kept = trained()"
    found = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},  # else XLA may log there
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    assert found.stderr == ""
