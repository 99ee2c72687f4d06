"""What the processes of a run must have in common: compared, where otherwise they would hang."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from weft._core.errors import StructureError
from weft._core.path import format_path
from weft._saving.facts import fact_of, is_key
from weft._saving.leaves import Objects
from weft._saving.processes import texts_of_all
from weft._saving.shards import checksum
from weft.train.feed import to_json

_SHOWN = 20  # differences
_LONGEST = 100  # characters of a value
_FAILED = "failed"


@contextlib.contextmanager
def agreement(noted: Callable[[], Mapping[str, Any]]) -> Iterator[None]:
    """Raises in every process, if the block raises in one, or if what they note differs.

    Every process enters it. Alone, a process agrees with itself, and nothing is noted.

    Args:
      noted: returns what is to be the same after the block, by name; dicts may be nested.

    Raises:
      StructureError: if something differs; says what, and of which processes.
      RuntimeError: if the block has raised in another process; says what.
    """
    if jax.process_count() == 1:
        yield
        return
    try:
        yield
        own = dict(_flat(noted()))
    except Exception as error:
        texts_of_all(json.dumps({_FAILED: f"{type(error).__name__}: {error}"}))
        raise
    first, *others = [json.loads(text) for text in texts_of_all(json.dumps(own))]
    for process, note in enumerate([first, *others]):
        if _FAILED in note:
            raise RuntimeError(f"process {process} could not begin the run: {note[_FAILED]}")
    for process, other in enumerate(others, 1):
        if faults := _differences(first, other, process):
            raise StructureError(
                "the processes of the run disagree:\n  "
                + "\n  ".join(faults)
                + "\nbegin each with the same state, data and arguments: the seed of a model must "
                "be one number, and the parts of the data that they read equally long"
            )


def _flat(noted: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in noted.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}: ")
        else:
            yield f"{prefix}{name}", value if isinstance(value, str) else json.dumps(to_json(value))


def _differences(first: dict[str, str], other: dict[str, str], process: int) -> list[str]:
    """Returns a line for each of the notes of two processes that differ."""
    lines = [
        f"{name}: process 0 has {_short(first.get(name))}, "
        f"process {process} has {_short(other.get(name))}"
        for name in dict.fromkeys([*first, *other])
        if first.get(name) != other.get(name)
    ]
    more = [f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    return lines[:_SHOWN] + more


def _short(text: str | None) -> str:
    if text is None:
        return "none"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


# -- what is noted of objects


def structure_of(objects: Mapping[str, Any]) -> dict[str, str]:
    """Returns by path of what kind each leaf of objects is, and over which devices it lies."""
    found = {}
    for path, value in Objects(objects).leaves.items():
        try:
            text = str(fact_of(path, value))
        except TypeError:  # in a run that does not save
            text = f"a {type(value).__name__}"
        if isinstance(value, jax.Array):
            spec = getattr(value.sharding, "spec", None)
            spread = "" if spec is None else f" by {spec}"
            text += f" on {len(value.sharding.device_set)} devices{spread}"
        found[format_path(path)] = text
    return found


def values_of(objects: Mapping[str, Any]) -> dict[str, str]:
    """Returns by path the checksum of each leaf of which every process has the whole."""
    found = {}
    for path, value in Objects(objects).leaves.items():
        value = jax.random.key_data(value) if is_key(value) else value
        if isinstance(value, jax.Array) and value.is_fully_replicated:
            value = value.addressable_data(0)
        if isinstance(value, jax.Array) and not value.is_fully_addressable:
            continue
        is_array = isinstance(value, (jax.Array, np.ndarray))
        text = f"values of checksum {checksum(np.asarray(value)):08x}" if is_array else repr(value)
        found[format_path(path)] = text
    return found
