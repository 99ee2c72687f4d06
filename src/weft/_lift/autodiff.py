"""`grad` and `value_and_grad` through objects.

The groups of the lift are what is differentiated and the rest. What the function writes comes out
of the differentiated function beside its value.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import (
    TYPE_CHECKING,
    Any,
    Literal,
    ParamSpec,
    TypeVar,
    Unpack,
    overload,
)

import jax
import jax.numpy as jnp
import numpy as np

from weft._core.arguments import by_position, check_arrays
from weft._core.filters import Filter, to_predicate
from weft._core.path import Path, format_path
from weft._core.tracebacks import boundary
from weft._core.types import MISSING, Missing
from weft._graph import prefix as prefixes
from weft._lift.jit.spec import Call
from weft._lift.lift import Lift, Mode, mode_of, raw_leaves
from weft._lift.lifted import lifted
from weft._lift.tangents import tangents_of
from weft._variable.types import Param
from weft._variable.variable import Variable

if TYPE_CHECKING:
    from weft._graph.state import State
    from weft._lift.differentiated import (  # pyright: ignore[reportMissingModuleSource]
        Gradient,
        GradientAndAux,
        ValueAndGradient,
    )
    from weft._lift.options import (  # pyright: ignore[reportMissingModuleSource]
        AnyGradOptions,
        GradOptions,
    )

P = ParamSpec("P")
R = TypeVar("R")
X = TypeVar("X")


class DiffState(prefixes.PrefixMapping):
    """Says what of an argument to differentiate: an entry of `argnums`.

    Args:
      argnum: the argument's position.
      filter: which of its Variables.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> model = nnx.LoRALinear(2, 2, lora_rank=1, rngs=nnx.Rngs(0))
      >>> loss = lambda model: model(jnp.ones((1, 2))).sum()
      >>> grads = nnx.grad(loss, argnums=nnx.DiffState(0, nnx.LoRAParam))(model)
      >>> nnx.to_flat_state(grads).paths
      (('lora', 'lora_a'), ('lora', 'lora_b'))
    """

    def __init__(self, argnum: int, filter: Filter):
        self.argnum = argnum
        self.filter = filter
        self._predicate = to_predicate(filter)

    def map_prefix(self, path: Path, variable: Any) -> bool:
        return self._predicate(path, variable)

    def map_argument(self, x: Any) -> bool:
        return not isinstance(x, Variable) or self._predicate((), x)

    def leaf_prefixes(self) -> Iterable[bool]:
        return (True, False)

    def __eq__(self, other: object) -> bool:
        mine = (self.argnum, self._predicate)
        return isinstance(other, DiffState) and mine == (other.argnum, other._predicate)

    def __hash__(self) -> int:
        return hash((self.argnum, self._predicate))

    def __repr__(self) -> str:
        return f"DiffState({self.argnum}, {self.filter!r})"


class _Bare(DiffState):
    """What a position alone asks for: of objects their Params, of anything else all of it."""

    def map_argument(self, x: Any) -> bool:
        return True


KEYS = [True, False]


def grad_prefixes(argnums: Any, number: int, mode: Mode) -> tuple[Any, ...]:
    """Returns a prefix per argument that says what of it is differentiated."""
    wanted = argnums if isinstance(argnums, (tuple, list)) else (argnums,)
    chosen: dict[int, Any] = {}
    for entry in wanted:
        argnum = entry.argnum if isinstance(entry, DiffState) else entry
        if not isinstance(argnum, int) or isinstance(argnum, bool):
            raise TypeError(
                f"argnums must be ints or nnx.DiffState, found {entry!r}: `argnums=0` or "
                "`argnums=nnx.DiffState(0, nnx.Param)`"
            )
        if not -number <= argnum < number:
            raise ValueError(
                f"argnums asks for argument {argnum}, but the call has {number} positional "
                "arguments; arguments to differentiate must be given by position"
            )
        if argnum % number in chosen:
            raise ValueError(f"argnums names argument {argnum % number} twice: {argnums!r}")
        # Without structure updates gradients have the input's type: all of it is differentiated.
        default = _Bare(argnum, Param) if mode.gives_states else True
        chosen[argnum % number] = entry if isinstance(entry, DiffState) else default
    return tuple(chosen.get(i, False) for i in range(number))


LOSS, AUX = "loss", "aux"


@overload
def value_and_grad(
    f: Callable[P, R],
    *,
    argnums: Literal[0] = 0,
    has_aux: bool = False,
    graph_updates: Literal[True] | None = None,
    **options: Unpack[GradOptions],
) -> ValueAndGradient[Callable[P, R]]: ...
@overload
def value_and_grad(
    f: Callable[P, R],
    *,
    argnums: DiffState,
    has_aux: bool = False,
    graph_updates: Literal[True] | None = None,
    **options: Unpack[GradOptions],
) -> Callable[P, tuple[R, State]]: ...
@overload
def value_and_grad(
    f: Callable[P, R], **options: Unpack[AnyGradOptions]
) -> Callable[P, tuple[R, Any]]: ...
@overload
def value_and_grad(
    f: Missing = ...,
    *,
    argnums: Literal[0] = 0,
    has_aux: bool = False,
    graph_updates: Literal[True] | None = None,
    **options: Unpack[GradOptions],
) -> Callable[[Callable[P, R]], ValueAndGradient[Callable[P, R]]]: ...
@overload
def value_and_grad(
    f: Missing = ..., **options: Unpack[AnyGradOptions]
) -> Callable[[Callable[P, R]], Callable[P, tuple[R, Any]]]: ...
@boundary
def value_and_grad(
    f: Any = MISSING,
    *,
    argnums: Any = 0,
    has_aux: bool = False,
    holomorphic: bool = False,
    allow_int: bool = False,
    reduce_axes: Sequence[str] = (),
    graph: bool | None = None,
    graph_updates: bool | None = None,
) -> Any:
    """Returns a function that computes a value and its gradient with respect to arguments.

    Args:
      f: a function that returns a scalar, or `(scalar, aux)` with `has_aux`. If missing, a
        decorator with the options is returned.
      argnums: which positional arguments: ints or `DiffState`s, one or a sequence. Of an object
        the `Param`s are differentiated unless a `DiffState` says otherwise.
      has_aux: whether `f` returns further values beside the scalar.
      holomorphic: whether `f` is promised to be holomorphic.
      allow_int: whether integer arguments are allowed.
      reduce_axes: accepted for compatibility; must be empty.
      graph: False to refuse shared references; None for the setting.
      graph_updates: False to write back Variables only and to return gradients of the arguments'
        own types; None for the setting.

    Returns:
      A function of the same arguments that returns `(value, gradient)`, with `((value, aux),
      gradient)` for `has_aux`. The gradient of an object is a State of what was differentiated.

    Raises:
      TypeError: if `f` returns no scalar, or not a pair with `has_aux`.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> model = nnx.Linear(2, 1, use_bias=False, rngs=nnx.Rngs(0))
      >>> loss, grads = nnx.value_and_grad(lambda m, x: m(x).sum())(model, jnp.ones((3, 2)))
      >>> float(grads.kernel[0, 0])
      3.0
    """
    _check_reduce_axes(reduce_axes)
    both = lambda value, gradient: (value, gradient)  # noqa: E731
    options = (mode_of(graph, graph_updates), argnums, has_aux, holomorphic, allow_int)
    return _differentiate(f, "value_and_grad", both, *options)


def _check_reduce_axes(reduce_axes: Sequence[str]) -> None:
    if reduce_axes:
        raise ValueError(
            f"reduce_axes={reduce_axes!r} is not supported: sum over mesh axes with `jax.lax.psum`"
        )


class GradLift(Lift):
    """The lift of `grad`: what is differentiated depends on how many arguments a call has.

    Args:
      argnums: what to differentiate, as the user says it.
    """

    def __init__(
        self, f: Callable[..., Any], transform: str, mode: Mode, argnums: Any, **options: Any
    ):
        super().__init__(
            f, transform, mode, kw_prefix=False, in_keys=KEYS, bound_prefix=False, **options
        )
        self._argnums = argnums

    def place(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        # Arguments to differentiate are counted by their parameters.
        return by_position(self.f, args, kwargs) if kwargs else (args, kwargs)

    def _argument_prefixes(self, args: tuple[Any, ...]) -> Iterable[Any]:
        chosen = grad_prefixes(self._argnums, len(args) - self.bound, self.mode)
        return (*itertools.repeat(False, self.bound), *chosen)

    def form(self, call: Call, grads: list[Any]) -> Any:
        """Returns the gradients as the user asked for them: one, or a tuple."""
        asked = self._argnums
        is_single = not isinstance(asked, (tuple, list))
        numbers = [
            e.argnum if isinstance(e, DiffState) else e for e in ((asked,) if is_single else asked)
        ]
        number = sum(isinstance(key, int) for key in call.spec.record.keys) - self.bound
        positions = [i % number + self.bound for i in numbers]
        formed = tangents_of(call, positions, grads, self.mode)
        return formed[0] if is_single else tuple(formed)


def _differentiate(
    f: Any,
    transform: str,
    choose: Callable[[Any, Any], Any],
    mode: Mode,
    argnums: Any,
    has_aux: bool,
    holomorphic: bool,
    allow_int: bool,
) -> Any:
    """Returns a function that computes value and gradient, and returns what is chosen of both."""
    out_prefix = (LOSS, AUX) if has_aux else LOSS

    def make(function: Callable[..., Any], bound: int) -> GradLift:
        options = {"out_prefix": out_prefix, "out_keys": [LOSS, AUX, *KEYS], "bound": bound}
        return GradLift(function, transform, mode, argnums, **options)

    def apply(lift: GradLift, call: Call) -> Any:
        _check_chosen(lift, call, allow_int)

        def scalar(chosen: list[Any], rest: list[Any]) -> Any:
            inside = lift.rebuild(call.spec, (chosen, rest))
            out = lift.run(inside)
            check_loss(out, has_aux, holomorphic, lift.name)
            ([loss], *groups), exit = lift.collect(call.spec, inside, out)
            return loss, (groups, exit)

        (loss, (groups, exit)), grads = jax.value_and_grad(
            scalar, has_aux=True, holomorphic=holomorphic, allow_int=allow_int
        )(*call.groups)
        value = lift.leave(call, ([loss], *groups), exit)
        return choose(value, lift.form(call, grads))

    return lifted(f, make, apply)


def _check_chosen(lift: Lift, call: Call, allow_int: bool) -> None:
    """Raises unless all that is differentiated can be."""
    chosen = [entry for entry in call.entries if entry.prefix]
    check_arrays(lift.transform, lift.name, chosen)
    for path, value, _ in chosen:
        for leaf in raw_leaves(value):
            dtype = jnp.result_type(leaf)
            if not allow_int and not jnp.issubdtype(dtype, jnp.inexact):
                where = format_path(path)
                remedy = f"make it one of floats, `{where}.astype(jnp.float32)`"
                if isinstance(value, Variable):
                    remedy += ", or a type that is not trained, `nnx.Variable(array)`"
                raise TypeError(
                    f"nnx.{lift.transform} of {lift.name!r} requires real- or complex-valued "
                    f"inputs, but {where} is to be differentiated and is {dtype}: {remedy}; choose "
                    "others, `argnums=1` or `argnums=nnx.DiffState(0, filter)`; or pass "
                    "`allow_int=True`"
                )


_NUMBERS = (jax.Array, np.ndarray, np.generic, int, float, complex)


def check_loss(out: Any, has_aux: bool, holomorphic: bool, name: str) -> None:
    """Raises TypeError unless a function returned what can be differentiated."""
    if has_aux and not (isinstance(out, (tuple, list)) and len(out) == 2):
        hint = ": write `return loss, aux`, or leave out `has_aux=True`"
        raise TypeError(
            f"{name!r} is differentiated with has_aux=True and must return a pair `(loss, aux)`, "
            f"found {_kind_text(out)}{hint}"
        )
    loss = out[0] if has_aux else out
    if isinstance(loss, Variable):
        raise TypeError(
            f"{name!r} is differentiated and must return a scalar array, found a "
            f"{type(loss).__name__}: return its value, `loss[...]`"
        )
    if not isinstance(loss, _NUMBERS):
        hint = "; for `return loss, aux` pass `has_aux=True`" if isinstance(loss, tuple) else ""
        hint = ": it ends without `return loss`" if loss is None else hint
        raise TypeError(
            f"{name!r} is differentiated and must return a scalar array, found "
            f"{_kind_text(loss)}{hint}"
        )
    if np.ndim(loss) != 0:
        raise TypeError(
            f"{name!r} is differentiated and must return a scalar array, found "
            f"{_kind_text(loss)}: take the mean or the sum of it, `loss.mean()`. Derivatives of "
            "each element are `jax.jacrev` of a function of arrays"
        )
    dtype = jnp.result_type(loss)
    if not holomorphic and not jnp.issubdtype(dtype, jnp.floating):
        is_complex = jnp.issubdtype(dtype, jnp.complexfloating)
        remedy = (
            "`jnp.abs(loss)`, or pass `holomorphic=True`"
            if is_complex
            else (
                "integers and truth values have no derivative, so compute it from floats, as "
                "losses of Optax do: `optax.losses.squared_error(predictions, targets).mean()`"
            )
        )
        raise TypeError(
            f"{name!r} is differentiated and must return a real scalar array, found one of "
            f"dtype {dtype}: {remedy}"
        )


def _kind_text(value: Any) -> str:
    """Says what a value is, of arrays the shape."""
    if value is None:
        return "None"
    if isinstance(value, (jax.Array, np.ndarray)):
        return f"an array of shape {value.shape}"
    return type(value).__name__


@overload
def grad(
    f: Callable[P, Any],
    *,
    argnums: Literal[0] = 0,
    has_aux: Literal[False] = False,
    graph_updates: Literal[True] | None = None,
    **options: Unpack[GradOptions],
) -> Gradient[Callable[P, Any]]: ...
@overload
def grad(
    f: Callable[P, tuple[Any, X]],
    *,
    argnums: Literal[0] = 0,
    has_aux: Literal[True],
    graph_updates: Literal[True] | None = None,
    **options: Unpack[GradOptions],
) -> GradientAndAux[Callable[P, tuple[Any, X]]]: ...
@overload
def grad(
    f: Callable[P, Any],
    *,
    argnums: DiffState,
    has_aux: Literal[False] = False,
    graph_updates: Literal[True] | None = None,
    **options: Unpack[GradOptions],
) -> Callable[P, State]: ...
@overload
def grad(
    f: Callable[P, tuple[Any, X]],
    *,
    argnums: DiffState,
    has_aux: Literal[True],
    graph_updates: Literal[True] | None = None,
    **options: Unpack[GradOptions],
) -> Callable[P, tuple[State, X]]: ...
@overload
def grad(f: Callable[P, Any], **options: Unpack[AnyGradOptions]) -> Callable[P, Any]: ...
@overload
def grad(
    f: Missing = ...,
    *,
    argnums: Literal[0] = 0,
    has_aux: Literal[False] = False,
    graph_updates: Literal[True] | None = None,
    **options: Unpack[GradOptions],
) -> Callable[[Callable[P, Any]], Gradient[Callable[P, Any]]]: ...
@overload
def grad(
    f: Missing = ...,
    *,
    argnums: Literal[0] = 0,
    has_aux: Literal[True],
    graph_updates: Literal[True] | None = None,
    **options: Unpack[GradOptions],
) -> Callable[[Callable[P, tuple[Any, X]]], GradientAndAux[Callable[P, tuple[Any, X]]]]: ...
@overload
def grad(
    f: Missing = ..., **options: Unpack[AnyGradOptions]
) -> Callable[[Callable[P, Any]], Callable[P, Any]]: ...
@boundary
def grad(
    f: Any = MISSING,
    *,
    argnums: Any = 0,
    has_aux: bool = False,
    holomorphic: bool = False,
    allow_int: bool = False,
    reduce_axes: Sequence[str] = (),
    graph: bool | None = None,
    graph_updates: bool | None = None,
) -> Any:
    """Returns a function that computes the gradient with respect to arguments.

    Args:
      f: a function that returns a scalar, or `(scalar, aux)` with `has_aux`. If missing, a
        decorator with the options is returned.
      argnums: as for `value_and_grad`, like all further options.
      has_aux: whether `f` returns further values beside the scalar.
      holomorphic: whether `f` is promised to be holomorphic.
      allow_int: whether integer arguments are allowed.
      reduce_axes: accepted for compatibility; must be empty.
      graph: False to refuse shared references; None for the setting.
      graph_updates: as for `value_and_grad`.

    Returns:
      A function of the same arguments that returns the gradient, or `(gradient, aux)`.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> model = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
      >>> grads = nnx.grad(lambda m: m(jnp.ones((3, 2))).sum())(model)
      >>> float(grads.bias[0])
      3.0
    """
    _check_reduce_axes(reduce_axes)

    def choose(value: Any, gradient: Any) -> Any:
        return (gradient, value[1]) if has_aux else gradient

    options = (mode_of(graph, graph_updates), argnums, has_aux, holomorphic, allow_int)
    return _differentiate(f, "grad", choose, *options)
