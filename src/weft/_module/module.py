"""Modules: objects that are models or layers.

To what a `Pytree` can do a `Module` adds switching between training and evaluation, and keeping
intermediate values: `sow` stores one, `perturb` makes its gradient available.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from weft._core.filters import Filter, to_predicate
from weft._core.foreign_names import MODULE, give_hints, without_hints
from weft._core.path import Path, format_path
from weft._core.tracebacks import boundary
from weft._graph.iterate import iter_children, iter_graph
from weft._module.taps import active_capture
from weft._object.pytree import Pytree, attributes
from weft._variable.types import Perturbation
from weft._variable.variable import A, Variable


def _append(collected: tuple, value: Any) -> tuple:
    return (*collected, value)


def _nothing() -> tuple:
    return ()


def _type_of(variable_type: type[Variable] | str) -> type[Variable]:
    if isinstance(variable_type, str):
        from weft._variable.names import variable_type_from_name

        return variable_type_from_name(variable_type)
    return variable_type


class Module(Pytree):
    """Base class of layers and models.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> class Model(nnx.Module):
      ...     def __init__(self, rngs):
      ...         self.layers = [nnx.Linear(2, 2, rngs=rngs), nnx.Linear(2, 1, rngs=rngs)]
      ...     def __call__(self, x):
      ...         for layer in self.layers:
      ...             x = layer(x)
      ...         return x
      >>> Model(nnx.Rngs(0))(jnp.ones((3, 2))).shape
      (3, 1)
    """

    __slots__ = ()

    def __dir__(self) -> list[str]:
        return [*without_hints(type(self), super().__dir__()), *attributes(self)]  # type: ignore[list-item]

    def sow(
        self,
        variable_type: type[Variable] | str,
        name: str,
        value: Any,
        reduce_fn: Callable[[Any, Any], Any] = _append,
        init_fn: Callable[[], Any] = _nothing,
    ) -> bool:
        """Keeps a value under a name, in a Variable of the given type.

        Args:
          variable_type: the Variable type, such as `nnx.Intermediate`.
          name: the attribute that holds the Variable.
          value: the value to add.
          reduce_fn: `(kept, value) -> kept`; by default the values are collected in a tuple.
          init_fn: makes what is kept before the first value.

        Returns:
          True, as the value is always kept.

        Raises:
          ValueError: if the attribute exists and is no Variable of that type.
        """
        variable_type = _type_of(variable_type)
        capture = active_capture(self, variable_type)
        if capture is not None:
            capture.sow(self, variable_type, name, value, reduce_fn, init_fn)
            return True
        if not hasattr(self, name):
            setattr(self, name, variable_type(reduce_fn(init_fn(), value)))
            return True
        kept = getattr(self, name)
        if not isinstance(kept, variable_type):
            raise ValueError(
                f"cannot sow into {format_path((name,), type(self).__name__)}: expected a "
                f"{variable_type.__name__}, found a {type(kept).__name__}. Choose another name: "
                f"`self.sow(nnx.{variable_type.__name__}, {name + '_sown'!r}, value)`"
            )
        kept.set_raw_value(reduce_fn(kept.get_raw_value(), value))
        return True

    def perturb(
        self, name: str, value: A, variable_type: type[Variable[Any]] | str = Perturbation
    ) -> A:
        """Returns the value plus a Variable of zeros, whose gradient is that of the value.

        Args:
          name: the attribute that holds the Variable; made on the first call.
          value: an array or pytree of arrays.
          variable_type: the Variable type.

        Raises:
          ValueError: if the attribute exists and is no Variable of that type.
        """
        variable_type = _type_of(variable_type)
        capture = active_capture(self, variable_type)
        if capture is not None:
            return capture.perturb(self, variable_type, name, value)
        if not hasattr(self, name):
            setattr(self, name, variable_type(jax.tree.map(jnp.zeros_like, value)))
        kept = getattr(self, name)
        if not isinstance(kept, variable_type):
            raise ValueError(
                f"cannot perturb through {format_path((name,), type(self).__name__)}: expected a "
                f"{variable_type.__name__}, found a {type(kept).__name__}. Choose another name"
            )
        return jax.tree.map(jnp.add, value, kept.get_value())

    def iter_modules(self) -> Iterator[tuple[Path, Module]]:
        """Yields (path, Module) for this Module and all Modules in it, children first."""
        return iter_modules(self)

    def iter_children(self) -> Iterator[tuple[Any, Module]]:
        """Yields (key, Module) for the Modules directly in this one."""
        return iter_module_children(self)

    def set_attributes(
        self,
        *filters: Filter,
        raise_if_not_found: bool = True,
        graph: bool | None = None,
        **new: Any,
    ) -> None:
        """Sets attributes of this Module and of all Modules in it that have them.

        Args:
          *filters: which Modules; all if there are none.
          raise_if_not_found: whether an attribute that no Module has is an error.
          graph: False to refuse shared references.
          **new: names and values.

        Raises:
          ValueError: naming the attributes that no selected Module has.
        """
        assign(self, filters or ..., new, raise_if_not_found=raise_if_not_found, graph=graph)

    @boundary
    def train(self, **attributes: Any) -> None:
        """Switches to training: `deterministic` and `use_running_average` become False."""
        new = {"deterministic": False, "use_running_average": False, **attributes}
        self.set_attributes(raise_if_not_found=False, **new)

    @boundary
    def eval(self, **attributes: Any) -> None:
        """Switches to evaluation: `deterministic` and `use_running_average` become True."""
        new = {"deterministic": True, "use_running_average": True, **attributes}
        self.set_attributes(raise_if_not_found=False, **new)


def assign(
    node: Any, only: Filter, new: dict[str, Any], *, raise_if_not_found: bool, graph: bool | None
) -> None:
    """Sets attributes of the Modules in a node that match and have them; see `set_attributes`."""
    selected = to_predicate(only)
    targets = [m for path, m in iter_modules(node, graph=graph) if selected(path, m)]
    found = [(m, name) for m in targets for name in new if name in attributes(m)]
    missing = new.keys() - {name for _, name in found}
    if missing and raise_if_not_found:
        raise ValueError(
            f"no selected Module in {type(node).__name__} has an attribute named "
            f"{', '.join(map(repr, sorted(missing)))}; set it in __init__, or pass "
            "`raise_if_not_found=False`"
        )
    for module, name in found:
        setattr(module, name, new[name])


def iter_modules(module: Any, /, *, graph: bool | None = None) -> Iterator[tuple[Path, Module]]:
    """Yields (path, Module) for every Module in a node, itself included, children first.

    Example:
      >>> import weft as nnx
      >>> model = nnx.Sequential(nnx.Linear(2, 2, rngs=nnx.Rngs(0)))
      >>> [path for path, _ in nnx.iter_modules(model)]
      [('layers', 0), ('layers',), ()]
    """
    for path, value in iter_graph(module, graph=graph):
        if isinstance(value, Module):
            yield path, value


def iter_module_children(
    node: Any, /, *, graph: bool | None = None
) -> Iterator[tuple[Any, Module]]:
    """Yields (key, Module) for the Modules directly in a node.

    Example:
      >>> import weft as nnx
      >>> model = nnx.Sequential(nnx.Linear(2, 2, rngs=nnx.Rngs(0)))
      >>> [key for key, _ in nnx.iter_module_children(model)]
      ['layers']
    """
    for key, value in iter_children(node, graph=graph):
        if isinstance(value, Module):
            yield key, value


give_hints(Module, MODULE)
