"""What type checkers are told of functions made by `grad`; nothing is here at run time.

The type of a gradient follows from the argument that is differentiated: an object's is a `State`,
that of an array or Variable is like itself. Where the function does not say what it takes, as a
`lambda`, nothing is known: a guess would make errors of programs that are right.
"""

from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, final, overload

import jax

from weft._graph.state import State
from weft._object.pytree import Pytree
from weft._variable.variable import Variable

P = ParamSpec("P")
R = TypeVar("R")
Aux = TypeVar("Aux")
Object = TypeVar("Object", bound=Pytree)
Leaf = TypeVar("Leaf", bound=jax.Array | Variable[Any])
Function = TypeVar("Function", bound=Callable[..., Any], covariant=True)

@final
class Unsaid:
    """Nobody's argument: only a parameter without an annotation takes it."""

class Gradient(Protocol[Function]):
    """What `grad` makes of a function of the type `Function`."""

    @property
    def __name__(self) -> str: ...
    def __get__(
        self: Gradient[Callable[Concatenate[Object, P], Any]], obj: Object, kind: Any, /
    ) -> Callable[P, State]: ...
    @overload
    def __call__(
        self: Gradient[Callable[Concatenate[Unsaid, P], Any]], /, *args: Any, **kwargs: Any
    ) -> Any: ...
    @overload
    def __call__(
        self: Gradient[Callable[Concatenate[Object, P], Any]],
        differentiated: Object,
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> State: ...
    @overload
    def __call__(
        self: Gradient[Callable[Concatenate[Leaf, P], Any]],
        differentiated: Leaf,
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Leaf: ...
    @overload
    def __call__(self: Gradient[Callable[P, Any]], *args: P.args, **kwargs: P.kwargs) -> Any: ...

class GradientAndAux(Protocol[Function]):
    """What `grad` makes with `has_aux`."""

    @property
    def __name__(self) -> str: ...
    def __get__(
        self: GradientAndAux[Callable[Concatenate[Object, P], tuple[Any, Aux]]],
        obj: Object,
        kind: Any,
        /,
    ) -> Callable[P, tuple[State, Aux]]: ...
    @overload
    def __call__(
        self: GradientAndAux[Callable[Concatenate[Unsaid, P], tuple[Any, Aux]]],
        /,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[Any, Aux]: ...
    @overload
    def __call__(
        self: GradientAndAux[Callable[Concatenate[Object, P], tuple[Any, Aux]]],
        differentiated: Object,
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> tuple[State, Aux]: ...
    @overload
    def __call__(
        self: GradientAndAux[Callable[Concatenate[Leaf, P], tuple[Any, Aux]]],
        differentiated: Leaf,
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> tuple[Leaf, Aux]: ...
    @overload
    def __call__(
        self: GradientAndAux[Callable[P, tuple[Any, Aux]]], *args: P.args, **kwargs: P.kwargs
    ) -> tuple[Any, Aux]: ...

class ValueAndGradient(Protocol[Function]):
    """What `value_and_grad` makes of a function of the type `Function`."""

    @property
    def __name__(self) -> str: ...
    def __get__(
        self: ValueAndGradient[Callable[Concatenate[Object, P], R]], obj: Object, kind: Any, /
    ) -> Callable[P, tuple[R, State]]: ...
    @overload
    def __call__(
        self: ValueAndGradient[Callable[Concatenate[Unsaid, P], R]],
        /,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[R, Any]: ...
    @overload
    def __call__(
        self: ValueAndGradient[Callable[Concatenate[Object, P], R]],
        differentiated: Object,
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> tuple[R, State]: ...
    @overload
    def __call__(
        self: ValueAndGradient[Callable[Concatenate[Leaf, P], R]],
        differentiated: Leaf,
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> tuple[R, Leaf]: ...
    @overload
    def __call__(
        self: ValueAndGradient[Callable[P, R]], *args: P.args, **kwargs: P.kwargs
    ) -> tuple[R, Any]: ...
