"""`nnx.jit`: `jax.jit` for functions that take, change and return objects.

The prefixes of the lift are shardings. How calls go is told in `dispatch.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    ParamSpec,
    Protocol,
    Self,
    TypeVar,
    Unpack,
    overload,
    runtime_checkable,
)

import jax

from weft._core.arguments import Selection, argument_paths, select_arguments
from weft._core.config import set_retrace_limit
from weft._core.path import Path
from weft._core.tracebacks import boundary, trim_call
from weft._core.types import MISSING, Missing
from weft._graph import prefix as prefixes
from weft._lift.jit.bound import BoundJit
from weft._lift.jit.dispatch import Dispatcher, Staged
from weft._lift.jit.program import Options
from weft._lift.jit.retrace import see
from weft._lift.jit.spec import Spec
from weft._lift.jit.stages import Lowered, Traced
from weft._lift.jit.trace_log import CacheInfo, Log, OnRetrace
from weft._lift.lift import Lift, Mode, mode_of, unbind

if TYPE_CHECKING:
    from weft._lift.options import JitOptions  # pyright: ignore[reportMissingModuleSource]

_config: Any = jax.config

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class StateSharding(prefixes.FilteredPrefix):
    """Shardings by filter, for `in_shardings` and `out_shardings` of an object.

    Args:
      filter_sharding: a mapping from filters to shardings, or pairs; the first match decides.

    Example:
      >>> import jax
      >>> import weft as nnx
      >>> replicated = jax.sharding.SingleDeviceSharding(jax.devices()[0])
      >>> shardings = nnx.StateSharding({nnx.Param: replicated, ...: None})
      >>> jitted = nnx.jit(lambda m, x: m(x), in_shardings=(shardings, None))
    """

    @property
    def shardings(self) -> tuple[Any, ...]:
        """The shardings, in the order of their filters."""
        return self._prefixes


@runtime_checkable
class JitWrapped(Protocol[P, R_co]):
    """What `nnx.jit` returns: a function with these attributes.

    Example:
      >>> import weft as nnx
      >>> double = nnx.jit(lambda x: 2 * x)
      >>> isinstance(double, nnx.transforms.compilation.JitWrapped)
      True
    """

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...

    if TYPE_CHECKING:  # of a function, and not looked for by `isinstance`

        @property
        def __name__(self) -> str: ...
        @property
        def __wrapped__(self) -> Callable[P, R_co]: ...

    @overload
    def __get__(self, obj: None, kind: type, /) -> Self: ...
    @overload  # mypy loses arguments that may be anything by the last one, which pyright needs
    def __get__(
        self: Callable[Concatenate[Any, Q], R], obj: object, kind: type | None = None, /
    ) -> Callable[Q, R]: ...
    @overload
    def __get__(
        self: JitWrapped[Concatenate[Any, Q], R], obj: object, kind: type | None = None, /
    ) -> Callable[Q, R]: ...

    def cache_info(self) -> CacheInfo:
        """Returns how often the function was traced, how often not, and why each time."""
        ...

    @overload
    def trace(self, *args: P.args, **kwargs: P.kwargs) -> Traced[P, R_co]: ...
    @overload
    def trace(self, *args: Any, **kwargs: Any) -> Traced[P, R_co]: ...
    def trace(self, *args: Any, **kwargs: Any) -> Traced[P, R_co]:
        """Traces the function for arguments, arrays or `ShapeDtypeStruct`s, without running it."""
        ...

    @overload
    def lower(self, *args: P.args, **kwargs: P.kwargs) -> Lowered[P, R_co]: ...
    @overload
    def lower(self, *args: Any, **kwargs: Any) -> Lowered[P, R_co]: ...
    def lower(self, *args: Any, **kwargs: Any) -> Lowered[P, R_co]:
        """Lowers the function for arguments without running it."""
        ...

    @overload
    def eval_shape(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
    @overload
    def eval_shape(self, *args: Any, **kwargs: Any) -> R_co: ...
    def eval_shape(self, *args: Any, **kwargs: Any) -> R_co:
        """Returns shapes and dtypes of what the function returns; the arguments stay as is."""
        ...


class Jitted:
    """A function with the options that it is compiled with.

    Attributes:
      lift: the function; its prefixes are shardings.
    """

    def __init__(
        self,
        fun: Callable[..., Any],
        mode: Mode,
        *,
        in_shardings: Any,
        out_shardings: Any,
        static_argnums: Any,
        static_argnames: Any,
        donate_argnums: Any,
        donate_argnames: Any,
        donate: str | None,
        max_traces: int | None,
        on_retrace: OnRetrace,
        options: dict[str, Any],
    ):
        f, bound = unbind(fun)
        self._shift = shift = len(bound)
        self._static = select_arguments(f, static_argnums, static_argnames, bound=shift)
        donated = select_arguments(
            f, donate_argnums, donate_argnames, bound=shift, option="donate_argnums"
        )
        self._mode = mode
        in_keys = prefixes.distinct(in_shardings, None)
        out_keys = prefixes.distinct(in_shardings, out_shardings, None)
        self._is_sharded = in_shardings is not None or out_shardings is not None
        self.lift = Lift(
            f,
            "jit",
            mode,
            in_prefix=self._align(in_shardings),
            out_prefix=out_shardings,
            bound=shift,
            in_keys=in_keys,
            out_keys=out_keys,
        )
        given = Options(options, donate is not None, _paths(f, donated), self._is_sharded)
        self._log = Log(self.lift.name, max_traces, on_retrace)
        note = functools.partial(_note_trace, self.lift, self._log)
        self._dispatcher = Dispatcher(self.lift, given, note)

    def make_function(self, dispatcher: Dispatcher | None = None) -> JitWrapped[..., Any]:
        """Returns what is called instead of the function.

        Args:
          dispatcher: what runs the calls; by default by what is compiled when needed.
        """
        call = (self._dispatcher if dispatcher is None else dispatcher).make_function()
        if any(self._static) or self._is_sharded:
            call = self._make_arranging(call)
        made: Any = functools.update_wrapper(call, self.lift.f, updated=())
        for method in (self.cache_info, self.trace, self.lower, self.eval_shape):
            setattr(made, method.__name__, method)
        return made

    def bind(self, fun: Callable[..., Any]) -> JitWrapped[..., Any]:
        """Returns what is called instead of a function, a bound method or a callable object."""
        _, bound = unbind(fun)
        made = self.make_function()
        if not bound:
            return made
        function: Any = BoundJit(made, *bound)
        functools.update_wrapper(function, self.lift.f, updated=())
        return function

    def _make_arranging(self, run: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                args, kwargs = self._arrange(args, kwargs)
                return run(*args, **kwargs)
            except Exception as error:
                trim_call(error, self.lift.f, args, kwargs)
                raise

        return call

    def _align(self, in_shardings: Any) -> Any:
        """Puts a place for each static argument, which has no sharding, among the shardings."""
        if type(in_shardings) not in (tuple, list):
            return in_shardings
        aligned = list(in_shardings)
        for position in sorted(self._static.positions):
            aligned.insert(position - self._shift, None)
        return tuple(aligned)

    def _arrange(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple, dict]:
        """Marks what is static, and puts arguments where their shardings are."""
        args, kwargs = self._static.mark_static(args, kwargs)
        return self.lift.place(args, kwargs) if self._is_sharded else (args, kwargs)

    # -- what users call besides the function: see `JitWrapped`
    def cache_info(self) -> CacheInfo:
        reasons = tuple(self._log.reasons)
        return CacheInfo(len(reasons), max(self._dispatcher.calls - len(reasons), 0), reasons)

    @boundary
    def trace(self, *args: Any, **kwargs: Any) -> Traced[..., Any]:
        staged = self._dispatcher.stage(*self._arrange(args, kwargs))
        return Traced(staged.traced, self, staged)

    def compiled(self, staged: Staged, compiled: Any, on_new: Callable[[Spec], None]) -> Any:
        """Returns what is called like the function, but runs what was compiled for one call."""
        return self.make_function(self._dispatcher.ahead(staged, compiled, on_new))

    @boundary
    def lower(self, *args: Any, **kwargs: Any) -> Lowered[..., Any]:
        return self.trace(*args, **kwargs).lower()

    @boundary
    def eval_shape(self, *args: Any, **kwargs: Any) -> Any:
        from weft._lift.abstract import eval_shape

        mode = self._mode
        f = functools.partial(eval_shape, self.lift.f, graph=mode.share)
        args, kwargs = self._arrange(args, kwargs)
        return f(*args, **kwargs)


def _paths(f: Callable[..., Any], chosen: Selection) -> frozenset[Path]:
    """Returns the paths of arguments that were chosen."""
    # Those that are counted from the end of `*args` are others at each call, and have no path.
    positions = [i for i in chosen.positions if i >= 0]
    paths = argument_paths(f, max(positions, default=-1) + 1)
    return frozenset({paths[i] for i in positions} | {(name,) for name in chosen.names})


def _note_trace(lift: Lift, log: Log, spec: Spec, groups: Any) -> None:
    """Notes a trace of a function: the structure and avals of its arguments."""
    if not _config.jax_disable_jit:  # then each call runs the function, and nothing is compiled
        log.note(see(lift.f, spec, groups), set_retrace_limit.get())


@overload
def jit(fun: Callable[P, R], **options: Unpack[JitOptions]) -> JitWrapped[P, R]: ...
@overload
def jit(
    fun: Missing = ..., **options: Unpack[JitOptions]
) -> Callable[[Callable[P, R]], JitWrapped[P, R]]: ...
@boundary
def jit(
    fun: Any = MISSING,
    *,
    in_shardings: Any = None,
    out_shardings: Any = None,
    static_argnums: int | Sequence[int] | None = None,
    static_argnames: str | Iterable[str] | None = None,
    donate_argnums: int | Sequence[int] | None = None,
    donate_argnames: str | Iterable[str] | None = None,
    keep_unused: bool = False,
    device: Any = None,
    backend: str | None = None,
    inline: bool = False,
    donate: str | None = "written",
    max_traces: int | None = None,
    on_retrace: OnRetrace = "warn",
    graph: bool | None = None,
    graph_updates: bool | None = None,
) -> Any:
    """Compiles a function of objects and arrays; what it changes in its arguments is kept.

    A call is traced anew only when the structure, a static value, a shape or a dtype of an
    argument is one that was not seen before. Only Variables that the function writes are outputs
    of the compiled program.

    Args:
      fun: the function, a bound method of a Module, or a callable Module. If missing, a decorator
        with the options is returned.
      in_shardings: shardings of the positional arguments, as for `jax.jit`; an object's may be a
        `StateSharding`. Variables that are elsewhere are moved there, once.
      out_shardings: likewise, of what is returned.
      static_argnums: positions of arguments that are static; they may be unhashable.
      static_argnames: likewise, by name.
      donate_argnums: positions of arguments whose arrays may be overwritten, even if others hold
        them; Variables that are only read are kept.
      donate_argnames: likewise, by name.
      keep_unused: whether to keep arguments that the program does not use.
      device: a device to run on; removed from newer JAX, where it must be None.
      backend: likewise, a backend.
      inline: whether to inline into an enclosing program.
      donate: "written" to let the arrays of Variables that the function writes be overwritten,
        as far as nobody else holds them; None to keep all. Nothing is overwritten where the
        function calls back to the host (`jax.debug.print` excepted), and no Variable that two
        threads have used.
      max_traces: how many traces are allowed; more are an error that says why. None for any.
      on_retrace: "warn" to warn when the setting `set_retrace_limit` is exceeded, "explain" to
        warn of each retrace, a function called with each reason, or None for silence.
      graph: False to refuse shared references; None for the setting.
      graph_updates: False to write back Variables only, not structure; None for the setting.

    Returns:
      A `JitWrapped`, called like the function, with `trace`, `lower` and `eval_shape`.

    Raises:
      ValueError: for a position or name that the function does not have.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> @nnx.jit
      ... def normalize(model, x):
      ...     return model(x)
      >>> model = nnx.BatchNorm(2, rngs=nnx.Rngs(0))
      >>> y = normalize(model, jnp.ones((3, 2)))
      >>> bool((model.mean[...] > 0).all())
      True
    """
    if donate not in ("written", None):
        raise ValueError(f"donate must be 'written' or None, found {donate!r}")
    options = {"keep_unused": keep_unused, "inline": inline}
    options |= {k: v for k, v in {"device": device, "backend": backend}.items() if v is not None}

    def wrap(f: Callable[..., Any]) -> JitWrapped[..., Any]:
        jitted = Jitted(
            f,
            mode_of(graph, graph_updates),
            in_shardings=in_shardings,
            out_shardings=out_shardings,
            static_argnums=static_argnums,
            static_argnames=static_argnames,
            donate_argnums=donate_argnums,
            donate_argnames=donate_argnames,
            donate=donate,
            max_traces=max_traces,
            on_retrace=on_retrace,
            options=options,
        )
        return jitted.bind(f)

    return wrap if isinstance(fun, Missing) else wrap(fun)
