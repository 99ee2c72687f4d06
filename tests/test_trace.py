"""Which transform is running, and who called."""

from __future__ import annotations

import threading
from typing import Any

import jax
import pytest

import weft as nnx
from weft import _trace


def test_frames_name_the_innermost_transform() -> None:
    outside, seen = _trace.describe(), []  # type: ignore[var-annotated]
    assert outside == "a JAX transformation (jax.jit, jax.grad, jax.vmap, ...)"
    with _trace.running("jit", "step"):
        with _trace.running("grad", "loss"):
            assert _trace.describe() == "nnx.grad of 'loss'"
        assert _trace.describe() == "nnx.jit of 'step'"
        with pytest.raises(KeyError), _trace.running("vmap", "f"):
            raise KeyError
        assert _trace.describe() == "nnx.jit of 'step'"
        jax.eval_shape(lambda: seen.append(_trace.describe()))
        assert seen == [f"{outside} inside nnx.jit of 'step'"]
    assert _trace.describe() == outside


def test_a_frame_knows_its_trace() -> None:
    seen: list[Any] = []

    def f(x: Any) -> Any:
        seen.append(_trace.frames.stack[-1].trace == _trace.current())
        return x

    nnx.jit(f)(1.0)
    assert seen == [True]
    assert _trace.frames.stack == []


def test_threads_have_frames_of_their_own() -> None:
    seen = []
    with _trace.running("jit", "f"):
        thread = threading.Thread(target=lambda: seen.append(list(_trace.frames.stack)))
        thread.start()
        thread.join()
    assert seen == [[]]


def test_traces_differ() -> None:
    outside = _trace.current()
    assert outside == _trace.current()
    inside = []
    jax.jit(lambda x: inside.append(_trace.current()))(1.0)
    jax.vmap(lambda x: inside.append(_trace.current()))(jax.numpy.ones(1))
    assert all(trace != outside for trace in inside)
