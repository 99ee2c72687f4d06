"""Folders of numbered steps: each comes to its place as a whole, and goes as a whole."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from weft._saving.replacing import make_folder, remove_folder, remove_leftovers, sync_folder

_NAMES = r"\d{10,}(?:\.\d+)?"


def steps_in(folder: Path) -> dict[int, list[Path]]:
    """Returns the folders of each step, in the order of the steps, the newest of a step last."""
    found: dict[int, list[tuple[int, Path]]] = {}
    for name in os.listdir(folder):
        if re.fullmatch(_NAMES, name) and (folder / name).is_dir():
            step, _, time = name.partition(".")
            found.setdefault(int(step), []).append((int(time or 0), folder / name))
    return {step: [path for _, path in sorted(found[step])] for step in sorted(found)}


def new_place(folder: Path, step: int) -> Path:
    """Returns where a step comes to; one that was saved before is not replaced, but followed."""
    before = steps_in(folder).get(step)
    if not before:
        return folder / f"{step:010}"
    time = int(before[-1].name.partition(".")[2] or 0)
    return folder / f"{step:010}.{time + 1}"


def begin(place: Path) -> Path:
    """Makes the temporary folder that is to come to a place."""
    return make_folder(place)


def commit(part: Path, place: Path) -> None:
    """Moves a temporary folder, which is on disk, to its place."""
    os.rename(part, place)
    remove_folder(part)
    sync_folder(place.parent)


def remove(place: Path) -> None:
    """Removes the folder of a step, which vanishes at once."""
    trash = make_folder(place)
    try:
        with contextlib.suppress(FileNotFoundError):  # somebody else has removed it
            os.rename(place, trash)  # an empty folder gives way
    finally:
        remove_folder(trash)


def clean(folder: Path) -> None:
    """Removes what processes that were killed have left."""
    remove_leftovers(folder, _NAMES)
