"""Captures: sown and perturbed values taken out of a call instead of kept in the model.

While a captured function runs, every Module of its argument holds a *tap*, an object that says
which Variable types it takes and gathers their values. As part of the model a tap goes through
transforms like everything else, so that what is sown inside `nnx.jit` or `nnx.grad` comes out.
"""

from __future__ import annotations

import dataclasses
import functools
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ParamSpec, TypeVar, overload

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np

from weft._core.errors import StructureError
from weft._core.path import Path, format_path
from weft._core.tracebacks import boundary, transformed
from weft._core.types import ARRAY_TYPES
from weft._graph.state import State, from_flat_state, to_flat_state
from weft._module.containers import Dict
from weft._module.module import Module, iter_modules
from weft._module.observe import observing
from weft._module.taps import TAPS
from weft._object.pytree import Pytree, attributes
from weft._variable.storage import make
from weft._variable.types import Perturbation
from weft._variable.variable import Variable


@functools.partial(jtu.register_dataclass, data_fields=["value"], meta_fields=["kind"])
@dataclasses.dataclass(frozen=True)
class Kept:
    """A value that was sown or perturbed, and the Variable type it was sown as."""

    kind: type[Variable]
    value: Any


class Tap(Pytree):
    """What one capture takes of one Module.

    Attributes:
      types: the Variable types asked for.
      method_outputs: the type to keep the outputs of methods in, or None.
      fed: perturbations given from outside, by name.
      kept: a Variable for each of the types, whose value is what was sown or perturbed, by name.
        There from the start, so that transforms which write back nothing but Variables do, and
        filters by type choose among them.
    """

    def __init__(
        self,
        types: tuple[type[Variable], ...],
        method_outputs: type[Variable] | None,
        fed: dict[str, Variable],
    ):
        self.types = types
        self.method_outputs = method_outputs
        self.fed = fed
        self.kept = tuple(make(kind, {}, {}) for kind in types)

    def _store(self, kind: type[Variable]) -> Variable | None:
        group = self.group(kind)
        return None if group is None else self.kept[self.types.index(group)]

    def group(self, kind: type[Variable]) -> type[Variable] | None:
        """Returns which of the types takes Variables of a kind: the nearest one."""
        asked = [t for t in self.types if issubclass(kind, t)]
        if issubclass(kind, Perturbation):  # who asks for Intermediates does not mean these
            asked = [t for t in asked if issubclass(t, Perturbation)]
        return max(asked, key=lambda t: len(t.__mro__)) if asked else None

    def takes(self, kind: type[Variable]) -> bool:
        """Returns whether Variables of a kind are asked for or given."""
        return self.group(kind) is not None or any(type(v) is kind for v in self.fed.values())

    def sow(
        self,
        module: Module,
        variable_type: type[Variable],
        name: str,
        value: Any,
        reduce_fn: Callable[[Any, Any], Any],
        init_fn: Callable[[], Any],
    ) -> None:
        """Keeps a value; see `Module.sow`."""
        store = self._store(variable_type)
        if store is None:
            return
        found = store.get_raw_value().get(name)
        if found is not None and found.kind is not variable_type:
            raise ValueError(
                f"cannot sow into {format_path((name,), type(module).__name__)}: expected a "
                f"{variable_type.__name__}, found a {found.kind.__name__} captured under that "
                "name. Choose another name"
            )
        self._put(store, name, variable_type, reduce_fn(found.value if found else init_fn(), value))

    def perturb(self, module: Module, variable_type: type[Variable], name: str, value: Any) -> Any:
        """Returns a value plus its perturbation; see `Module.perturb`."""
        if name in self.fed:
            return jax.tree.map(jnp.add, value, self.fed[name].get_value())
        store = self._store(variable_type)
        if store is None:
            return value
        if name not in store.get_raw_value():
            self._put(store, name, variable_type, jax.tree.map(jnp.zeros_like, value))
        return jax.tree.map(jnp.add, value, store.get_raw_value()[name].value)

    def _put(self, store: Variable, name: str, kind: type[Variable], value: Any) -> None:
        store.set_raw_value({**store.get_raw_value(), name: Kept(kind, value)})

    def collect(self) -> Iterator[tuple[str, Variable, type[Variable] | None]]:
        """Yields name, Variable and group of all that came out."""
        for name, variable in self.fed.items():
            yield name, variable, self.group(type(variable))
        for group, store in zip(self.types, self.kept, strict=True):
            for name, kept in store.get_raw_value().items():
                yield name, kept.kind(kept.value), group


P = ParamSpec("P")
R = TypeVar("R")


@overload
def capture(
    fn: type[Variable[Any]],
    *var_types: type[Variable[Any]],
    init: Mapping[Any, Any] | None = None,
    method_outputs: type[Variable[Any]] | None = None,
) -> Callable[[Callable[P, Any]], Callable[P, Any]]: ...
@overload
def capture(
    fn: Callable[P, R],
    var_type: type[Variable[Any]],
    /,
    *,
    init: Mapping[Any, Any] | None = None,
    method_outputs: None = None,
) -> Callable[P, tuple[R, State]]: ...
@overload
def capture(
    fn: Callable[P, Any],
    *var_types: type[Variable[Any]],
    init: Mapping[Any, Any] | None = None,
    method_outputs: type[Variable[Any]] | None = None,
) -> Callable[P, Any]: ...
def capture(
    fn: Any,
    *var_types: type[Variable],
    init: Mapping[Any, Any] | None = None,
    method_outputs: type[Variable] | None = None,
) -> Callable[..., Any]:
    """Returns a function that also returns what its Modules sow and perturb.

    The model itself stays free of these values; types that are not asked for are dropped.

    Args:
      fn: a Module, a bound method of one, or a function one of whose arguments holds Modules:
        those of the first such argument are captured. If it is a Variable type, a decorator is
        returned.
      *var_types: the Variable types to return, one State each; a value goes to the
        nearest type.
      init: values of perturbations, as an earlier call returned them.
      method_outputs: if given, the outputs of all public methods are sown in Variables of this
        type under the methods' names.

    Returns:
      A function of the same arguments that returns `(output, *states)`; paths begin at the
      argument. Without types it returns the output alone.

    Raises:
      TypeError: if `fn` is not callable, or a type is no Variable type.
      ValueError: if no argument holds a Module.
      StructureError: if `init` has a path at which there is no Module.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> class Model(nnx.Module):
      ...     def __call__(self, x):
      ...         self.sow(nnx.Intermediate, "double", 2 * x)
      ...         return x
      >>> y, sown = nnx.capture(Model(), nnx.Intermediate)(jnp.ones(()))
      >>> float(sown.double.value[0])
      2.0
    """
    if isinstance(fn, type) and issubclass(fn, Variable):
        given = (fn, *var_types)
        return lambda f: capture(f, *given, init=init, method_outputs=method_outputs)
    if not callable(fn):
        raise TypeError(
            f"capture expects a Module, a method or a function, found {fn!r}: "
            "`nnx.capture(model, nnx.Intermediate)(x)`"
        )
    for kind in (*var_types, *(() if method_outputs is None else (method_outputs,))):
        if not (isinstance(kind, type) and issubclass(kind, Variable)):
            raise TypeError(
                f"capture expects Variable types, found {kind!r}: "
                "`nnx.capture(model, nnx.Intermediate)(x)`"
            )
    if method_outputs is not None and not any(issubclass(method_outputs, t) for t in var_types):
        var_types = (*var_types, method_outputs)

    def captured(*args: Any, **kwargs: Any) -> Any:
        taps = _place_taps(_find_root(fn, args, kwargs), var_types, init, method_outputs)
        try:
            modules = [module for _, module, _ in taps] if method_outputs is not None else []
            with observing(modules, _sow_output):
                output = fn(*args, **kwargs)
        finally:
            for _, module, tap in taps:
                others = tuple(other for other in getattr(module, TAPS) if other is not tap)
                if others:
                    setattr(module, TAPS, others)
                else:
                    delattr(module, TAPS)
        found = list(_collect(taps))
        states = (
            from_flat_state((path, v) for path, v, group in found if group is kind)
            for kind in var_types
        )
        return (output, *states) if var_types else output

    return boundary(captured) if isinstance(fn, Module) else transformed(fn)(captured)


def _find_root(fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Returns what the captured Modules are in: `fn` itself or the first argument with Modules."""
    if isinstance(fn, Module):
        return fn
    if isinstance(fn, types.MethodType) and isinstance(fn.__self__, Module):
        return fn.__self__
    for argument in (*args, *kwargs.values()):
        if next(iter_modules(argument), None) is not None:
            return argument
    raise ValueError(
        f"capture found no Module among the arguments of {getattr(fn, '__qualname__', fn)!r}: pass "
        "the model as an argument, `nnx.capture(f, nnx.Intermediate)(model, x)`"
    )


def _place_taps(
    root: Any,
    kinds: tuple[type[Variable], ...],
    init: Mapping[Any, Any] | None,
    method_outputs: type[Variable] | None,
) -> list[tuple[Path, Module, Tap]]:
    fed: dict[Path, dict[str, Variable]] = {}
    for path, leaf in to_flat_state(init or {}):
        variable = leaf.copy() if isinstance(leaf, Variable) else Perturbation(leaf)
        fed.setdefault(path[:-1], {})[path[-1]] = variable
    taps = [
        (path, module, Tap(kinds, method_outputs, fed.pop(path, {})))
        for path, module in iter_modules(root)
        if not isinstance(module, Dict)  # whose attributes are its items
    ]
    if fed:
        raise StructureError(
            f"`init` has perturbations at {', '.join(format_path(path, 'model') for path in fed)}, "
            "where the argument has no Module: give the State that an earlier capture of the same "
            "model returned"
        )
    for _, module, tap in taps:
        setattr(module, TAPS, (*getattr(module, TAPS, ()), tap))
    return taps


def _collect(
    taps: list[tuple[Path, Module, Tap]],
) -> Iterator[tuple[Path, Variable, type[Variable] | None]]:
    for path, _, tap in taps:
        for name, variable, group in tap.collect():
            yield (*path, name), variable, group


def _sow_output(
    module: Any, name: str, call: Callable[..., Any], args: tuple, kwargs: dict[str, Any]
) -> Any:
    output = call(*args, **kwargs)
    leaves = jax.tree.leaves(output, is_leaf=lambda x: isinstance(x, Pytree))
    if leaves and all(
        isinstance(x, (*ARRAY_TYPES, np.generic, int, float, complex)) for x in leaves
    ):
        for tap in attributes(module).get(TAPS, ()):
            if tap.method_outputs is not None:
                tap.sow(module, tap.method_outputs, name, output, _append, tuple)
    return output


def _append(kept: tuple, new: Any) -> tuple:
    return (*kept, new)
