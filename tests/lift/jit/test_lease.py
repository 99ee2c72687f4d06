"""Donation: what a function writes is written in place, and what others hold is not touched."""

from __future__ import annotations

import contextlib
import functools
import gc
import warnings
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import weft as nnx
from tests.devices import devices
from tests.lift.donated import Model, add, address, is_donated, peek, read, step, trained
from weft._lift.jit import lease, run
from weft._lift.jit.plan import iter_plans
from weft._variable.storage import get_keeper


# -- that it happens
def test_written_arrays_are_overwritten_in_place() -> None:
    m = trained()
    before, kept = address(m.w), peek(m.frozen)
    old = peek(m.w)
    step(m)
    assert address(m.w) == before
    assert old.is_deleted()
    assert peek(m.frozen) is kept and not kept.is_deleted()


def test_the_first_call_copies() -> None:
    m = Model()
    arrays = [peek(v) for v in (m.w, m.key, m.raw_key)]
    step(m)
    step(m)
    assert not any(array.is_deleted() for array in arrays)


def test_raw_arrays_among_the_arguments_are_kept() -> None:
    m, x = trained(), jnp.ones(4)
    for _ in range(3):
        add(m, x)
    np.testing.assert_array_equal(x, np.ones(4))


def test_what_is_read_is_copied_once() -> None:
    m = trained()
    held = m.w[...]
    step(m)
    assert not held.is_deleted()
    assert is_donated(lambda: step(m), m.w)


# -- other dtypes and shapes
def test_another_shape_or_dtype_is_written_without_a_warning() -> None:
    @nnx.jit
    def grow(m: Model) -> None:
        m.w.set_value(jnp.concatenate([m.w[...], jnp.ones(1)]))
        m.frozen.set_value(m.frozen[...].astype(jnp.float16))

    m = Model()
    for size in (5, 6, 7):
        grow(m)
        assert m.w.shape == (size,) and m.frozen.dtype == jnp.float16


def test_a_later_trace_that_writes_another_dtype() -> None:
    @nnx.jit
    def scale(v: nnx.Variable, x: Any) -> None:
        v.set_value(v * x)

    v = nnx.Variable(jnp.ones(2))
    scale(v, jnp.ones(2))
    assert is_donated(lambda: scale(v, jnp.ones(2)), v)
    with jax.numpy_dtype_promotion("standard"):
        narrow = nnx.Variable(jnp.ones(2, jnp.float16))
        scale(narrow, jnp.full(2, 3.0, jnp.float32))
    assert narrow.dtype == jnp.float32
    np.testing.assert_array_equal(narrow, [3, 3])
    scale(v, jnp.full(2, 2.0))
    np.testing.assert_array_equal(v, [2, 2])


@pytest.mark.parametrize("starts", [(np, np), (np, jnp), (jnp, np)])
def test_numpy_arrays_become_arrays_and_are_donated_then(starts: Any) -> None:
    @nnx.jit
    def count(m: Any) -> None:
        m.a[...] = m.a + 1
        m.b[...] = m.b + 1

    class Counts(nnx.Module):
        def __init__(self, start: Any) -> None:
            self.a = nnx.Variable(jnp.zeros((), jnp.int32))
            self.b = nnx.Variable(start.zeros((), np.int32))

    for start in starts:
        m = Counts(start)
        held = m.b.value
        for _ in range(3):
            count(m)
        assert int(held) == 0
        for variable in (m.a, m.b):
            assert is_donated(functools.partial(count, m), variable)
        assert (int(m.a.value), int(m.b.value)) == (5, 5)
    assert count.cache_info().traces == 1


# -- borrowed values
CONSTANT = jnp.full(4, 7.0)


def test_arguments_constants_and_duplicates_in_variables_are_not_lost() -> None:
    class Pair(nnx.Module):
        def __init__(self) -> None:
            self.a, self.b = nnx.Variable(jnp.zeros(4)), nnx.Variable(jnp.ones(4))
            self.c, self.d = nnx.Variable(jnp.zeros(4)), nnx.Variable(jnp.ones(4))

    @nnx.jit
    def borrow(m: Pair, x: Any) -> Any:
        m.a[...] = x
        m.b[...] = CONSTANT
        m.c[...] = both = m.d + 1
        m.d[...] = both
        return m.a[...], both

    @nnx.jit
    def swap(m: Pair) -> None:
        m.a[...], m.b[...] = m.b[...], m.a[...]

    m, x = Pair(), jnp.arange(4.0)
    outputs = []
    for i in range(4):
        outputs.append(borrow(m, x))
        swap(m)
        swap(m)
        np.testing.assert_array_equal(m.d, np.full(4, 2.0 + i))
    np.testing.assert_array_equal(x, np.arange(4))
    np.testing.assert_array_equal(CONSTANT, np.full(4, 7))
    np.testing.assert_array_equal(m.a, x)
    np.testing.assert_array_equal(m.b, CONSTANT)
    for i, (a, both) in enumerate(outputs):
        np.testing.assert_array_equal(a, np.arange(4))
        np.testing.assert_array_equal(both, np.full(4, 2.0 + i))


def test_two_variables_around_one_array() -> None:
    array = jnp.ones(4)

    class Tied(nnx.Module):
        def __init__(self) -> None:
            self.a, self.b = nnx.Variable(array), nnx.Variable(array)

    @nnx.jit
    def grow(m: Tied) -> None:
        m.a[...] = m.a + m.b

    m = Tied()
    for i in range(3):
        grow(m)
        np.testing.assert_array_equal(m.a, np.full(4, 2.0 + i))
    np.testing.assert_array_equal(array, np.ones(4))


# -- several functions
def test_two_functions_donate_the_same_variables_in_turn() -> None:
    m = trained()
    add(m, jnp.zeros(4))
    for _ in range(3):
        assert is_donated(lambda: add(m, jnp.ones(4)), m.w)
        assert is_donated(lambda: step(m), m.w)
        held = read(m)
        expected = np.array(held)
        step(m)
        np.testing.assert_array_equal(held, expected)


def test_a_nested_function_does_not_donate() -> None:
    @nnx.jit
    def outer(m: Model) -> Any:
        before = m.w[...]
        add(m, jnp.ones(4))
        return before, m.w[...]

    m = trained()
    for _ in range(3):
        expected = np.array(peek(m.w))
        before, after = outer(m)
        np.testing.assert_array_equal(before, expected)
        np.testing.assert_array_equal(after, expected + 1)
    assert is_donated(lambda: outer(m), m.w)


def test_a_variable_captured_by_the_function_that_it_is_donated_to() -> None:
    m = trained()
    seen = []

    @nnx.jit
    def both(inner: Model) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a captured Variable is a constant
            seen.append(m.w[...])
        inner.w[...] = inner.w + seen[-1]
        return inner.w.sum()

    before = np.array(peek(m.w))
    both(m)
    np.testing.assert_array_equal(m.w, 2 * before)
    both(m)
    np.testing.assert_array_equal(m.w, 3 * before)
    np.testing.assert_array_equal(seen[0], before)


def test_writes_of_other_functions_are_seen() -> None:
    write = nnx.jit(lambda m: m.w.set_value(m.w[...] * 0), donate=None)
    m = trained()
    held = []
    for _ in range(3):
        step(m)
        write(m)
        held.append(m.w[...])
        step(m)
        np.testing.assert_array_equal(peek(m.w), np.ones(4))
    assert not any(array.is_deleted() for array in held)


# -- switches
@pytest.mark.parametrize("way", ["option", "setting", "debug_nans", "debug_infs", "disable_jit"])
def test_switched_off(way: str) -> None:
    double = lambda m: m.w.set_value(m.w[...] * 2)  # noqa: E731
    function = nnx.jit(double, donate=None if way == "option" else "written")
    around: Any = {
        "option": contextlib.nullcontext,
        "setting": lambda: nnx.set_auto_donation(False),
        "debug_nans": lambda: jax.debug_nans(True),
        "debug_infs": lambda: jax.debug_infs(True),
        "disable_jit": jax.disable_jit,
    }[way]
    m = Model()
    for _ in range(2):
        with around():
            assert not any(is_donated(lambda: function(m), m.w) for _ in range(3))
        if way != "option":
            function(m)
            assert is_donated(lambda: function(m), m.w)


def test_what_comes_out_of_a_function_that_is_not_compiled_is_kept() -> None:
    """It may be the very array that a Variable has."""
    m = trained()
    for function in (read, nnx.jit(lambda m: (m.frozen.set_value(m.frozen + 0), m.w[...])[1])):
        for _ in range(2):
            step(m)
        with jax.disable_jit():
            out = function(m)
        expected = np.array(out)
        for _ in range(3):
            step(m)
        np.testing.assert_array_equal(out, expected)


def test_what_a_trace_of_jax_captured_is_kept() -> None:
    m = trained()
    look = nnx.jit(lambda m, x: m.w * x)

    def captured(x: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a captured Variable is a constant
            return look(m, x)

    for _ in range(3):  # from the second time on, JAX knows the function
        step(m), step(m), look(m, jnp.ones(4))
        expected = np.array(peek(m.w))
        _, pullback = jax.vjp(captured, jnp.ones(4))
        for _ in range(3):
            step(m)
        np.testing.assert_array_equal(pullback(jnp.ones(4))[0], expected)


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="donate must be 'written' or None, found 'all'"):
        nnx.jit(lambda m: None, donate="all")


# -- leases by themselves
def test_what_is_read_while_it_is_donated_is_a_copy() -> None:
    m = trained()
    before, lease = peek(m.w), get_keeper(m.w)
    lease.busy = True
    held = m.w[...]
    lease.busy = False
    assert held is not before and peek(m.w) is held
    np.testing.assert_array_equal(held, before)
    before.delete()
    np.testing.assert_array_equal(m.w, held)
    step(m)
    assert not held.is_deleted()


@pytest.mark.parametrize("where", ["copy_array", "exhaust", "forget", "settle"])
def test_what_a_finalizer_reads_while_arrays_are_copied_is_kept(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python may run a finalizer, which reads the model, between any two of its own steps."""
    m, seen = trained(), []
    real = getattr(lease, where)

    def finalizing(*args: Any) -> Any:
        seen.append(m.w[...])
        return real(*args)

    held = m.w[...], m.key[...]  # so that both have to be copied
    with monkeypatch.context() as patch:
        patch.setattr(lease, where, finalizing)
        step(m)
    step(m)
    assert seen and not any(array.is_deleted() for array in (*seen, *held))
    step(m)
    assert is_donated(lambda: step(m), m.w)


def test_what_a_finalizer_computes_while_arrays_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """The arrays are put back for it, though they are being donated."""
    m, plain, other, seen = Model(), Model(), Model(), []
    for model in (plain, m):
        for _ in range(4):
            step(model)
    real = run.gather

    def finalizing(operands: Any) -> Any:
        if not seen:
            seen.append(None)
            seen.append(look(other))
        return real(operands)

    with monkeypatch.context() as patch:
        patch.setattr(run, "gather", finalizing)
        step(m)
    assert len(seen) == 2
    step(plain)
    for _ in range(3):
        np.testing.assert_array_equal(m.w, plain.w)
        step(m), step(plain)


def test_a_variable_does_not_outlive_its_use_by_a_function_that_is_gone() -> None:
    def train(m: Model) -> None:
        m.w[...] = m.w + 1
        m.frozen[...] = m.frozen + 1

    m, local = Model(), nnx.jit(train)
    for _ in range(3):
        local(m)
    del local
    gc.collect()
    add(m, jnp.ones(4))
    gone, kept = weakref.ref(m.w), m.frozen
    del m
    assert gone() is None
    np.testing.assert_array_equal(kept, np.full(4, 4.0))


def test_an_abstract_model_is_an_error_of_jax() -> None:
    m = trained()
    add(m, jnp.ones(4))
    m.w.value = jax.ShapeDtypeStruct((4,), jnp.float32)
    with pytest.raises(TypeError, match="ShapeDtypeStruct"):
        add(m, jnp.ones(4))


# -- other threads
Elsewhere = Callable[[Callable[[], Any]], Any]


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    """Runs something in another thread, the same each time."""
    with ThreadPoolExecutor(1) as pool:
        yield lambda call: pool.submit(call).result(60)


def _write(m: Model) -> Any:
    m.w[...] = array = jnp.full(4, 3.0)
    return array


def _donating(function: Callable[[Model], Any]) -> Callable[[Model], Any]:
    """Returns what says what was in the model, as of the array itself, and runs a function."""

    def use(m: Model) -> Any:
        old = peek(m.w)
        function(m)
        return old

    return use


given = nnx.jit(lambda m: m.w.set_value(m.w + 1), donate_argnums=0)
look = nnx.jit(lambda m: m.w * 1)
USES: dict[str, Callable[[Model], Any]] = {
    "read": lambda m: m.w[...],
    "write": _write,
    "read by a function": look,
    "written by a function": _donating(lambda m: add(m, jnp.ones(4))),
    "written by the same function": _donating(step),
    "given away": _donating(given),
    "split": lambda m: nnx.split(m, nnx.Param, ...)[1]["w"][...],
}


@pytest.mark.parametrize("planned", [False, True])
@pytest.mark.parametrize("use", USES)
def test_a_variable_under_the_lease_of_another_thread(
    use: str, planned: bool, elsewhere: Elsewhere
) -> None:
    m, plain = Model(), Model()
    if planned:  # here, before the other thread comes
        for model in (m, plain):
            look(model), add(model, jnp.ones(4))
    for _ in range(3):
        elsewhere(lambda: step(m))
        step(plain)
    assert elsewhere(lambda: is_donated(lambda: step(m), m.w)) != planned
    step(plain)
    held = []
    for _ in range(3):
        found, expected = USES[use](m), np.array(_plainly(use, plain))
        np.testing.assert_array_equal(found, expected)
        held.append((found, expected))
        assert not elsewhere(lambda: is_donated(lambda: step(m), m.w))
        step(plain)
        np.testing.assert_array_equal(m.w, plain.w)
    for found, expected in held:
        np.testing.assert_array_equal(found, expected)


def _plainly(use: str, m: Model) -> Any:
    with nnx.set_auto_donation(False):
        return USES[use](m)


# -- devices
def test_sharded_arrays() -> None:
    mesh = Mesh(devices(4), ("x",))
    sharding = NamedSharding(mesh, PartitionSpec("x"))
    m = Model()
    for v in (m.w, m.frozen):
        v.set_value(jax.device_put(v[...], sharding))
    for v in (m.key, m.raw_key):
        v.set_value(jax.device_put(v[...], NamedSharding(mesh, PartitionSpec())))
    step(m)
    step(m)
    pieces = [shard.data.unsafe_buffer_pointer() for shard in peek(m.w).addressable_shards]
    step(m)
    assert [s.data.unsafe_buffer_pointer() for s in peek(m.w).addressable_shards] == pieces
    shards = [shard.data for shard in m.w[...].addressable_shards]
    before = [np.array(shard) for shard in shards]
    for _ in range(3):
        step(m)
    for shard, then in zip(shards, before, strict=True):
        np.testing.assert_array_equal(shard, then)
    assert m.w[...].sharding.is_equivalent_to(sharding, 1)


def test_arrays_stay_as_free_to_move_as_they_were() -> None:
    m = Model()
    committed = jax.device_put(jnp.ones(4), devices(2)[1])
    for _ in range(3):
        step(m)
        assert not peek(m.w).committed
    m.frozen.set_value(committed)
    for _ in range(3):
        step(m)
        assert peek(m.w).devices() == peek(m.key).devices() == committed.devices()
        assert peek(m.w).committed


def test_calls_in_flight() -> None:
    m = Model()
    m.w.set_value(jnp.ones((64, 64)))
    m.frozen.set_value(jnp.ones((64, 64)))
    held = []
    for i in range(20):
        step(m)
        if i % 3 == 0:
            held.append((i, m.w[...]))
    for i, array in held:
        assert float(array[0, 0]) == 2.0 ** (i + 2) - 1


# -- failures
def test_an_error_before_the_call_leaves_everything() -> None:
    @nnx.jit
    def fail(m: Model, x: Any) -> None:
        m.w[...] = m.w + x

    m = trained()
    fail(m, jnp.ones(4))
    before = np.array(peek(m.w))
    with pytest.raises(TypeError):
        fail(m, jnp.ones(3))
    np.testing.assert_array_equal(m.w, before)
    fail(m, jnp.ones(4))
    np.testing.assert_array_equal(m.w, before + 1)


def test_a_callback_that_fails() -> None:
    def explode(x: Any) -> Any:
        raise RuntimeError("the callback failed")

    @nnx.jit
    def fail(m: Model) -> Any:
        m.w[...] = m.w * 2
        return jax.pure_callback(explode, jax.ShapeDtypeStruct((), jnp.float32), m.w.sum())

    m = trained()
    before = np.array(m.w)
    with pytest.raises(Exception, match="the callback failed") as raised:
        jax.block_until_ready(fail(m))
    assert "donate=None" not in "".join(getattr(raised.value, "__notes__", ()))
    np.testing.assert_array_equal(m.w, before)


def test_arrays_lost_in_a_failure_are_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def consume(donated: list[Any], *rest: Any) -> None:
        for array in donated:
            array.delete()
        raise RuntimeError("out of memory")

    m = trained()
    (plan,) = iter_plans(m._root_plans)
    with monkeypatch.context() as patch:
        patch.setattr(plan.program().donating, "jitted", consume)
        with pytest.raises(RuntimeError, match="out of memory") as raised:
            step(m)
    assert raised.value.__notes__ == [
        "nnx.jit of 'step' failed after the arrays of the Variables it writes were donated to it: "
        "they are gone. Restore the objects from a checkpoint, or keep the arrays during calls: "
        "`nnx.jit(f, donate=None)`"
    ]
    nnx.update(m, nnx.state(Model()))
    assert float(step(m)) == 16.0
