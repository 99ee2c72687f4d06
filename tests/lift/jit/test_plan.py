"""Plans: what they notice, what they cost and what they keep."""

from __future__ import annotations

import copy
import functools
import gc
import pickle
import subprocess
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx
from tests.lift import zoo
from tests.lift.changes import CHANGES, in_thread
from tests.lift.zoo import Leaf, Zoo
from weft._lift.jit import dispatch, operands, plan
from weft._lift.jit.plan import iter_plans


@pytest.fixture(scope="module")
def functions() -> tuple[Any, Any]:
    return nnx.jit(zoo.describe, on_retrace=None), nnx.jit(
        zoo.describe, donate=None, on_retrace=None
    )


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_seen(name: str, functions: tuple[Any, Any]) -> None:
    root, other = Zoo(), Leaf()
    with jax.disable_jit():
        for function in functions:
            function(root, other)
            function(root, other)
        before = zoo.look(root, other)
        values = [np.array(x) for x in before[0]]
        CHANGES[name](root)
        arrays, text = zoo.look(root, other)
        same = [np.array_equal(a, b) for a, b in zip(arrays, values, strict=False)]
        assert text != before[1] or len(values) != len(arrays) or not all(same)
        for function in functions:
            for _ in range(2):
                found, number = function(root, other)
                assert number == zoo.fingerprint(text)
                for array, expected in zip(found, arrays, strict=True):
                    np.testing.assert_array_equal(array, expected)


# -- what a plan costs and what it keeps
class Walks:
    """Counts how many times the objects of calls are walked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.number = 0
        real = dispatch.make_plan

        def counted(*args: Any) -> Any:
            self.number += 1
            return real(*args)

        monkeypatch.setattr(dispatch, "make_plan", counted)


@pytest.fixture
def walks(monkeypatch: pytest.MonkeyPatch) -> Walks:
    return Walks(monkeypatch)


@nnx.jit
def scaled(m: Leaf, x: Any) -> Any:
    return m.weight * x * m.scale


def test_objects_are_walked_once(walks: Walks) -> None:
    m, n = Leaf(), Leaf()
    n.scale = 2
    for i in range(4):
        np.testing.assert_array_equal(scaled(m, float(i)), np.arange(2) * i)
        np.testing.assert_array_equal(scaled(n, float(i)), np.arange(2) * i * 2)
    assert walks.number == 2
    m.weight[...] = m.weight + 1
    m.weight.value = jnp.ones(2)
    scaled(m, 1.0)
    assert walks.number == 2
    n.scale = 1
    scaled(m, 1.0)  # only the plans of what changed are void
    assert walks.number == 2
    scaled(n, 1.0)
    assert walks.number == 3


def test_another_array_in_an_attribute_is_no_change(walks: Walks) -> None:
    root = Leaf()
    root.array = jnp.zeros(2)
    total = nnx.jit(lambda m: m.array.sum())
    for i in range(3):
        root.array = jnp.full(2, float(i))
        assert total(root) == 2 * i
    assert walks.number == 1


def test_forms_of_arguments(walks: Walks) -> None:
    m, n, x = Leaf(), Leaf(), jnp.ones(2)

    @functools.partial(nnx.jit, on_retrace=None)
    def total(*args: Any, **kwargs: Any) -> Any:
        leaves = jax.tree.leaves((args, kwargs))
        return sum(jax.tree.map(jnp.sum, leaves), jnp.zeros(()))

    calls: list[tuple[tuple, dict[str, Any], float]] = [
        ((m, x), {}, 3.0),
        ((m, {"a": x, "b": x}), {}, 5.0),
        ((m, (x, None)), {}, 3.0),
        ((m, n), {}, 2.0),
        ((m, x, n), {}, 4.0),
        ((m, m), {}, 2.0),
        ((m, [n, x]), {}, 4.0),
        (([m, x],), {}, 3.0),
        ((m,), {"x": x}, 3.0),
        ((m,), {"m": n, "x": x}, 4.0),
        ((), {"m": n}, 1.0),
        ((x, m), {}, 3.0),
        ((m.weight, x), {}, 3.0),
        ((nnx.state(m), x), {}, 3.0),
        ((x,), {}, 2.0),
        ((), {}, 0.0),
        ((m, 2.0), {}, 3.0),
    ]
    for _ in range(3):
        for args, kwargs, expected in calls:
            for _ in range(2):
                assert total(*args, **kwargs) == expected
    assert walks.number == len(calls) - 1  # a number has the form of an array


def test_static_arguments(walks: Walks) -> None:
    @functools.partial(nnx.jit, static_argnames="options")
    def apply(m: Leaf, options: Any, x: Any) -> Any:
        return m.weight * x * options["scale"]

    m = Leaf()
    for scale in (1.0, 2.0, 1.0, 2.0):
        np.testing.assert_array_equal(apply(m, {"scale": scale}, jnp.ones(2)), np.arange(2) * scale)
    assert walks.number == 2
    assert apply.cache_info().traces == 2


def test_bound_methods(walks: Walks) -> None:
    m = Leaf()
    apply = nnx.jit(m.apply)
    assert [float(apply(2.0)) for _ in range(3)] == [2.0] * 3
    m.scale = 3
    assert float(apply(2.0)) == 6.0
    assert walks.number == 2


def test_a_function_of_another_object_of_the_same_address(walks: Walks) -> None:
    other = Leaf()
    for i in range(5):
        m = Leaf()
        m.scale = i
        assert scaled(m, 1.0)[1] == i
        both = nnx.jit(lambda m, n: m.weight * n.scale)
        n = Leaf()
        n.scale = i
        assert both(other, n)[1] == i
        del m, n


def test_a_plan_dies_with_its_objects() -> None:
    m, n = Leaf(), Leaf()
    both = nnx.jit(lambda m, n: m.weight + n.weight)
    both(m, n)
    both(m, n)
    gone = [weakref.ref(n), weakref.ref(n.weight)]
    gc.disable()
    try:
        del n
        assert [ref() for ref in gone] == [None, None]
        gone = [weakref.ref(m), weakref.ref(m.weight)]
        del m
        assert [ref() for ref in gone] == [None, None]
    finally:
        gc.enable()


def test_a_plan_is_no_part_of_its_object() -> None:
    m = Leaf()
    scaled(m, 1.0)
    assert list(vars(m)) == ["weight", "scale"]
    for other in (copy.copy(m), copy.deepcopy(m), pickle.loads(pickle.dumps(m)), nnx.clone(m)):
        assert not other._root_plans
        np.testing.assert_array_equal(scaled(other, 2.0), scaled(m, 2.0))
    assert "plan" not in repr(m)


def test_other_threads_have_plans_of_their_own(walks: Walks) -> None:
    m = Leaf()
    scaled(m, 1.0)
    in_thread(lambda: scaled(m, 1.0))
    assert walks.number == 2


def test_objects_forget_plans_that_are_gone() -> None:
    shared = Leaf()
    both = nnx.jit(lambda m, n: m.weight + n.weight)
    for _ in range(100):
        both(Leaf(), shared)
    assert len(shared._pytree_watches) < 40
    for i in range(100):
        shared.scale = i % 2
        scaled(shared, 1.0)
    assert len(shared._pytree_watches) < 40
    assert sum(map(len, shared._root_plans.values())) < 10


def test_plans_with_many_other_objects_are_bounded() -> None:
    m, others = Leaf(), [Leaf() for _ in range(40)]
    both = nnx.jit(lambda m, n: m.weight + n.weight)
    for n in others:
        both(m, n)
    assert len(list(iter_plans(m._root_plans))) <= 16


@pytest.mark.parametrize("kind", ["list", "dict"])
def test_a_part_that_is_removed_unseen_is_let_go(kind: str) -> None:
    root = nnx.Module()
    root.parts = [Leaf()] if kind == "list" else {"a": Leaf()}
    root.weight = nnx.Param(jnp.ones(2))
    total = nnx.jit(lambda m: m.weight.sum(), on_retrace=None)
    no_longer_called = nnx.jit(lambda m: m.weight.sum())
    for _ in range(3):
        total(root), no_longer_called(root)
    (part,) = root.parts if kind == "list" else root.parts.values()
    gone = weakref.ref(part.weight)
    del part
    gc.disable()
    try:
        root.parts.clear()
        total(root)
        assert gone() is None
    finally:
        gc.enable()


def test_a_function_of_arrays_in_attributes_is_not_looked_up_at_length(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root, total = Leaf(), nnx.jit(lambda m: m.array.sum() + m.weight.sum())
    for donates in (True, False):
        function = total if donates else nnx.jit(lambda m: m.array.sum(), donate=None)
        root.array = jnp.zeros(2)
        for _ in range(3):
            function(root)
        with monkeypatch.context() as patch:
            patch.setattr(dispatch.Dispatcher, "_call", None)
            root.array = jnp.ones(2)
            assert float(function(root)) == (3.0 if donates else 2.0)


def test_a_change_while_a_plan_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread changes the structure after the walk and before the plan watches."""
    m, real, changes = Leaf(), plan.check_apart, [None]
    with ThreadPoolExecutor(1) as pool:

        def check(entries: Any) -> None:
            real(entries)
            if changes:
                changes.pop()
                pool.submit(setattr, m, "scale", 5).result()

        monkeypatch.setattr(plan, "check_apart", check)
        for _ in range(2):
            np.testing.assert_array_equal(scaled(m, 1.0), np.arange(2) * 5)


def test_a_write_while_arrays_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """What another thread wrote meanwhile is not kept: later writes would not be noticed."""
    m, real, writes = Leaf(), operands.register, []
    total = nnx.jit(lambda m: m.weight.sum())
    total(m), total(m)
    m.weight[...] = jnp.ones(2)

    def register(reader: Any) -> Any:
        reference = real(reader)
        if writes:
            writes.pop()
            in_thread(lambda: m.weight.set_value(jnp.full(2, 2.0)))
        return reference

    monkeypatch.setattr(operands, "register", register)
    writes.append(None)
    assert float(total(m)) == 4.0 and not writes
    m.weight[...] = jnp.full(2, 3.0)
    assert float(total(m)) == 6.0


def test_a_state_whose_mapping_was_handed_out() -> None:
    root = nnx.Module()
    root.state = nnx.state(Zoo())
    flat, deep = root.state.raw_mapping, nnx.State({"a": {"b": {"c": nnx.Param(jnp.ones(1))}}})
    root.deep, inner = deep, deep.raw_mapping["a"]["b"]
    count = nnx.jit(lambda m: jnp.float32(len(jax.tree.leaves(m))), on_retrace=None)
    for mapping in (flat, inner):
        before = float(count(root))
        assert float(count(root)) == before
        mapping["extra"] = nnx.Param(jnp.ones(1))
        for _ in range(2):
            assert float(count(root)) == before + 1
    graphdef = nnx.graphdef(root)
    assert nnx.graphdef(root) == graphdef
    for mapping in (flat, inner):
        del mapping["extra"]
        changed = nnx.graphdef(root)
        assert nnx.graphdef(root) == changed != graphdef
        graphdef = changed


AT_EXIT = """
import jax.numpy as jnp, optax
import weft as nnx

model = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
optimizer = nnx.Optimizer(model, optax.adam(1e-3), wrt=nnx.Param)

@nnx.jit
def step(model, optimizer, x):
    optimizer.update(model, nnx.grad(lambda model: model(x).sum())(model))

step(model, optimizer, jnp.ones((1, 2)))
others = [model, optimizer, step]
"""


def test_a_program_ends_in_silence() -> None:
    """What is left in the modules of a program goes one by one, functions before objects."""
    ended = subprocess.run([sys.executable, "-c", AT_EXIT], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
