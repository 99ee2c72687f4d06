"""Logs of traces: counts, limits, warnings and errors."""

from __future__ import annotations

import re
import threading
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import weft as nnx


def double(x: Any) -> Any:
    return x * 2


def trace(f: Any, *sizes: int) -> None:
    """Calls a function with arrays of these sizes."""
    for size in sizes:
        f(jnp.ones(size))


def warned(f: Any, *sizes: int) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trace(f, *sizes)
    return [str(warning.message) for warning in caught]


# -- counts
def test_counts() -> None:
    f = nnx.jit(double)
    assert f.cache_info() == (0, 0, ())
    trace(f, 1, 1, 2, 1, 2)
    info = f.cache_info()
    assert info == (2, 3, ("first trace", "x: f32[1] -> f32[2]"))
    assert (info.traces, info.hits) == (2, 3)


def test_stages_count_as_traces() -> None:
    f = nnx.jit(double)
    f.lower(jnp.ones(1)).compile()
    assert f.cache_info() == (1, 0, ("first trace",))


def test_calls_that_compile_nothing_are_no_traces() -> None:
    f = nnx.jit(double, max_traces=1)
    with jax.disable_jit():
        trace(f, 1, 2, 3)
    assert f.cache_info() == (0, 3, ())
    trace(f, 1)


# -- limits
def test_more_traces_than_allowed_are_an_error() -> None:
    f = nnx.jit(double, max_traces=2)
    trace(f, 1, 2, 1)
    expected = (
        "'double' would be traced again, with max_traces=2: x: f32[2] -> f32[3]. "
        "Pad arrays to one shape, or allow more: `nnx.jit(f, max_traces=3)`"
    )
    for _ in range(2):
        with pytest.raises(nnx.RetraceError, match=f"^{re.escape(expected)}"):
            trace(f, 3)
    trace(f, 2, 1)
    assert f.cache_info().traces == 2


def test_an_error_leaves_the_model() -> None:
    @nnx.jit(max_traces=1)
    def add(v: nnx.Variable, x: Any) -> None:
        v[...] = v + x.sum()

    v = nnx.Variable(jnp.zeros(()))
    for size in (1, 1, 2, 1):
        if size == 2:
            with pytest.raises(nnx.RetraceError, match=r"x: f32\[1\] -> f32\[2\]"):
                add(v, jnp.ones(size))
        else:
            add(v, jnp.ones(size))
    assert float(v) == 3.0


@pytest.mark.parametrize("number", [0, -1])
def test_limits_are_positive(number: int) -> None:
    with pytest.raises(
        ValueError, match=f"^max_traces must be at least 1, or None, found {number}"
    ):
        nnx.jit(double, max_traces=number)


# -- reports
def test_many_traces_are_warned_of_ever_less_often() -> None:
    f = nnx.jit(double)
    assert warned(f, *range(8)) == []
    assert warned(f, 8) == [
        "'double' is traced again (trace 9): x: f32[7] -> f32[8]. Pad arrays to one shape, or "
        "silence this: `nnx.jit(f, on_retrace=None)`, `nnx.set_retrace_limit(N)`"
    ]
    assert warned(f, *range(9, 18)) == []
    (message,) = warned(f, 18)
    assert message.startswith("'double' is traced again (trace 19): x: f32[17] -> f32[18]. ")


def test_the_limit_of_warnings_is_a_setting() -> None:
    f = nnx.jit(double)
    with nnx.set_retrace_limit(2):
        assert warned(f, 1, 2) == []
        assert len(warned(f, 3)) == 1


def test_each_retrace_explained() -> None:
    f = nnx.jit(double, on_retrace="explain")
    found = warned(f, 1, 2, 1, 3)
    assert [message.partition(". ")[0] for message in found] == [
        "'double' is traced again (trace 2): x: f32[1] -> f32[2]",
        "'double' is traced again (trace 3): x: f32[2] -> f32[3]",
    ]


def test_silence() -> None:
    assert warned(nnx.jit(double, on_retrace=None), *range(20)) == []


def test_a_function_hears_of_each_retrace() -> None:
    heard: list[str] = []
    trace(nnx.jit(double, on_retrace=heard.append), 1, 2, 1, 3)
    assert heard == ["x: f32[1] -> f32[2]", "x: f32[2] -> f32[3]"]


def test_a_function_may_refuse_a_retrace() -> None:
    def refuse(reason: str) -> None:
        raise KeyError(reason)

    f = nnx.jit(double, on_retrace=refuse)
    trace(f, 1)
    with pytest.raises(KeyError, match=r"x: f32\[1\] -> f32\[2\]"):
        trace(f, 2)
    trace(f, 1)


@pytest.mark.parametrize("other", ["raise", 3])
def test_other_ways_to_report_are_refused(other: Any) -> None:
    expected = f"^on_retrace must be 'warn', 'explain', a function or None, found {other!r}$"
    with pytest.raises(ValueError, match=expected):
        nnx.jit(double, on_retrace=other)


# -- of all functions
def test_traces_of_a_block() -> None:
    f, g = nnx.jit(double), nnx.jit(lambda y: y)
    with nnx.assert_max_traces(3):
        trace(f, 1, 1, 2)
        trace(g, 1)
    with nnx.assert_max_traces(0):
        trace(f, 2, 1)
    expected = (
        "expected at most 1 trace, found 2:\n"
        "  double: x: f32[2] -> f32[3]\n"
        "  test_traces_of_a_block.<locals>.<lambda>: y: f32[1] -> f32[2]"
    )
    with (
        pytest.raises(nnx.RetraceError, match=f"^{re.escape(expected)}$"),
        nnx.assert_max_traces(1),
    ):
        trace(f, 3)
        trace(g, 2)


def test_blocks_within_blocks_and_threads() -> None:
    f = nnx.jit(double)
    with (
        pytest.raises(nnx.RetraceError, match="at most 1 trace, found 2"),
        nnx.assert_max_traces(1),
    ):
        trace(f, 1)
        with nnx.assert_max_traces(1):
            thread = threading.Thread(target=trace, args=(f, 2))
            thread.start()
            thread.join()


def test_errors_in_a_block_come_first() -> None:
    f = nnx.jit(double)
    with pytest.raises(KeyError), nnx.assert_max_traces(0):
        trace(f, 1)
        raise KeyError
    with nnx.assert_max_traces(1):
        trace(f, 2)
