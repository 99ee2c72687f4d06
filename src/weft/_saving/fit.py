"""Whether saved leaves fit objects: which leaf goes where, and everything that does not fit."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from weft._core.path import Path, format_path
from weft._saving.facts import Fact, can_cast, fits
from weft._saving.leaves import Shared, resolve


def match(
    saved: Mapping[Path, Fact],
    saved_shared: Shared,
    wanted: Mapping[Path, Fact],
    wanted_shared: Shared,
    *,
    strict: bool,
    cast: bool,
    left_out: Collection[str] = (),
) -> tuple[dict[Path, Path], list[str]]:
    """Finds for each leaf of objects the saved one.

    Args:
      saved: the saved leaves.
      saved_shared: further paths that they had.
      wanted: the leaves of the objects.
      wanted_shared: further paths that they have.
      strict: whether every leaf needs one of its own, and every saved one its place.
      cast: whether dtypes may differ.
      left_out: first keys of saved leaves that nobody wants.

    Returns:
      By path in the objects the path that was saved, and what does not fit.
    """
    found: dict[Path, Path] = {}
    faults: list[str] = []
    moved = {resolve(path, wanted_shared): path for path in saved if path not in wanted}
    for path, fact in wanted.items():
        source = path if path in saved else resolve(path, saved_shared)
        source = source if source in saved else moved.get(path, source)
        where = format_path(path)
        if source not in saved:
            faults += [f"missing: {where} ({fact}) was not saved"] if strict else []
            continue
        if strict and source != path and source in wanted:
            faults.append(
                f"shared: {where} was saved as one with {format_path(source)}, and is one of its "
                "own in the objects"
            )
        found[path] = source
        if not (fits(saved[source], fact) or (cast and can_cast(saved[source], fact))):
            hint = "" if cast or not can_cast(saved[source], fact) else " (`cast=True` converts it)"
            faults.append(f"{where}: saved {saved[source]}, wanted {fact}{hint}")
    used = set(found.values())
    for path in saved if strict else ():
        if path not in used and path[0] not in left_out:
            target = resolve(path, wanted_shared)
            where = format_path(path)
            faults.append(
                f"shared: {where} was saved as one of its own, and is one with "
                f"{format_path(target)} in the objects"
                if target in wanted
                else f"unexpected: {where} ({saved[path]}) is not in the objects"
            )
    return found, faults
