"""Where two static values differ, in words, as their keys tell: of the moment they were taken."""

from __future__ import annotations

import types
from collections.abc import Hashable, Iterable, Iterator
from typing import Any

from weft._core.keys import from_bits, place_of
from weft._core.makeup import ATOMS, ELEMENTS, Aspect, makeup_of
from weft._core.path import Path
from weft._core.static import Cycle, PartsKey

_SHOWN = 8
_DEEPEST = 16
_BRACKETS: dict[type, str] = {tuple: "()", list: "[]", set: "{}", dict: "{}"}


def narrow(a: Hashable, b: Hashable) -> tuple[Path, Hashable, Hashable]:
    """Goes into two values to the first part that differs, as far as parts have names.

    Args:
      a: the key of one value.
      b: the key of the other.

    Returns:
      The path of the part, and its key in both.
    """
    path: list[Any] = []
    while len(path) < _DEEPEST and (found := _first_difference(a, b)) is not None:
        name, a, b = found
        path.append(name)
    return tuple(path), a, b


def _first_difference(a: Hashable, b: Hashable) -> tuple[Any, Hashable, Hashable] | None:
    if not (isinstance(a, PartsKey) and isinstance(b, PartsKey) and a.kind is b.kind):
        return None
    others = dict(_parts_of(b))
    for name, part in _parts_of(a):
        if name in others and part != others[name]:
            return _plain(name[1]), part, others[name]
    return None


def _parts_of(key: PartsKey) -> Iterator[tuple[tuple[int, Any], Any]]:
    """Yields the parts of a value that have a name, under the aspect's number and this name."""
    for i, (aspect, parts) in enumerate(zip(_aspects_of(key), key.aspects, strict=True)):
        for name, part in _named(aspect, parts):
            yield (i, name), part


def _aspects_of(key: PartsKey) -> tuple[Aspect, ...]:
    aspects = makeup_of(key.kind).aspects
    number = len(key.aspects) - len(aspects)  # an array of objects has one more, of these
    return (ELEMENTS,) * number + aspects


def _named(aspect: Aspect, parts: Any) -> Iterable[tuple[Any, Any]]:
    if aspect.names is not None:
        return parts
    return enumerate(parts) if aspect.is_ordered else ()


def _plain(name: Any) -> Any:
    """Returns the name that a key is of, if it is a simple one."""
    return name[1] if type(name) is tuple and name[0] in ATOMS else name


def text_of(key: Any) -> str:
    """Shows the value that a key was taken of."""
    try:
        return _text_of(key)
    except Exception:  # a report must not fail because of a repr that does
        return f"<{key.kind.__name__}>" if isinstance(key, PartsKey) else "<...>"


def _text_of_tuple(kind: Any, value: Any) -> str:
    return repr(from_bits(kind, value) if kind in (float, complex) else value)


def _text_of(key: Any) -> str:
    if isinstance(key, Cycle):
        return "..."
    if not isinstance(key, PartsKey):
        return _text_of_tuple(*key) if type(key) is tuple else repr(key)
    kind, head = key.kind, key.head
    if issubclass(kind, (float, complex)):
        return repr(from_bits(kind, head))
    if kind is types.FunctionType:
        code: Any = head[0]  # type: ignore[index]
        return f"{code.co_qualname} {place_of(code)}"
    if head is not None:
        return repr(head)
    texts: list[str] = []
    aspects: tuple[Any, ...] = key.aspects
    for aspect, parts in zip(_aspects_of(key), aspects, strict=True):
        for part in list(parts)[:_SHOWN]:
            if aspect.names is None:
                texts.append(_text_of(part))
            elif kind is dict:
                texts.append(f"{_text_of(part[0])}: {_text_of(part[1])}")
            else:
                texts.append(f"{_plain(part[0])}={_text_of(part[1])}")
        texts += ["..."] * (len(parts) > _SHOWN)
    inside = ", ".join(texts)
    brackets = _BRACKETS.get(kind)
    return f"{brackets[0]}{inside}{brackets[1]}" if brackets else f"{kind.__name__}({inside})"
