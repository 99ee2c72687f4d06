"""Settings of the process and of the running thread.

A *setting* has a default, read from an environment variable at import, which `setting(value)`
replaces; used as a context manager it is put back at the end of the block, and as a decorator it
is in force during each call.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import os
from collections.abc import Callable, Hashable, Iterator
from types import TracebackType
from typing import Any, ClassVar, TypeVar

import jax

F = TypeVar("F", bound=Callable[..., Any])

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


def _flag_from_environment(name: str, default: bool) -> bool:
    text = os.environ.get(name, "").strip().lower()
    if not text:
        return default
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    raise ValueError(f"environment variable {name}={text!r}: expected 'true' or 'false'")


def _number_from_environment(name: str, default: int) -> int:
    text = os.environ.get(name, "").strip()
    if not text:
        return default
    if text.isdecimal():
        return int(text)
    raise ValueError(f"environment variable {name}={text!r}: expected a number")


class Setting:
    """Base of the settings: calling the class sets it, `with` restores the former value.

    An instance decorates a function: the value is in force during its calls, and not before.

    The value belongs to the running context (thread or task), so that one thread never changes
    what another one sees. Under another value of a setting that decides what is `traced`, JAX
    traces again.
    """

    _variable: ClassVar[contextvars.ContextVar]
    get: ClassVar[Any]  # returns the value in force; runs in C
    current_value: ClassVar[Any]  # the same, as the peer calls it
    _trace_context: ClassVar[Any] = None
    _entered: Any = None

    def __init_subclass__(
        cls, *, environment: str, default: bool | int, traced: bool = True
    ) -> None:
        is_flag = isinstance(default, bool)
        read: Any = _flag_from_environment if is_flag else _number_from_environment
        value = read(environment, default)
        cls._variable = contextvars.ContextVar(cls.__name__, default=value)
        cls.get = cls.current_value = cls._variable.get
        if traced:
            cls._trace_context = jax.make_user_context(value)

    def __init__(self, value: Any, /):
        self._value, self._previous = value, self.get()
        self._apply()

    def _apply(self) -> None:
        self._variable.set(self._value)
        if self._trace_context is not None and self._entered is None:
            self._entered = self._trace_context(self._value)
            self._entered.__enter__()

    def __call__(self, function: F, /) -> F:
        self.__exit__(None, None, None)  # what making the instance has set

        @functools.wraps(function)
        def with_setting(*args: Any, **kwargs: Any) -> Any:
            with type(self)(self._value):  # one for each call: calls may nest
                return function(*args, **kwargs)

        return with_setting  # type: ignore[return-value]

    def __enter__(self) -> None:
        self._apply()  # again, where one setting serves several blocks

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._variable.set(self._previous)
        if self._entered is not None:
            self._entered.__exit__(kind, error, traceback)
            self._entered = None


class set_graph_mode(Setting, environment="NNX_GRAPH_MODE", default=True):
    """Default of every `graph=` option: whether shared references are allowed.

    Example:
      >>> import weft as nnx
      >>> with nnx.set_graph_mode(False):
      ...     graphdef, state = nnx.split(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
    """


class set_graph_updates(Setting, environment="NNX_GRAPH_UPDATES", default=True):
    """Default of every `graph_updates=` option: whether transforms write structure back.

    Example:
      >>> import weft as nnx
      >>> with nnx.set_graph_updates(False):
      ...     grads = nnx.grad(lambda m: m.kernel[...].sum())(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
      >>> type(grads).__name__
      'Linear'
    """


class use_eager_sharding(Setting, environment="NNX_EAGER_SHARDING", default=True):
    """Whether a Variable with sharding metadata is sharded when it is made under a mesh.

    Example:
      >>> import weft as nnx
      >>> with nnx.use_eager_sharding(False):
      ...     nnx.using_eager_sharding()
      False
    """


def using_eager_sharding() -> bool:
    """Returns whether Variables are sharded at creation; see `use_eager_sharding`.

    Example:
      >>> import weft as nnx
      >>> nnx.using_eager_sharding()
      True
    """
    return use_eager_sharding.get()


class set_auto_donation(Setting, environment="NNX_AUTO_DONATION", default=True, traced=False):
    """Whether `nnx.jit` may overwrite the arrays of Variables that a function writes.

    Example:
      >>> import weft as nnx
      >>> with nnx.set_auto_donation(False):
      ...     count = nnx.Variable(1)
      ...     nnx.jit(lambda v: v.set_value(v + 1))(count)
    """


class set_retrace_limit(Setting, environment="NNX_RETRACE_LIMIT", default=8, traced=False):
    """How many times `nnx.jit` may trace one function before it warns and says why.

    Example:
      >>> import weft as nnx
      >>> with nnx.set_retrace_limit(20):
      ...     double = nnx.jit(lambda x: 2 * x)
    """


# Made at import: what JAX keeps from before such a context is made, it does not find afterwards.
_apart: Any = jax.make_user_context(())
_reasons: contextvars.ContextVar[tuple[Hashable, ...]] = contextvars.ContextVar(
    "reasons", default=()
)


@contextlib.contextmanager
def traced_apart(reason: Hashable) -> Iterator[None]:
    """Keeps what JAX traces in a block apart from what it traces outside.

    Args:
      reason: what is done otherwise; blocks with the same reasons share what they trace.
    """
    reasons = (*_reasons.get(), reason)
    token = _reasons.set(reasons)
    try:
        with _apart(reasons):
            yield
    finally:
        _reasons.reset(token)
