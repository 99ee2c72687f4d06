"""Exported programs: how `jax.export` writes and reads the structure of Weft's arguments.

An exported program says what its arguments are: for every pytree its type, by the name it was
registered under, and what of it is no array, as bytes. These are JSON with a version, so that later
versions of Weft can read what earlier ones wrote.
"""

from __future__ import annotations

import functools
import importlib
import json
import pkgutil
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.export  # which jax has imported already
import numpy as np

from weft._core.codec import from_text, to_text
from weft._core.errors import StructureError
from weft._core.path import Path
from weft._core.static import Static

VERSION = 1
_PACKAGES = ("weft._module", "weft._rng", "weft.nn", "weft.train", "weft.train.metrics")
_names: dict[str, int] = {}


def register_export(
    kind: Any,
    parts: Callable[[Any], Any],
    build: Callable[[Any, Sequence[Any]], Any],
) -> None:
    """Registers a type of pytrees with `jax.export`, once.

    Args:
      kind: the type.
      parts: returns what JAX keeps of an instance besides its children, as a static value.
      build: makes an instance of that value and of children; what stands there for arrays are
        NumPy arrays.
    """
    jax.export.register_pytree_node_serialization(
        kind,
        serialized_name=_name_of(kind),
        serialize_auxdata=lambda aux: _write(parts(aux), kind),
        deserialize_auxdata=_read,
        from_children=lambda aux_data, children: build(aux_data, [*map(_with_arrays, children)]),
    )


def _name_of(kind: type) -> str:
    """Returns a name that is the same in other processes; classes made anew get further ones."""
    package = kind.__module__.partition(".")[0]
    name = f"{package if package == 'weft' else kind.__module__}.{kind.__qualname__}"
    number = _names[name] = _names.get(name, 0) + 1
    return name if number == 1 else f"{name}#{number}"


def _write(value: Any, kind: type) -> bytes:
    path: Path = (kind.__name__,)
    return json.dumps({"version": VERSION, "value": to_text(value, path)}).encode()


def _read(data: bytes) -> Any:
    _load_classes()
    written = json.loads(bytes(data))
    if written["version"] > VERSION:
        raise StructureError(
            f"the program was exported by a newer Weft, whose format is version "
            f"{written['version']}; this one reads up to {VERSION}: `pip install -U weft`"
        )
    return from_text(written["value"])


register_export(Static, lambda box: box.value, lambda value, children: Static(value))


@functools.cache
def _load_classes() -> None:
    """Imports all of Weft's classes: what is read next may be of one that nobody has used yet."""
    for package in map(importlib.import_module, _PACKAGES):
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)


_ARRAY = np.zeros(())


def _with_arrays(child: Any) -> Any:
    """Puts arrays where JAX has numbers stand for them: a number would be static in an object."""
    return jax.tree.map(lambda leaf: _ARRAY, child)
