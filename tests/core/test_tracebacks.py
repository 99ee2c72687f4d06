"""Whose line it is: what tracebacks, warnings and places of creation show."""

from __future__ import annotations

import functools
import inspect
import os
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import weft as nnx
from weft._core import tracebacks

X = jnp.ones(3)


class Wrong(Exception):
    pass


def fail(*args: Any) -> Any:
    raise Wrong


class Failing(nnx.Module):
    def method(self, *args: Any) -> Any:
        return fail()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return fail()


def custom() -> Any:
    made = nnx.custom_vjp(fail)
    made.defvjp(fail, fail)
    return made


TRANSFORMS: dict[str, Callable[[], Any]] = {
    "jit": lambda: nnx.jit(fail)(X),
    "jit of a model": lambda: nnx.jit(lambda m, x: m(x))(Failing(), X),
    "jit of a method": lambda: nnx.jit(Failing().method)(X),
    "jit of an object": lambda: nnx.jit(Failing())(X),
    "jit with static arguments": lambda: nnx.jit(fail, static_argnums=0)(1, X),
    "custom_vjp": lambda: custom()(X),
    "split_rngs": lambda: nnx.split_rngs(splits=2)(fail)(nnx.Rngs(0)),
    "lower": lambda: nnx.jit(fail).lower(X),
    "trace": lambda: nnx.jit(fail).trace(X),
    "eval_shape of jit": lambda: nnx.jit(fail).eval_shape(X),
    "jit, grad": lambda: nnx.jit(nnx.grad(fail))(X),
    "grad": lambda: nnx.grad(fail)(X),
    "value_and_grad": lambda: nnx.value_and_grad(fail)(X),
    "vjp": lambda: nnx.vjp(fail, X),
    "jvp": lambda: nnx.jvp(fail, (X,), (X,)),
    "vmap": lambda: nnx.vmap(fail)(X),
    "cond": lambda: nnx.cond(True, fail, fail, X),
    "switch": lambda: nnx.switch(0, [fail, fail], X),
    "while_loop": lambda: nnx.while_loop(fail, fail, X),
    "fori_loop": lambda: nnx.fori_loop(0, 3, fail, X),
    "scan": lambda: nnx.scan(fail)(X, X),
    "remat": lambda: nnx.remat(fail)(X),
    "eval_shape": lambda: nnx.eval_shape(fail, X),
    "make_jaxpr": lambda: nnx.make_jaxpr(fail)(X),
    "nested": lambda: nnx.vmap(nnx.grad(nnx.remat(fail)))(X),
}


def files_of(error: BaseException) -> list[str]:
    return [frame.filename for frame in traceback.extract_tb(error.__traceback__)]


@pytest.mark.parametrize("name", TRANSFORMS)
def test_tracebacks_have_the_frames_of_the_user(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEFT_TRACEBACKS", "")
    with pytest.raises(Wrong) as caught:
        TRANSFORMS[name]()
    assert set(files_of(caught.value)) == {__file__}
    assert caught.traceback[-1].name == "fail"


class Width:
    """A size that is no integer."""


EAGER: dict[str, Callable[[], Any]] = {
    "constructor": lambda: nnx.Linear(4, 0, rngs=nnx.Rngs(0)),
    "constructor that calls others": lambda: nnx.LSTMCell(2, Width(), rngs=nnx.Rngs(0)),  # type: ignore[arg-type]
    "call": lambda: nnx.Linear(4, 2, rngs=nnx.Rngs(0))(X),
    "metric": lambda: nnx.metrics.Average().update(wrong=1.0),
    "Optimizer": lambda: nnx.Optimizer(Failing(), optax.sgd(0.1), wrt=nnx.Param),
    "split": lambda: nnx.split(nnx.Linear(4, 2, rngs=nnx.Rngs(0)), nnx.BatchStat),
    "state": lambda: nnx.state(Failing(), 1.5),  # type: ignore[call-overload]
    "merge": lambda: nnx.merge(nnx.graphdef(nnx.Linear(4, 2, rngs=nnx.Rngs(0))), {}),
    "update": lambda: nnx.update(nnx.Linear(4, 2, rngs=nnx.Rngs(0)), {"kernel": X}),
    "pop": lambda: nnx.pop(Failing(), 1.5),  # type: ignore[call-overload]
    "write": lambda: nnx.Param(X).__setitem__(..., jnp.ones(7)),
    "write of an item": lambda: nnx.Param(X).__setitem__(0, jnp.ones(7)),
    "ahead of time": lambda: nnx.jit(jnp.sin).lower(X).compile()(X, X),
    "hint": lambda: nnx.Linear(4, 2, rngs=nnx.Rngs(0)).parameters,  # type: ignore[attr-defined]
}


@pytest.mark.parametrize("name", EAGER)
def test_errors_of_the_library_end_at_the_line_that_calls_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEFT_TRACEBACKS", "")
    with pytest.raises((ValueError, TypeError, AttributeError)) as caught:
        EAGER[name]()
    assert set(files_of(caught.value)) == {__file__}
    monkeypatch.setenv("WEFT_TRACEBACKS", "full")
    with pytest.raises((ValueError, TypeError, AttributeError)) as caught:
        EAGER[name]()
    assert any(file.startswith(tracebacks._WEFT) for file in files_of(caught.value))


def test_methods_of_layers_are_what_they_were() -> None:
    assert nnx.Linear.__call__.__qualname__ == "Linear.__call__"
    assert "Applies the layer." in inspect.getsource(nnx.Linear.__call__)
    assert next(iter(inspect.signature(nnx.Linear).parameters)) == "in_features"

    class Mine(nnx.Linear):
        def __call__(self, x: Any) -> Any:
            return fail()

    assert not hasattr(Mine.__call__, "__wrapped__")


def test_what_led_to_an_error_is_trimmed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEFT_TRACEBACKS", "")
    with pytest.raises(ValueError, match="cannot write") as caught:
        nnx.vmap(lambda v: v.set_value(jnp.ones(5), index=...))(nnx.Variable(jnp.ones((2, 3))))
    cause = caught.value.__cause__
    assert type(cause) is ValueError and cause.__traceback__ is None
    assert set(files_of(caught.value)) == {__file__}


def test_all_frames_where_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEFT_TRACEBACKS", "full")
    with pytest.raises(Wrong) as caught:
        nnx.grad(fail)(X)
    assert any(name.endswith("autodiff.py") for name in files_of(caught.value))


def test_frames_of_jax_stay_where_it_does_not_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEFT_TRACEBACKS", "")
    before = jax.config.jax_traceback_filtering  # type: ignore[attr-defined]
    jax.config.update("jax_traceback_filtering", "off")
    try:
        with pytest.raises(Wrong) as caught:
            nnx.grad(fail)(X)
    finally:
        jax.config.update("jax_traceback_filtering", before)
    found = files_of(caught.value)
    assert any("jax" in name for name in found) and not any("autodiff.py" in n for n in found[1:2])
    assert not any(name.startswith(tracebacks._WEFT) for name in found)


def test_an_error_of_weft_itself_ends_at_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEFT_TRACEBACKS", "")
    with pytest.raises(nnx.PrefixError) as caught:
        nnx.vmap(fail, in_axes=(0, 0))(X)
    assert files_of(caught.value) == [__file__]


def test_a_boundary_is_the_function_to_all_who_look() -> None:
    def f(a: int, b: int = 2) -> int:
        """Adds."""
        return a + b

    made = tracebacks.boundary(f)
    assert (made.__name__, made.__doc__, made.__wrapped__) == ("f", "Adds.", f)  # type: ignore[attr-defined]
    assert made(1) == 3 and nnx.vmap.__module__ == "weft._lift.map"
    assert inspect.unwrap(nnx.grad(f)) is f
    assert inspect.signature(nnx.vmap(f)) == inspect.signature(f)
    assert nnx.eval_shape.__name__ == "eval_shape"


def test_warnings_point_to_the_users_line() -> None:
    def run(f: Callable[..., Any]) -> Any:
        return jax.jit(functools.partial(f))()

    def warn() -> None:
        tracebacks.warn("look")

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        exec(compile("warn()", tracebacks._WEFT + "inside.py", "exec"), {"warn": warn})
        run(compile("1", "x", "eval") and warn)
    assert [w.filename for w in seen] == [__file__, __file__]
    assert {w.lineno for w in seen} == {warn.__code__.co_firstlineno + 1}


def test_a_captured_variable_warns_where_it_is_read() -> None:
    layer = nnx.Linear(1, 1, rngs=nnx.Rngs(0))

    def reads_what_it_captured(x: Any) -> Any:
        return layer(x)

    line = reads_what_it_captured.__code__.co_firstlineno + 1
    with pytest.warns(UserWarning, match="becomes a constant") as seen:
        nnx.jit(reads_what_it_captured)(jnp.ones((1, 1)))
    assert [(w.filename, w.lineno) for w in seen] == [(__file__, line)]


def test_a_retrace_warns_where_the_function_is_called() -> None:
    double = nnx.jit(lambda x: 2 * x, on_retrace="explain")
    double(jnp.ones(1))
    with pytest.warns(UserWarning, match="is traced again") as seen:
        double(jnp.ones(2))
    assert [w.filename for w in seen] == [__file__]


def test_call_site_is_outside_the_library() -> None:
    site = tracebacks.call_site()
    assert site is not None and site[0] == __file__
    made = nnx.Linear(1, 1, rngs=nnx.Rngs(0)).kernel
    with pytest.raises(nnx.TraceContextError, match=r"made at .*test_tracebacks\.py:\d+\)"):
        jax.jit(lambda x: made.set_value(x))(1.0)
    seen = []
    nnx.eval_shape(functools.partial(lambda: seen.append(nnx.Param(1.0)._origin)))
    assert seen[0] is not None and seen[0][0] == __file__


def test_jax_names_the_users_line_for_what_layers_compute() -> None:
    jaxpr = nnx.make_jaxpr(lambda m, x: m(x))(nnx.Linear(1, 1, rngs=nnx.Rngs(0)), jnp.ones((1, 1)))
    shown = jaxpr.pretty_print(source_info=True, name_stack=False)
    assert "test_tracebacks.py" in shown and "linear.py" not in shown


def test_uncaught(tmp_path: Any) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import weft as nnx, jax.numpy as jnp\n"
        "def loss(x):\n    return undefined\n"
        "nnx.grad(loss)(jnp.ones(2))\n"
    )
    result = subprocess.run(
        [sys.executable, str(program)],
        capture_output=True,
        text=True,
        env={**os.environ, "WEFT_TRACEBACKS": ""},
    )
    assert result.returncode == 1 and "NameError" in result.stderr
    assert result.stderr.count('  File "') == 2
