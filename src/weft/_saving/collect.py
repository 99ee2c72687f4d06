"""What is saved of objects, and which saved leaf goes where in them; or what is against it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import jax
from jax.core import Tracer

from weft._core.errors import StructureError
from weft._core.path import Path, format_path
from weft._saving import names
from weft._saving.facts import Fact, fact_of
from weft._saving.fit import match
from weft._saving.leaves import Objects, Shared


def describe(
    objects: Mapping[str, Any], options: Collection[str], restore: str, meta: str = "meta"
) -> tuple[Objects, list[Fact]]:
    """Returns the leaves of objects that are to be saved, and what is known of each.

    Args:
      objects: by name.
      options: names that restoring has for its own options.
      restore: what restores, as code.
      meta: by what name plain numbers can be given.

    Raises:
      TypeError: for what cannot be saved, whatever its values are; names the path.
    """
    for name in objects:
        if not isinstance(name, str):
            raise TypeError(f"objects are saved by names, found {name!r} for one: `str(name)`")
    for name in sorted(objects.keys() & options):
        raise TypeError(f"{name!r} is an option of `{restore}`: save the object by another name")
    found = Objects(objects)
    for path, fault in found.stray(meta):
        raise TypeError(f"{format_path(path)} is {fault}")
    return found, [fact_of(path, value) for path, value in found.leaves.items()]


def collect(
    objects: Mapping[str, Any], options: Collection[str], restore: str
) -> tuple[Objects, list[Fact]]:
    """Returns what `describe` does, of objects that have values.

    Raises:
      TypeError: for what cannot be saved; names the path.
      ValueError: for arrays that were donated.
    """
    found, facts = describe(objects, options, restore)
    for path, value in found.leaves.items():
        check_value(format_path(path), value)
    return found, facts


def check_value(where: str, value: Any) -> None:
    """Raises TypeError or ValueError unless a leaf has a value that can be saved."""
    if isinstance(value, (jax.ShapeDtypeStruct, Tracer)):
        raise TypeError(
            f"cannot save {where}: it has no value yet, as it is "
            + ("traced: save outside of `nnx.jit`" if isinstance(value, Tracer) else "abstract")
        )
    if isinstance(value, jax.Array) and value.is_deleted():
        raise ValueError(
            f"cannot save {where}: its array was donated to a compiled function; save what "
            "that returned"
        )


def match_objects(
    where: Any,
    saved: Mapping[Path, Fact],
    saved_shared: Shared,
    objects: Mapping[str, Any],
    *,
    strict: bool,
    cast: bool,
    call: str,
    load: str,
) -> tuple[Objects, dict[Path, Fact], dict[Path, Path]]:
    """Finds for each leaf of objects the saved one.

    Args:
      where: the file or folder.
      saved: what is known of each saved leaf.
      saved_shared: further paths of those.
      objects: by name; None for one that is not wanted.
      strict: whether all of both must be in the other; else something.
      cast: whether dtypes may differ.
      call: what restores, as the beginning of a call.
      load: what takes one array by its name, as code.

    Returns:
      The objects, what is known of their leaves, and by path the one that was saved.

    Raises:
      TypeError: for an array, which cannot be changed in place.
      StructureError: if it does not fit; lists everything that does not.
    """
    given = {name: x for name, x in objects.items() if x is not None}
    found = Objects(given)
    for path in (path for path in found.fixed() if path in saved):
        raise TypeError(
            f"{format_path(path)} is an array, which cannot be changed in place"
            + (" where it is" if len(path) > 1 else "")
            + ": hold it in an `nnx.Variable`"
            + load.format(names.name_of(path))
        )
    for path, value in found.leaves.items():
        if isinstance(value, Tracer):
            raise TypeError(
                f"cannot restore {format_path(path)}: it is traced: restore outside of `nnx.jit`"
            )
    wanted = {path: fact_of(path, value) for path, value in found.leaves.items()}
    sources, faults = match(
        saved,
        saved_shared,
        wanted,
        found.shared,
        strict=strict,
        cast=cast,
        left_out=objects.keys() - given.keys(),
    )
    if saved and wanted and not sources and not strict:
        faults = [f"{_names_in(saved)} was saved, and the objects are {_names_in(wanted)}"]
    if faults:
        raise StructureError(_misfit(where, faults, saved, objects, strict, call))
    return found, wanted, sources


def _names_in(facts: Mapping[Path, Fact]) -> str:
    return ", ".join(sorted({str(path[0]) for path in facts}))


def _misfit(
    where: Any,
    faults: list[str],
    saved: Mapping[Path, Fact],
    objects: Mapping[str, Any],
    strict: bool,
    call: str,
) -> str:
    text = f"{where} does not fit the objects, and nothing was written:\n  " + "\n  ".join(faults)
    text += "\nrestore into objects made as those that were saved"
    if not strict:
        return text
    unwanted = sorted({str(path[0]) for path in saved} - objects.keys())
    leave = ", ".join(f"{name}=None" for name in unwanted if name.isidentifier())
    hint = f"; leave out what is not wanted: `{call}..., {leave})`" if leave else ""
    return f"{text}, or `{call}..., strict=False)` takes what is in both{hint}"
