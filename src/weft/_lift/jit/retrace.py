"""Why a function was traced again: the difference to the nearest earlier trace, by path.

What a trace *saw* are facts by path: each object's type, each array's aval, each static value. Two
traces are compared from the outermost paths inwards; what is inside of something that is new, gone
or of another type is no news.
"""

from __future__ import annotations

import inspect
import itertools
import types
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax.tree_util as jtu

from weft._core.arguments import argument_paths, leaf_paths
from weft._core.differences import narrow, text_of
from weft._core.keys import place_of
from weft._core.path import Path, format_path
from weft._core.static import Static
from weft._graph.records import (
    ArrayDef,
    NodeDef,
    Record,
    Ref,
    ValueDef,
    VariableDef,
    iter_records,
)
from weft._lift.jit.program import entry_sizes
from weft._lift.jit.spec import Spec

_SHOWN = 8
_LENGTH = 60


class Fact(NamedTuple):
    """What one trace saw at one path.

    Attributes:
      value: decides whether another trace saw the same.
      text: how to show it.
      type: what else to show, beside something of another type.
      note: what kind of thing it is, in parentheses.
      avals: of its arrays.
    """

    value: Any
    text: str
    type: str = ""
    note: str = ""
    avals: Sequence[Any] = ()

    def __str__(self) -> str:
        note = f" ({self.note})" if self.note else ""
        return f"{self.type} {self.text}".strip() + note


Seen = dict[Path, Fact]

_ABSENT = Fact(None, "absent")
_TREE = Fact(None, "a container")
_ARGUMENTS = ("arguments",)
_EXTRA = "<extra>"


class Reason(NamedTuple):
    """Why a trace happened: the differences in words, and what to do about the first of them."""

    text: str
    advice: str


# -- what a trace sees
def see(f: Callable[..., Any], spec: Spec, groups: Any) -> Seen:
    """Describes the arguments of a trace.

    Args:
      f: the function that is traced.
      spec: the static side of the call.
      groups: the avals of the arrays, by group.
    """
    record = spec.record
    facts: Seen = {}
    if record.how is tuple:
        names = argument_paths(f, sum(isinstance(key, int) for key in record.keys))
        paths = [names[key] if isinstance(key, int) else (key,) for key in record.keys]
    else:
        paths = record.keys
        facts |= _see_containers(f, record.how, record.children)
    inputs = [iter(group) for group in groups]
    sizes = zip(entry_sizes(record), spec.grouping, strict=True)
    avals = iter([[next(inputs[group]) for _ in range(number)] for number, group in sizes])
    places: dict[int, Path] = {}
    arguments = zip(paths, record.children, strict=True)
    for path, record in itertools.chain.from_iterable(iter_records(r, p) for p, r in arguments):
        match record:
            case Static():
                facts[path] = Fact(record, _short(record.value), note="static")
            case ArrayDef():
                (aval,) = next(avals)
                facts[path] = Fact(aval, _aval_text(aval), avals=[aval])
            case VariableDef():
                places[record.index] = path
                inside = next(avals)
                value = (record.type, record.treedef, inside)
                text = _tree_text(record.treedef, inside)
                facts[path] = Fact(value, text, record.type.__name__, avals=inside)
                for key, x in record.metadata.value.items():
                    facts[(*path, key)] = Fact(Static(x), _short(x), note="metadata")
            case NodeDef():
                places[record.index] = path
                facts[path] = Fact(record.type, record.type.__name__)
                if record.extra.value:
                    note = "order" if issubclass(record.type, dict) else "marks"
                    extra = Fact(record.extra, _short(record.extra.value), note=note)
                    facts[(*path, _EXTRA)] = extra
            case ValueDef():
                facts[path] = Fact(record.how, _type_name(record.how))
            case Ref():
                shared = format_path(places[record.index])
                facts[path] = Fact(record, f"the same object as {shared}")
    return facts


def _see_containers(f: Callable[..., Any], how: Any, leaves: Iterable[Record]) -> Seen:
    """Describes containers, None and static arguments, which are a part of a call's treedef."""
    try:
        args, kwargs = jtu.tree_unflatten(how, leaves)
    except Exception:  # a user's pytree may check what it is made of
        return {_ARGUMENTS: Fact(how, _shortened(str(how)))}
    facts = {_ARGUMENTS: Fact(how, _call_text(args, kwargs))}
    roots = [*zip(argument_paths(f, len(args)), args, strict=True)]
    roots += [((name,), x) for name, x in kwargs.items()]
    facts |= {path: Fact(type(x), type(x).__name__) for path, x in roots if not _is_record(x)}
    for path, leaf in leaf_paths(f, args, kwargs, _is_record):
        if leaf is None:
            facts[path] = Fact(None, "None")
        elif isinstance(leaf, Static):
            facts[path] = Fact(leaf, _short(leaf.value), note="static")
    return facts


def _is_record(x: Any) -> bool:
    return x is None or isinstance(x, (Static, ArrayDef, VariableDef, NodeDef, ValueDef, Ref))


class _Shown(str):
    """A text whose repr is the text itself."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _tree_text(treedef: Any, avals: list[Any]) -> str:
    """Shows the value of a Variable: `f32[2]`, `{'a': f32[2]}`."""
    texts = [_Shown(_aval_text(aval)) for aval in avals]
    if treedef is None:
        return texts[0]
    try:
        return _short(treedef.unflatten(texts))
    except Exception:  # a user's pytree may check what it is made of
        return _shortened(", ".join(texts))


def _call_text(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """Shows the containers of a call: `(*, [*, *], mode='a')`."""

    def show(x: Any) -> str:
        leaf = lambda x: _Shown(_short(x.value)) if type(x) is Static else _Shown("*")  # noqa: E731
        is_leaf = lambda x: x is not None and _is_record(x)  # noqa: E731
        return _short(jtu.tree_map(leaf, x, is_leaf=is_leaf))

    return _shortened(
        f"({', '.join([*map(show, args), *(f'{k}={show(x)}' for k, x in kwargs.items())])})"
    )


def _aval_text(aval: Any) -> str:
    text = aval.str_short(short_dtypes=True)
    spec = getattr(getattr(aval, "sharding", None), "spec", None)
    weak = " (weak type)" if getattr(aval, "weak_type", False) else ""
    is_explicit = "@" not in text and bool(spec) and any(spec)
    return f"{text}{weak}" + (f" sharded {spec}" if is_explicit else "")


def _type_name(how: Any) -> str:
    kind = how if isinstance(how, type) else how.node_data()[0]
    return kind.__name__


def _short(value: Any) -> str:
    try:
        text = getattr(value, "__qualname__", None) or repr(value)
    except Exception:  # a report must not fail because of a repr that does
        text = f"<{type(value).__name__}>"
    return _shortened(text)


def _shortened(text: str) -> str:
    return text if len(text) <= _LENGTH else text[: _LENGTH - 3] + "..."


# -- what differs
class Difference(NamedTuple):
    """A path at which two traces saw different things, in words, and what to do about it."""

    path: Path
    text: str
    advice: str


def differences(before: Seen, after: Seen) -> list[Difference]:
    """Lists where two traces saw different things, the outermost paths first."""
    found: list[Difference] = []
    explained: set[Path] = set()
    unsure: list[tuple[Path, Fact, Fact]] = []
    paths = sorted(dict.fromkeys([*before, *after]), key=len)
    for path in paths:
        old, new = before.get(path), after.get(path)
        if _is_same(old, new) or any(path[:i] in explained for i in range(len(path))):
            continue
        old, new = (x or _missing(path, seen) for x, seen in ((old, before), (new, after)))
        if path == _ARGUMENTS or path[-1] == _EXTRA or (old.note == "" and str(old) == str(new)):
            unsure.append((path, old, new))
        else:
            explained.add(path)
            found.append(_difference(path, old, new))
    # These may follow from other differences, and are told only if there are none.
    for path, old, new in unsure:
        inside = path[:-1] if path[-1] == _EXTRA else () if path == _ARGUMENTS else path
        if not any(difference.path[: len(inside)] == inside for difference in found):
            found.append(_difference(inside or path, old, new))
    return found


def _is_same(old: Fact | None, new: Fact | None) -> bool:
    if old is None or new is None or type(old.value) is not type(new.value):
        return False  # a treedef refuses to be compared with None
    return old.value == new.value and old.note == new.note


def _missing(path: Path, seen: Seen) -> Fact:
    return _TREE if any(other[: len(path)] == path for other in seen) else _ABSENT


def _difference(path: Path, old: Fact, new: Fact) -> Difference:
    is_alike = (old.type, old.note) == (new.type, new.note)
    before, after = (old.text, new.text) if is_alike else (str(old), str(new))
    if isinstance(old.value, Static) and isinstance(new.value, Static) and is_alike:
        if before == after or before.endswith("...") or after.endswith("..."):
            path, before, after = _narrowed(path, old, new)
    after = f"another {after}" if before == after else after
    note = f" ({old.note})" if is_alike and old.note else ""
    return Difference(path, f"{format_path(path)}: {before} -> {after}{note}", _advice(old, new))


def _advice(old: Fact, new: Fact) -> str:
    values = [fact.value.value for fact in (old, new) if isinstance(fact.value, Static)]
    if len(values) == 2 and all(isinstance(value, types.FunctionType) for value in values):
        return "Make the function once and use that one"
    if old.note or new.note:
        return "Make what changes a Variable, or pass it as an array"
    if old.avals and len(old.avals) == len(new.avals):
        shapes = [[getattr(aval, "shape", None) for aval in fact.avals] for fact in (old, new)]
        is_shape = shapes[0] != shapes[1]
        return "Pad arrays to one shape" if is_shape else "Convert arrays to one dtype first"
    return "Set up objects and containers before the first call"


# -- inside of static values
def _narrowed(path: Path, old: Fact, new: Fact) -> tuple[Path, str, str]:
    """Goes into two static values, to the first part that differs as far as parts have names.

    It goes by their keys, which tell of the moment when they were taken.
    """
    inside, a, b = narrow(old.value.key, new.value.key)
    if inside:
        return (*path, *inside), _shortened(text_of(a)), _shortened(text_of(b))
    if old.text == new.text:
        return path, _located(old.value.value), _located(new.value.value)
    return path, old.text, new.text


def _located(value: Any) -> str:
    """Shows a value; a function with the line where it is defined."""
    code = getattr(inspect.unwrap(value), "__code__", None) if callable(value) else None
    return _short(value) if code is None else f"{_short(value)} {place_of(code)}"


# -- why
def explain(seen: Sequence[Seen], new: Seen) -> Reason:
    """Says why a trace happened, given earlier ones."""
    if not seen:
        return Reason("first trace", "")
    nearest = min((differences(old, new) for old in reversed(seen)), key=len)
    if not nearest:
        return Reason(
            "same arguments, but a JAX setting, the mesh, what may be donated, or a static value "
            "that an earlier call put into objects changed, or the earlier trace failed",
            "Call it in one context",
        )
    more = f"; and {len(nearest) - _SHOWN} more" if len(nearest) > _SHOWN else ""
    text = "; ".join(difference.text for difference in nearest[:_SHOWN]) + more
    return Reason(text, nearest[0].advice)
