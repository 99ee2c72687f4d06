"""Names of leaves: a path as the name that other tools see, and as JSON that keeps key types.

The *name* of a path is its keys joined by dots, `model.blocks.0.kernel`. A key that would read as
something else, such as the text "0" or one with a dot in it, stands in quotes, so that no two paths
have one name.
"""

from __future__ import annotations

import re
from typing import Any

from weft._core.path import Own, Path, format_path

_PLAIN = re.compile(r"(?!-?\d+$)[^.'\"@\s\\]+")
RESERVED = "__metadata__"


def name_of(path: Path) -> str:
    """Returns the name of a path.

    Raises:
      TypeError: if a key is neither text nor an int.
    """
    name = ".".join([_part(path, key) for key in path])
    return repr(name) if name == RESERVED else name


def _part(path: Path, key: Any) -> str:
    if type(key) is int:
        return str(key)
    text = key.name if type(key) is Own else key
    if type(text) is not str:
        raise TypeError(
            f"cannot save {format_path(path)}: the key {key!r} is neither a name nor an int; "
            f"use such as `str(key)` as keys"
        )
    quoted = text if _PLAIN.fullmatch(text) and text.isprintable() else repr(text)
    return f"@{quoted}" if type(key) is Own else quoted


def path_of(name: str) -> Path:
    """Returns the path of a name in a foreign file: digits are ints, whatever they were there."""
    keys = name.split(".")
    return tuple([int(key) if re.fullmatch(r"0|[1-9]\d{0,8}", key) else key for key in keys])


def to_json(path: Path) -> list[Any]:
    """Returns a path as JSON."""
    return [{"own": key.name} if type(key) is Own else key for key in path]


def from_json(keys: Any) -> Path:
    """Returns the path of its JSON.

    Raises:
      ValueError: if it is none.
    """
    path = tuple([Own(str(key["own"])) if isinstance(key, dict) else key for key in keys])
    if not path or not all(type(key) in (str, int, Own) for key in path):
        raise ValueError(f"{keys!r} is no path")
    return path
