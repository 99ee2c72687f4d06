"""Programs: what JAX compiles is what it would compile of plain functions, in every context."""

from __future__ import annotations

import contextlib
import functools
import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx
from tests.devices import make_mesh
from tests.lift.donated import is_donated, peek
from tests.lift.jit.models import Counters
from weft._lift.jit import handover
from weft._lift.jit.plan import iter_plans

CONTEXTS: dict[str, Callable[[], Any]] = {
    "matmul precision": lambda: jax.default_matmul_precision("bfloat16"),
    "x64": lambda: jax.enable_x64(True),
    "threefry_partitionable": lambda: jax.threefry_partitionable(False),
    "promotion": lambda: jax.numpy_dtype_promotion("standard"),
    "rank promotion": lambda: jax.numpy_rank_promotion("raise"),
    "PRNG implementation": lambda: jax.default_prng_impl("rbg"),
    "mesh": lambda: jax.set_mesh(make_mesh((4,), ("x",))),
    "debug_nans": lambda: jax.debug_nans(True),
    "debug_infs": lambda: jax.debug_infs(True),
    "disable_jit": jax.disable_jit,
}


def body(w: Any, x: Any) -> tuple[Any, Any]:
    """Depends on every setting of the table."""
    key = jax.random.key(0)
    noise = jax.random.uniform(key, (4,))
    counts = jnp.arange(4)
    mesh = jax.sharding.get_abstract_mesh()
    new = jnp.dot(x, x)[0] * 0.5 + w + noise.astype(w.dtype)
    return new, (noise, counts, x @ x, jax.random.key_data(key), jnp.float32(mesh.size or 0))


class Model(nnx.Module):
    def __init__(self) -> None:
        self.w = nnx.Param(jnp.ones(4))


def written(m: Model, x: Any) -> Any:
    new, out = body(m.w[...], x)
    m.w.set_value(new)
    return out


def check_same(found: Any, expected: Any) -> None:
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.parametrize("first", ["outside", "inside"])
@pytest.mark.parametrize("name", CONTEXTS)
def test_a_context_changes_what_it_changes_for_jax(name: str, first: str) -> None:
    plain_traces = []

    @jax.jit
    def plain(w: Any, x: Any) -> Any:
        plain_traces.append(1)
        return body(w, x)

    # JAX does not trace anew for a PRNG implementation: which one comes first decides.
    plain_reading = jax.jit(lambda w, x: body(w, x)[1])
    function = nnx.jit(written, on_retrace=None)
    reading = nnx.jit(lambda m, x: body(m.w[...], x)[1], on_retrace=None)
    m, w, x = Model(), jnp.ones(4), jnp.full((4, 4), 1 / 3)
    for inside in (False, True, False, True) if first == "outside" else (True, False, True):
        with CONTEXTS[name]() if inside else contextlib.nullcontext():
            for _ in range(2):
                check_same(reading(m, x), plain_reading(w, x))
                w, expected = plain(w, x)
                check_same(function(m, x), expected)
                check_same(peek(m.w), w)
    if name != "disable_jit":  # then nothing is traced, the function just runs
        for jitted in (function, reading):
            assert jitted.cache_info().traces == len(plain_traces)


def test_x64_may_change_the_dtype_of_what_was_donated() -> None:
    @nnx.jit
    def fill(m: Model) -> None:
        m.w.set_value(jnp.zeros(4) + m.w[0].astype(float))

    m = Model()
    fill(m)
    with jax.enable_x64(True):
        fill(m)
        assert m.w.dtype == jnp.float64
        fill(m)
    np.testing.assert_array_equal(m.w, np.ones(4))
    n = Model()
    fill(n)
    assert n.w.dtype == jnp.float32


def test_debug_nans_raises_and_keeps_the_model() -> None:
    @nnx.jit
    def divide(m: Model, x: Any) -> None:
        m.w[...] = m.w / x

    m = Model()
    divide(m, jnp.ones(4))
    with jax.debug_nans(True), pytest.raises(FloatingPointError):
        m.w[...] = jnp.zeros(4)
        divide(m, jnp.zeros(4))
    np.testing.assert_array_equal(m.w, np.zeros(4))


# -- what is written may depend on what JAX alone sees


def test_the_write_set_may_depend_on_the_shape() -> None:
    @functools.partial(nnx.jit, on_retrace=None)
    def count(m: Counters, x: Any) -> Any:
        if len(x) == 1:
            m.a[...] = m.a + 1
        elif len(x) == 2:
            m.b[...] = m.b + 1
        elif len(x) == 3:
            m.a[...], m.b[...] = m.b[...], m.a[...]
        elif len(x) == 4:
            m.a.set_metadata(tag=1)
            m.b[...] = m.b + 1
        elif len(x) == 5:
            m.size += 1
        elif len(x) == 6:
            m.a.set_value((m.a[...], m.b[...]))
        return {"sum": m.b.sum()} if len(x) % 2 else m.b.sum()

    @jax.jit
    def expected(a: Any, b: Any, x: Any) -> Any:
        n = len(x)
        a, b = (a + float(n == 1), b + float(n in (2, 4))) if n != 3 else (b, a)
        return a, b, b.sum()

    for first in (1, 2, 3):
        m = Counters()
        a, b = jnp.zeros(2), jnp.zeros(2)
        held = []
        for n in (first, 2, 1, 3, 2, 4, 1, 5, 2, 3, 1, 4, 5):
            x = jnp.zeros(n)
            a, b, total = expected(a, b, x)
            out = count(m, x)
            np.testing.assert_array_equal(out["sum"] if n % 2 else out, total)
            np.testing.assert_array_equal(peek(m.a), a)
            np.testing.assert_array_equal(peek(m.b), b)
            if n == 3:
                held.append((m.a[...], np.array(a)))
        assert m.a.tag == 1 and m.size == 2
        for array, then in held:
            np.testing.assert_array_equal(array, then)
        count(m, jnp.zeros(6))
        np.testing.assert_array_equal(m.a.value[0], a)
        np.testing.assert_array_equal(m.a.value[1], b)


def test_what_is_no_longer_written_stays_donated_and_intact() -> None:
    @nnx.jit
    def train(m: Counters, x: Any) -> Any:
        if len(x) == 1:
            m.a[...] = m.a + 1
        return x.sum()

    m = Counters()
    for _ in range(2):
        train(m, jnp.zeros(1))
    for n in (2, 1, 2, 2, 1):
        held = m.a[...]
        train(m, jnp.zeros(n))
        train(m, jnp.zeros(n))
        assert not held.is_deleted()
    np.testing.assert_array_equal(m.a, np.full(2, 6.0))
    train(m, jnp.zeros(1))
    for n in (2, 1, 1):
        assert is_donated(functools.partial(train, m, jnp.zeros(n)), m.a)


def test_what_a_later_trace_writes_is_donated() -> None:
    @nnx.jit
    def train(m: Counters, x: Any) -> Any:
        if len(x) == 2:
            m.a[...] = m.a + 1
        return m.b.sum()

    m = Counters()
    for _ in range(3):
        train(m, jnp.zeros(1))
    train(m, jnp.zeros(2)), train(m, jnp.zeros(2))
    assert is_donated(lambda: train(m, jnp.zeros(2)), m.a)
    train(m, jnp.zeros(1))
    assert is_donated(lambda: train(m, jnp.zeros(2)), m.a)
    np.testing.assert_array_equal(m.a, np.full(2, 4.0))


def test_a_function_that_calls_itself() -> None:
    @functools.partial(nnx.jit, on_retrace=None)
    def total(m: Counters, x: Any) -> Any:
        m.a[...] = m.a + 1
        return x[0] + (total(m, x[1:]) if len(x) > 1 else m.b.sum())

    m = Counters()
    for i in range(3):
        assert float(total(m, jnp.arange(4.0))) == 6.0
        np.testing.assert_array_equal(m.a, np.full(2, 4.0 * (i + 1)))


class Places(nnx.Module):
    """Variables that are written elsewhere on the mesh than they were, and where they were."""

    def __init__(self, mesh: Any) -> None:
        def put(*spec: Any) -> Any:
            return jax.device_put(jnp.zeros((4, 4)), jax.NamedSharding(mesh, jax.P(*spec)))

        self.moves, self.stays = nnx.BatchStat(put()), nnx.BatchStat(put("a"))
        self.turns = nnx.BatchStat(put(None, "a"))

    def write(self, x: Any) -> Any:
        self.moves[...] = x + 0.0 * self.moves
        self.stays[...] = x + self.stays
        self.turns[...] = jax.reshard(x, jax.P(None, "a")) + self.turns


@pytest.mark.parametrize("second", [jax.sharding.AxisType.Explicit, jax.sharding.AxisType.Auto])
def test_what_moves_on_a_mesh_is_not_donated(second: Any) -> None:
    kinds = (jax.sharding.AxisType.Explicit, second)
    mesh = jax.make_mesh((2, 2), ("a", "b"), axis_types=kinds)
    with jax.set_mesh(mesh):
        x = jax.device_put(jnp.ones((4, 4)), jax.NamedSharding(mesh, jax.P("a")))
        m = Places(mesh)
        write = nnx.jit(lambda m, x: m.write(x))
        write(m, x)  # a donation in vain would warn
        write(m, x)
        old = [peek(m.moves), peek(m.stays), peek(m.turns)]
        write(m, x)
        assert [array.is_deleted() for array in old] == [False, True, True]
        assert jax.typeof(m.moves[...]).sharding.spec == jax.P("a", None)
        assert jax.typeof(m.turns[...]).sharding.spec == jax.P(None, "a")
        np.testing.assert_array_equal(m.stays, np.full((4, 4), 3.0))


# -- traces
def test_the_first_call_traces_the_function_once() -> None:
    traced = []

    @nnx.jit
    def train(m: Counters, x: Any) -> Any:
        traced.append(1)
        m.a[...] = m.a + x
        return m.a.sum()

    m = Counters()
    for _ in range(3):
        train(m, jnp.ones(2))
    assert traced == [1]
    train(Counters(), jnp.ones(2))
    assert traced == [1]
    train(m, jnp.ones(1))
    assert traced == [1, 1]


def test_a_function_that_raises_stop_iteration() -> None:
    batches = iter([1.0])

    @nnx.jit
    def train(m: Counters, x: Any) -> None:
        m.a[...] = m.a + next(batches) * x.sum()

    m = Counters()
    train(m, jnp.ones(2))
    with pytest.raises(StopIteration):
        train(m, jnp.ones(3))
    train(m, jnp.ones(2))
    np.testing.assert_array_equal(m.a, np.full(2, 4.0))


def test_the_jaxpr_of_the_first_trace_serves_that_call_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @nnx.jit
    def train(m: Counters, x: Any) -> Any:
        m.a[...] = m.a + jnp.dot(x, x)
        return jax.random.uniform(jax.random.key(0))

    m = Counters()
    with monkeypatch.context() as patch:
        # The program is made, but the call runs without donation.
        patch.setattr("weft._lift.jit.lease.Lease.reclaim", lambda *args: False)
        first = train(m, jnp.ones(2))
    (plan,) = iter_plans(m._root_plans)
    assert not plan.program().donating.handovers
    with jax.threefry_partitionable(False):
        expected = jax.jit(lambda: jax.random.uniform(jax.random.key(0)))()
        np.testing.assert_array_equal(train(m, jnp.ones(2)), expected)
    np.testing.assert_array_equal(train(m, jnp.ones(2)), first)
    np.testing.assert_array_equal(m.a, np.full(2, 6.0))


def test_threads_with_other_settings_do_not_share_a_jaxpr(monkeypatch: pytest.MonkeyPatch) -> None:
    """While one thread has traced and not run yet, another one runs the same structure."""

    @nnx.jit
    def draw(m: Counters) -> Any:
        m.a[...] = m.a + 1
        return jax.random.uniform(jax.random.key(0))

    results: dict[str, Any] = {}

    def in_other_thread() -> None:
        with jax.threefry_partitionable(False):
            results["other"] = draw(Counters())

    real = handover.Trace.prepare

    def prepare(self: Any, *args: Any) -> Any:
        program = real(self, *args)
        if "other" not in results:
            results["other"] = None
            thread = threading.Thread(target=in_other_thread)
            thread.start()
            thread.join()
        return program

    monkeypatch.setattr(handover.Trace, "prepare", prepare)
    mine = draw(Counters())
    uniform = lambda: jax.random.uniform(jax.random.key(0))  # noqa: E731
    np.testing.assert_array_equal(mine, jax.jit(uniform)())
    with jax.threefry_partitionable(False):
        np.testing.assert_array_equal(results["other"], jax.jit(uniform)())


def test_functions_with_the_same_code_are_apart() -> None:
    def make(scale: float) -> Any:
        return nnx.jit(lambda m: m.a * scale)

    m = Counters()
    m.a[...] = jnp.ones(2)
    for function, scale in [(make(i), i) for i in (1.0, 2.0, 3.0)] * 2:
        np.testing.assert_array_equal(function(m), np.full(2, scale))


def test_a_program_goes_with_its_function() -> None:
    def make() -> tuple[Any, weakref.ref]:
        big = jnp.ones((32, 32))
        return nnx.jit(lambda m: m.a + big.sum()), weakref.ref(big)

    function, big = make()
    m = Counters()
    function(m)
    function(m)
    gc.collect()
    gc.disable()
    try:
        del function
        assert big() is None
    finally:
        gc.enable()


# -- what comes out


def test_a_program_is_replaced_under_the_plan_of_another_model() -> None:
    @functools.partial(nnx.jit, on_retrace=None)
    def grow(m: Counters, x: Any) -> Any:
        m.a.value = m.a + 1 if len(x) == 1 else jnp.concatenate([m.a[...], x])
        m.b[...] = m.b + 1
        return m.b.sum()

    mine, other = Counters(), Counters()
    for _ in range(3):
        grow(mine, jnp.zeros(1))
        grow(other, jnp.zeros(1))
    grow(other, jnp.zeros(3))
    assert other.a.shape == (5,)
    gc.collect()
    for i in range(3):
        assert float(grow(mine, jnp.zeros(1))) == 2 * (4.0 + i)
    np.testing.assert_array_equal(mine.a, np.full(2, 6.0))


# -- parts of Variables
def test_a_part_is_read_and_written_in_its_whole() -> None:
    stack = nnx.Stack(lambda rngs: nnx.Linear(2, 2, rngs=rngs), 3, rngs=nnx.Rngs(0))
    pair = nnx.List([stack[1], nnx.Variable(jnp.zeros(()))])
    whole = stack.stacked.kernel

    @nnx.jit
    def train(m: Any) -> Any:
        m[0].kernel[...] = m[0].kernel + 1
        m[1][...] = m[1] + 1
        return m[1] * 1

    look = nnx.jit(lambda m: m[0].kernel.sum())
    for i in range(4):
        whole[...] = jnp.full((3, 2, 2), float(i))
        assert float(look(pair)) == 4.0 * i
        assert is_donated(lambda: train(pair), pair[1]) == (i > 0)
        assert float(look(pair)) == 4.0 * i + 4
        np.testing.assert_array_equal(whole[:, 0, 0], [i, i + 1, i])
