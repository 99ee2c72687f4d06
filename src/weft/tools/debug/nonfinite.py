"""`nans`: which module is the first to make NaN."""

from __future__ import annotations

import contextlib
import functools
import threading
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import jax

from weft._core.arguments import argument_paths
from weft._core.config import traced_apart
from weft._core.path import Path
from weft._core.trace import is_outermost
from weft._lift import iterations
from weft._module import Module, Pytree
from weft._module.containers import Dict, List
from weft._module.module import iter_modules
from weft._module.observe import observing
from weft._object.pytree import attributes
from weft.nn.stack import Stack
from weft.tools.debug import findings
from weft.tools.debug.checks import PLACE, Checker, Place
from weft.tools.debug.outside import Outside

F = TypeVar("F", bound=Callable[..., Any])
_NO_GRADIENTS = ("forward-mode", "symbolic_zeros")
"""What JAX says where the rules of derivatives that count gradients cannot be followed."""


class nans:
    """Finds the module in which NaN or an infinity appears first, forward or backward.

    As a context manager it looks at the objects it is given; at the end of the block, or of an
    outermost call without transformations, it raises. As a decorator it looks at the Modules among
    the arguments of each call, under the names of the parameters, and raises when the call ends.
    What no module made is found at the end: Variables that something else wrote, as an optimizer
    does, and NaN in what a decorated function returns.
    The function may be compiled by `nnx.jit` or `jax.jit`, and use all transformations: blocks that
    `nnx.scan` or `nnx.Stack` goes over are named with their number.

    What is compiled inside is compiled again, with checks in it, and runs slowly; what was compiled
    before is as it was, and is used again afterwards. What a function writes before the error stays
    written.

    Args:
      *objects: models; a single one is called `model` in paths.
      backward: whether gradients are looked at. Forward-mode differentiation (`jax.jvp`) needs
        False, and so does that through `jax.shard_map`, where not all is differentiated.
      infinities: whether infinities count, too. An infinite argument alone never does.
      **named: further objects, by the names that they have in paths.

    Raises:
      NonFiniteError: at the end, if a module made NaN or an infinity, or was given one.
      ValueError: if there is no Module to look at.
      TypeError: if a function stands in place of a model.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> class Norm(nnx.Module):
      ...     def __call__(self, x):
      ...         return jnp.sqrt(jnp.sum(x * x))  # its slope at 0 is NaN
      >>> @nnx.debug.nans()
      ... @nnx.jit
      ... def loss_and_gradients(model, x):
      ...     return nnx.value_and_grad(lambda model: model(x))(model)
      >>> model = nnx.Sequential(nnx.Linear(2, 2, rngs=nnx.Rngs(0)), Norm())
      >>> loss_and_gradients(model, jnp.zeros(2))
      Traceback (most recent call last):
        ...
      weft.tools.debug.findings.NonFiniteError: model.layers[1] is the first to make NaN, in the
      backward pass: Norm.__call__ gave 2 NaN in the gradient of x f32[2], from gradients of ...
    """

    def __init__(self, *objects: Any, backward: bool = True, infinities: bool = True, **named: Any):
        for obj in objects:
            if callable(obj) and not isinstance(obj, Pytree):
                raise TypeError(
                    "nnx.debug.nans expects models, found a function, "
                    f"{getattr(obj, '__qualname__', obj)!r}: decorate it with "
                    "`nnx.debug.nans()(function)`, or `@nnx.debug.nans()` above it"
                )
        self._backward, self._infinities = backward, infinities
        several = {f"objects[{i}]": obj for i, obj in enumerate(objects)}
        self._given = ({"model": objects[0]} if len(objects) == 1 else several) | named
        self._blocks: list[contextlib.AbstractContextManager[Any]] = []

    def __enter__(self) -> None:
        if not self._given:
            raise ValueError(
                "nnx.debug.nans as a block expects the objects to look at, found none: write "
                "`with nnx.debug.nans(model):`, or decorate a function of the model, "
                "`nnx.debug.nans()(train_step)`"
            )
        block = self._looking(self._given)
        block.__enter__()
        self._blocks.append(block)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> None:
        self._blocks.pop().__exit__(kind, error, traceback)

    def __call__(self, function: F) -> F:
        """Returns a function that looks at the Modules among its arguments."""

        @functools.wraps(function, updated=())
        def looked_at(*args: Any, **kwargs: Any) -> Any:
            objects = self._given | _arguments(function, args, kwargs)
            with self._looking(objects) as outputs:
                called = function
                if isinstance(function, types.MethodType):  # which is of the class from before
                    called = getattr(function.__self__, function.__name__)
                outputs.append(called(*args, **kwargs))
            return outputs[0]

        return looked_at  # type: ignore[return-value]

    @contextlib.contextmanager
    def _looking(self, objects: Mapping[str, Any]) -> Iterator[list[Any]]:
        """Looks during a block, which may put what a function returned into a list."""
        thread = threading.get_ident()
        session = findings.Session(self._infinities, thread)

        def finish() -> None:
            jax.effects_barrier()
            found = session.error()
            if found is not None:
                raise found

        modules = _placed(objects)
        outputs: list[Any] = []
        outside = Outside(objects, self._infinities) if is_outermost() else None
        checker = Checker(findings.tell, self._backward, finish)
        with contextlib.ExitStack() as stack:
            stack.callback(_take_places, [(m, attributes(m).get(PLACE)) for m, _ in modules])
            for module, place in modules:
                setattr(module, PLACE, place)
            findings.begin(session)
            stack.callback(findings.end, session)
            stack.enter_context(observing([module for module, _ in modules], checker))
            stack.enter_context(iterations.wanted())
            # Also where JAX knows nothing of the model, which a function may close over.
            stack.enter_context(traced_apart(("nans", self._backward, thread)))
            try:
                yield outputs
            except findings.NonFiniteError:
                raise
            except Exception as error:
                jax.effects_barrier()
                found = session.error()
                if found is not None:
                    error.add_note(str(found))
                if self._backward and any(text in str(error) for text in _NO_GRADIENTS):
                    error.add_note(
                        "nnx.debug.nans looks at gradients, which it cannot in forward-mode "
                        "differentiation, and through `jax.shard_map`: write "
                        "`nnx.debug.nans(model, backward=False)`"
                    )
                raise
            finish()
        if outside is not None and (error := outside.error(outputs[0] if outputs else None)):
            raise error


def _arguments(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[Any, Any]:
    """Returns arguments by name, and the Module that is called or has the method."""
    bound = function.__self__ if isinstance(function, types.MethodType) else function
    found: dict[Any, Any] = {"model": bound} if isinstance(bound, Module) else {}
    names = argument_paths(function, len(args))
    return found | dict(zip(names, args, strict=True)) | kwargs


def _placed(objects: Mapping[Any, Any]) -> list[tuple[Module, Place]]:
    """Returns all modules in objects, each once, and where they are.

    Raises:
      ValueError: if there is none.
    """
    found: dict[int, tuple[Module, Place]] = {}
    stacks: set[Path] = set()
    for name, obj in objects.items():
        root = name if isinstance(name, tuple) else (name,)
        for below, module in iter_modules(obj):
            if not isinstance(module, (Dict, List)) and id(module) not in found:
                path = (*root, *below)
                found[id(module)] = module, Place(path)
                if isinstance(module, Stack):
                    stacks.add((*path, "stacked"))
    if not found:
        raise ValueError(
            "nnx.debug.nans looks at Modules, and found none among "
            f"{', '.join(map(_name, objects)) or 'no arguments'}: name the model, "
            "`nnx.debug.nans(model)`"
        )
    return [
        (
            module,
            Place(
                place.path,
                tuple(i for i in range(len(place.path)) if place.path[: i + 1] in stacks),
            ),
        )
        for module, place in found.values()
    ]


def _name(name: Any) -> str:
    return name if isinstance(name, str) else str(name[0])


def _take_places(before: list[tuple[Module, Place | None]]) -> None:
    for module, place in before:
        if place is not None:
            setattr(module, PLACE, place)
        elif PLACE in attributes(module):
            delattr(module, PLACE)
