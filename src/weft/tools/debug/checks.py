"""Checks: what stands around the call of a module and counts what is not finite.

A call has four *points*: the arguments and Variables that go in and the outputs that come out, and
in the backward pass the gradients of the outputs, which go in, and those of the arguments and
Variables, which come out. At each of them the program tells the host how many elements are NaN and
how many infinite; also that there are none, for the host to see where a program begins again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.custom_derivatives import SymbolicZero

from weft._core.arguments import leaf_paths
from weft._core.path import VALUE, Path, format_path, key_of_entry
from weft._core.static import Static
from weft._core.text import dtype_text
from weft._core.trace import is_outermost
from weft._core.types import ARRAY_TYPES
from weft._lift import iterations
from weft._module.observe import original_class
from weft._object.pytree import Pytree, attributes
from weft._variable.keeper import is_part
from weft._variable.reads import forget
from weft._variable.storage import set_slot
from weft._variable.types import Param
from weft._variable.variable import Variable

PLACE = "_place"
"""The attribute of an observed module that says where it is."""


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where a module is. Equal places are one static value, so that nothing is traced twice.

    Attributes:
      path: keys, the first of which names what was given.
      stacks: at which of them are the blocks of a Stack, a key that numbers take the place of.
    """

    path: Path
    stacks: tuple[int, ...] = ()


class Number(NamedTuple):
    """Stands in a path for the number of an iteration, of a loop around."""

    loop: int


class Point(NamedTuple):
    """One of the four points of a call.

    Attributes:
      is_backward: whether it is in the backward pass.
      is_after: whether it comes after the module in that pass, and so is of its making.
    """

    is_backward: bool
    is_after: bool


class Site(NamedTuple):
    """Where in a program something is counted.

    Attributes:
      point: which point of the call.
      order: when it was traced.
      call: when the call was.
      root: when the outermost call was.
      loops: when the loops around were, and whether each goes backwards.
      path: the module's path.
      parent: the path of the module that calls it; None if none does.
      what: the class and the method.
      names: what each array is called, with dtype and shape.
      variables: how many of them, the last ones, are Variables.
      params: how many of these, the last ones, are Params.
      before: what the arrays are called that went into the call; known of the outputs.
      thread: in which thread it was traced: programs of other threads are others.
    """

    point: Point
    order: int
    call: int
    root: int
    loops: tuple[tuple[int, bool], ...]
    path: Path
    parent: Path | None
    what: str
    names: tuple[str, ...]
    variables: int = 0
    params: int = 0
    before: tuple[str, ...] = ()
    thread: int = 0

    def only(self, chosen: Sequence[int]) -> Site:
        """Returns the same of some of the arrays."""
        variables, params = (
            sum(i >= len(self.names) - number for i in chosen)
            for number in (self.variables, self.params)
        )
        names = tuple(self.names[i] for i in chosen)
        return self._replace(names=names, variables=variables, params=params)


class Frame(NamedTuple):
    """The call of a module that runs: its path, and when the outermost one was traced."""

    path: Path
    root: int


Tell = Callable[[Site, Sequence[Any], Sequence[Any]], None]
"""Is told a site, the numbers of iterations, and for each array how many NaN and infinities."""


# -- paths


def path_now(module: Any, loops: Sequence[iterations.Iteration]) -> Path:
    """Returns a module's path, with the numbers of loops that take slices of what it is in."""
    place: Place = attributes(module)[PLACE]
    numbers: dict[int, list[Number]] = {}
    for i, loop in enumerate(loops):
        places = [attributes(x).get(PLACE) for x in loop.objects if isinstance(x, Pytree)]
        paths = [other.path for other in places if other is not None]
        around = [len(path) for path in paths if place.path[: len(path)] == path]
        if around:
            numbers.setdefault(min(around), []).append(Number(i))
    found: list[Any] = []
    for i, key in enumerate(place.path):
        if i not in place.stacks or i + 1 not in numbers:
            found.append(key)
        found += numbers.get(i + 1, [])
    return tuple(found)


# -- arrays


def is_float(x: Any) -> bool:
    """Says whether something is an array of floating-point numbers."""
    return isinstance(x, ARRAY_TYPES) and jnp.issubdtype(x.dtype, jnp.inexact)


def _is_opaque(x: Any) -> bool:
    return isinstance(x, (Variable, Pytree))


def _leaves(tree: Any, root: str = "") -> list[tuple[Path, Any]]:
    first = (root,) if root else ()
    found = jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_opaque)[0]
    return [
        ((*first, *(key_of_entry(entry) for entry in entries if entry is not VALUE)), x)
        for entries, x in found
    ]


def _named(leaves: Sequence[tuple[Path, Any]]) -> tuple[list[str], list[Any]]:
    """Returns names and arrays of those leaves that are floating-point."""
    chosen = [(path, x) for path, x in leaves if is_float(x)]
    shape = lambda x: ",".join(map(str, x.shape))  # noqa: E731
    names = [f"{format_path(path)} {dtype_text(x.dtype)}[{shape(x)}]" for path, x in chosen]
    return names, [x for _, x in chosen]


def _own_variables(module: Any) -> list[tuple[Path, Variable]]:
    """Returns the Variables with a floating-point array that a module itself holds, Params last."""
    own = {name: x for name, x in attributes(module).items() if name != PLACE}
    found = [
        (path, x)
        for path, x in _leaves(own)
        if isinstance(x, Variable) and not is_part(x) and is_float(x.get_raw_value())
    ]
    return sorted(found, key=lambda pair: isinstance(pair[1], Param))


def _replaced(tree: Any, arrays: Sequence[Any]) -> Any:
    """Returns a container with other floating-point arrays in it."""
    remaining = iter(arrays)
    return jax.tree.map(lambda x: next(remaining) if is_float(x) else x, tree, is_leaf=_is_opaque)


@contextlib.contextmanager
def _holding(
    variables: Sequence[Variable], values: Sequence[Any], others: Sequence[Any]
) -> Iterator[None]:
    """Lets Variables hold other arrays for a while; those that are written keep what is written."""
    if all(value is other for value, other in zip(values, others, strict=True)):
        yield
        return
    forget()
    for variable, other in zip(variables, others, strict=True):
        set_slot(variable, other)
    try:
        yield
    finally:
        forget()
        for variable, value, other in zip(variables, values, others, strict=True):
            if variable._slot is other:
                set_slot(variable, value)  # the very array, by which it counts as not written


# -- counting


def count(x: Any) -> tuple[jax.Array, jax.Array]:
    """Returns how many elements of an array are NaN, and how many infinite."""
    if x.dtype.itemsize == 1:  # the types of eight bits and less have no such tests of their own
        x = x.astype(jnp.float32)
    return jnp.sum(jnp.isnan(x)), jnp.sum(jnp.isinf(x))


def _report(tell: Tell, site: Site, numbers: Sequence[Any], arrays: Sequence[Any]) -> None:
    jax.debug.callback(functools.partial(tell, site), list(numbers), list(map(count, arrays)))


def _tapped(
    report: Callable[[list[Any], list[Any], list[int]], None],
    numbers: list[Any],
    arrays: list[Any],
) -> list[Any]:
    """Returns the same arrays; gradients of those that are differentiated are reported."""

    @jax.custom_vjp
    def same(numbers: list[Any], arrays: list[Any]) -> list[Any]:
        return arrays

    def forward(numbers: list[Any], arrays: list[Any]) -> tuple[list[Any], Any]:
        # The gradient of what nobody differentiates may be what it likes.
        chosen = tuple(i for i, x in enumerate(arrays) if x.perturbed)
        return [x.value for x in arrays], ([x.value for x in numbers], Static(chosen))

    def backward(kept: Any, gradients: list[Any]) -> tuple[None, list[Any]]:
        numbers, chosen = kept
        there = [i for i in chosen.value if not isinstance(gradients[i], SymbolicZero)]
        if there:
            report(numbers, [gradients[i] for i in there], there)
        return None, [
            jnp.zeros(x.aval.shape, x.aval.dtype) if isinstance(x, SymbolicZero) else x  # type: ignore[attr-defined]
            for x in gradients
        ]

    same.defvjp(forward, backward, symbolic_zeros=True)
    return same(numbers, arrays)


class Checker:
    """Counts around the calls of modules, as an observer; see `weft._module.observe`.

    Args:
      tell: a function on the host that is told. Programs that JAX keeps go on to call it.
      backward: whether gradients are counted as well.
      finish: is called after an outermost call that no transformation is around.
    """

    def __init__(self, tell: Tell, backward: bool, finish: Callable[[], None]):
        self._tell, self._backward, self._finish = tell, backward, finish
        self._frames: list[Frame] = []

    def __call__(
        self, module: Any, method: str, call: Callable[..., Any], args: Any, kwargs: Any
    ) -> Any:
        loops = iterations.state.running
        number = next(iterations.order)
        parent = self._frames[-1] if self._frames else None
        frame = Frame(path_now(module, loops), number if parent is None else parent.root)
        what = f"{original_class(type(module)).__qualname__}.{method}"

        def around(
            is_after: bool,
            names: list[str],
            arrays: list[Any],
            own: list[Any],
            before: tuple[str, ...] = (),
        ) -> Any:
            params = sum(isinstance(v, Param) for v in own)

            def site(point: Point) -> Site:
                of_loops = tuple((loop.entered, loop.is_reversed) for loop in loops)
                at = (next(iterations.order), number, frame.root, of_loops, frame.path)
                above = None if parent is None else parent.path
                thread = threading.get_ident()
                return Site(
                    *(point, *at, above, what, tuple(names), len(own), params, before, thread)
                )

            return self._around(site, is_after, [loop.number for loop in loops], arrays)

        names, arrays = _named(leaf_paths(call, args, kwargs, is_leaf=_is_opaque))
        found = _own_variables(module)
        own = [v for _, v in found]
        of_own, values = _named([(path, v.get_raw_value()) for path, v in found])
        before = (*names, *of_own)
        tapped = around(False, names + of_own, arrays + values, own)
        args, kwargs = _replaced((args, kwargs), tapped[: len(arrays)])
        with _holding(own, values, tapped[len(arrays) :]):
            self._frames.append(frame)
            try:
                output = call(*args, **kwargs)
            finally:
                self._frames.pop()
        names, arrays = _named(_leaves(output, "output"))
        output = _replaced(output, around(True, names, arrays, [], before))
        if parent is None and is_outermost():
            self._finish()
        return output

    def _around(
        self, site: Callable[[Point], Site], is_after: bool, numbers: list[Any], arrays: list[Any]
    ) -> list[Any]:
        """Counts in arrays, and returns such whose gradients are counted."""
        if not arrays:
            return arrays
        _report(self._tell, site(Point(False, is_after)), numbers, arrays)
        if not self._backward or not any(isinstance(x, Tracer) for x in arrays):
            return arrays
        back = site(Point(True, not is_after))

        def report(numbers: list[Any], gradients: list[Any], chosen: list[int]) -> None:
            _report(self._tell, back.only(chosen), numbers, gradients)

        return _tapped(report, numbers, arrays)
