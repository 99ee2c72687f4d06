"""Which transform is running, and who called."""

from __future__ import annotations

import threading
from typing import Any

import jax
import pytest

import weft as nnx
from weft._core import trace as tracing


def test_frames_name_the_innermost_transform() -> None:
    outside, seen = tracing.describe(), []  # type: ignore[var-annotated]
    assert outside == "a JAX transformation (jax.jit, jax.grad, jax.vmap, ...)"
    with tracing.running("jit", "step"):
        with tracing.running("grad", "loss"):
            assert tracing.describe() == "nnx.grad of 'loss'"
        assert tracing.describe() == "nnx.jit of 'step'"
        with pytest.raises(KeyError), tracing.running("vmap", "f"):
            raise KeyError
        assert tracing.describe() == "nnx.jit of 'step'"
        jax.eval_shape(lambda: seen.append(tracing.describe()))
        assert seen == [f"{outside} inside nnx.jit of 'step'"]
    assert tracing.describe() == outside


def test_a_frame_knows_its_trace() -> None:
    seen: list[Any] = []

    def f(x: Any) -> Any:
        seen.append(tracing.frames.stack[-1].trace == tracing.current())
        return x

    nnx.jit(f)(1.0)
    assert seen == [True]
    assert tracing.frames.stack == []


def test_threads_have_frames_of_their_own() -> None:
    seen = []
    with tracing.running("jit", "f"):
        thread = threading.Thread(target=lambda: seen.append(list(tracing.frames.stack)))
        thread.start()
        thread.join()
    assert seen == [[]]


def test_traces_differ() -> None:
    outside = tracing.current()
    assert outside == tracing.current()
    inside = []
    jax.jit(lambda x: inside.append(tracing.current()))(1.0)
    jax.vmap(lambda x: inside.append(tracing.current()))(jax.numpy.ones(1))
    assert all(trace != outside for trace in inside)
