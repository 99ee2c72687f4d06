"""Views: other settings for the same Variables.

A *view* is a copy of a model whose objects are new and whose Variables are the model's own.
Modules that can be set up in several ways say how in a method `set_view`, whose keyword parameters
are the options of `nnx.view`. A Module that holds others *stacked*, with an axis for the layers in
front, says by `__nnx_stacked__` how many; what `set_view` makes there gets that axis.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from weft._core.filters import Filter, to_predicate
from weft._core.path import Path
from weft._graph.api import clone, state
from weft._graph.state import to_flat_state
from weft._module.module import Module, assign, iter_modules
from weft._variable.variable import Variable

A = TypeVar("A")


def view(
    node: A,
    /,
    *,
    only: Filter = ...,
    raise_if_not_found: bool = True,
    graph: bool | None = None,
    **kwargs: Any,
) -> A:
    """Returns a copy with other options and the same Variables.

    Each option is handed to the method `set_view` of every Module that takes it.

    Args:
      node: a model, or a pytree of them.
      only: which Modules.
      raise_if_not_found: whether an option that no selected Module takes is an error.
      graph: False to refuse shared references; None for the setting.
      **kwargs: the options.

    Raises:
      ValueError: naming the options that no Module takes, and those that there are.

    Example:
      >>> import weft as nnx
      >>> model = nnx.Sequential(nnx.Linear(2, 2, rngs=nnx.Rngs(0)), nnx.Dropout(0.5))
      >>> test_model = nnx.view(model, deterministic=True)
      >>> test_model.layers[1].deterministic, model.layers[1].deterministic
      (True, False)
      >>> test_model.layers[0].kernel is model.layers[0].kernel
      True
    """
    new = clone(node, variables=False, graph=graph)
    selected = to_predicate(only)
    unused, known = set(kwargs), set()
    modules = dict(iter_modules(new, graph=graph))
    for path, module in modules.items():
        options = _options(type(module))
        if options is None or not selected(path, module):
            continue
        takes_all = any(o.kind is inspect.Parameter.VAR_KEYWORD for o in options.values())
        known.update(options)
        taken = {k: v for k, v in kwargs.items() if takes_all or k in options}
        if taken:
            _set_view(module, taken, _stacked_axes(modules, path))
            unused -= taken.keys()
    if unused and raise_if_not_found:
        raise ValueError(
            f"no selected Module in {type(node).__name__} has a view option "
            f"{', '.join(map(repr, sorted(unused)))}; there are {sorted(known)}, see "
            "`nnx.view_info(model)`"
        )
    return new


def _stacked_axes(modules: Mapping[Path, Module], path: Path) -> tuple[int, ...]:
    """Returns the sizes of the axes that what is held at a path has in front."""
    holders = [(modules.get(path[:i]), path[i]) for i in range(len(path))]
    return tuple([_stacked(m)[key] for m, key in holders if key in _stacked(m)])


def _stacked(module: Any) -> Mapping[str, int]:
    """Returns by attribute of a Module how many layers are stacked there."""
    return getattr(module, "__nnx_stacked__", {})


def _set_view(module: Any, options: Mapping[str, Any], axes: tuple[int, ...]) -> None:
    before = {id(leaf) for _, leaf in to_flat_state(state(module))} if axes else set()
    module.set_view(**options)
    for _, leaf in to_flat_state(state(module)) if axes else ():
        if isinstance(leaf, Variable) and id(leaf) not in before:
            stacked = lambda x: jnp.broadcast_to(x, axes + jnp.shape(x))  # noqa: E731
            leaf.set_raw_value(jax.tree.map(stacked, leaf.get_raw_value()))


def view_info(node: Any, /, *, only: Filter = ..., graph: bool | None = None) -> str:
    """Lists the options that `nnx.view` takes for a model, by Module class.

    Args:
      node: a model, or a pytree of them.
      only: which Modules.
      graph: False to refuse shared references; None for the setting.

    Returns:
      Text with, for every class, the options, their types, defaults and documentation.

    Example:
      >>> import weft as nnx
      >>> print(nnx.view_info(nnx.Dropout(0.5)))
      Dropout:
        deterministic: bool | None = None
          whether to return the input as it is.
    """
    selected = to_predicate(only)
    classes = {type(m) for path, m in iter_modules(node, graph=graph) if selected(path, m)}
    texts = (_describe(cls) for cls in sorted(classes, key=lambda cls: cls.__name__))
    return "\n".join(text for text in texts if text)


def _options(cls: type) -> dict[str, inspect.Parameter] | None:
    """Returns the options of a class, None if it has no views."""
    method = getattr(cls, "set_view", None)
    if method is None:
        return None
    parameters = list(inspect.signature(method).parameters.values())
    return {parameter.name: parameter for parameter in parameters[1:]}


def _describe(cls: type) -> str:
    options = _options(cls)
    if not options:
        return ""
    documented = dict(_documented_arguments(inspect.getdoc(cls.set_view) or ""))  # type: ignore[attr-defined]
    lines = [f"{cls.__name__}:"]
    for name, option in options.items():
        annotation = option.annotation
        line = f"  {name}"
        if annotation is not inspect.Parameter.empty:
            shown = annotation if isinstance(annotation, str) else _type_name(annotation)
            line += f": {shown}"
        if option.default is not inspect.Parameter.empty:
            line += f" = {option.default!r}"
        lines.append(line)
        lines.extend(f"    {text}" for text in documented.get(name, ()))
    return "\n".join(lines)


def _type_name(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def _documented_arguments(doc: str) -> Iterator[tuple[str, list[str]]]:
    """Reads names and texts of the section `Args:` of a Google style docstring."""
    _, _, section = doc.partition("Args:\n")
    name, texts, margin = "", [], None
    for line in section.splitlines():
        indent = len(line) - len(line.lstrip())
        if line.strip() and indent == 0:
            break
        match = re.match(r"\s*\*{0,2}(\w+)[^:]*:\s*(.*)", line)
        if match and (margin is None or indent == margin):
            if name:
                yield name, texts
            margin, name, texts = indent, match[1], [match[2]] if match[2] else []
        elif line.strip():
            texts.append(line.strip())
    if name:
        yield name, texts


def with_attributes(
    node: A,
    /,
    *,
    only: Filter = ...,
    raise_if_not_found: bool = True,
    graph: bool | None = None,
    **new: Any,
) -> A:
    """Returns a copy with other attributes and the same Variables.

    Args:
      node: a model, or a pytree of them.
      only: which Modules.
      raise_if_not_found: whether an attribute that no selected Module has is an error.
      graph: False to refuse shared references; None for the setting.
      **new: names and values; set on every selected Module that has the attribute.

    Raises:
      ValueError: naming the attributes that no selected Module has.

    Example:
      >>> import weft as nnx
      >>> model = nnx.Dropout(0.5)
      >>> nnx.with_attributes(model, rate=0.1).rate, model.rate
      (0.1, 0.5)
    """
    copy = clone(node, variables=False, graph=graph)
    assign(copy, only, new, raise_if_not_found=raise_if_not_found, graph=graph)
    return copy
