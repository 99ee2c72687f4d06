"""What may be an attribute: a table of values, and how to say everything about one.

Many of the classes here are such as configuration libraries have: they make up attributes, keep
what they hold twice, or allow no change. What is said about a value goes past all of that.
"""

from __future__ import annotations

import collections
import dataclasses
import enum
import functools
import time
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

import weft as nnx

# -- subclasses of dict


class AttrDict(dict):
    """Attributes are items, and a missing one is a KeyError."""

    __getattr__ = dict.__getitem__
    __setattr__ = dict.__setitem__


class NoneDict(dict):
    """Has every attribute."""

    def __getattr__(self, name: str) -> Any:
        return self.get(name)


class MakingDict(dict):
    """Makes an entry of whatever it is asked for."""

    def __getattr__(self, name: str) -> Any:
        return self.setdefault(name, MakingDict())


class TwiceDict(dict):
    """Keeps each item as an attribute, too."""

    def __init__(self, **items: Any):
        super().__init__()
        for name, value in items.items():
            setattr(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        super().__setitem__(name, value)

    __setitem__ = __setattr__


class OwnDict(dict):
    """Is its own attribute dict."""

    def __init__(self, **items: Any):
        super().__init__(items)
        self.__dict__ = self


class Tracked(dict):
    """Needs an argument to be made, and an attribute to be changed."""

    def __init__(self, tracker: str, **items: Any):
        self.tracker = tracker
        super().__init__(items)

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, value)
        self.tracker += "!"

    def __reduce__(self) -> Any:
        return _tracked, (self.tracker, dict(self))


def _tracked(tracker: str, items: dict) -> Tracked:
    return Tracked(tracker, **items)


class Locked(dict):
    """Allows no change, and shows nothing of what it holds."""

    __slots__ = ("reason",)

    def __init__(self, items: dict, reason: str):
        super().__init__(items)
        self.reason = reason

    def _refuse(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("locked")

    __setitem__ = __delitem__ = update = clear = pop = _refuse  # type: ignore[assignment]

    def items(self) -> Any:
        return []

    values = keys = items  # type: ignore[assignment]

    def __iter__(self) -> Any:
        return iter(())

    def __len__(self) -> int:
        return 0

    def __reduce__(self) -> Any:
        return Locked, (dict(dict.items(self)), self.reason)


class Linked(dict):
    """Knows the dict that it is in."""

    def __init__(self, parent: Any = None, **items: Any):
        super().__init__(items)
        self.parent = parent


def linked(value: Any) -> Linked:
    outer = Linked(a=value)
    outer["inner"] = Linked(outer)
    return outer


class Ordered(collections.OrderedDict):
    pass


class Default(collections.defaultdict):
    def __init__(self, **items: Any):
        super().__init__(list, items)
        self.label = "x"

    def __reduce__(self) -> Any:
        return _default, (dict(self),)


def _default(items: dict) -> Default:
    return Default(**items)


# -- subclasses of other containers


class Chain(list):
    """Counts what is done to it, and needs an argument to be made."""

    def __init__(self, label: str, items: Any = ()):
        super().__init__(items)
        self.label, self.changes = label, 0

    def append(self, value: Any) -> None:
        super().append(value)
        self.changes += 1

    def __setitem__(self, index: Any, value: Any) -> None:
        raise TypeError("append only")

    def __iter__(self) -> Any:
        return iter(list(list.__iter__(self))[::-1])

    def __reduce__(self) -> Any:
        return _chain, (self.label, list(list.__iter__(self)), self.changes)


def _chain(label: str, items: list, changes: int) -> Chain:
    new = Chain(label, items)
    new.changes = changes
    return new


class Names(set):
    """A set that takes names in capitals alone."""

    def update(self, *others: Any) -> None:
        raise TypeError("no")

    def add(self, name: str) -> None:
        super().add(name.upper())


class Recent(collections.deque):
    def __init__(self, items: Any = (), maxlen: int | None = None, label: str = "r"):
        super().__init__(items, maxlen)
        self.label = label


class Space(types.SimpleNamespace):
    __slots__ = ("extra",)


class Sized(tuple):
    """A tuple with an attribute, made from other arguments than its items."""

    def __new__(cls, *items: Any, unit: str) -> Sized:
        new = super().__new__(cls, items)
        new.unit = unit
        return new

    def __reduce__(self) -> Any:
        return _sized, (tuple(self), self.unit)


def _sized(items: tuple, unit: str) -> Sized:
    return Sized(*items, unit=unit)


class Pair(NamedTuple):
    left: Any
    right: Any


class Twins(Pair):
    def __new__(cls, one: Any) -> Any:
        return super().__new__(cls, one, one)

    def __reduce__(self) -> Any:
        return Twins, (self[0],)


# -- classes that list their fields


@dataclasses.dataclass
class Stats:
    mean: Any
    name: str = "stats"


@dataclasses.dataclass(frozen=True)
class Frozen:
    mean: Any
    name: str = "frozen"


@dataclasses.dataclass(slots=True)
class Slotted:
    mean: Any
    name: str = "slots"


@dataclasses.dataclass
class Affine:
    """A dataclass that is called."""

    scale: Any

    def __call__(self, x: Any) -> Any:
        return x * self.scale


class Attrs:
    """What attrs makes of a class."""

    __attrs_attrs__ = ()
    __slots__ = ("__weakref__", "mean", "name")

    def __init__(self, mean: Any):
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "name", "attrs")

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("frozen")

    def __getstate__(self) -> Any:
        return self.mean

    def __setstate__(self, mean: Any) -> None:
        self.__init__(mean)


class Pydantic:
    """What pydantic makes of a class."""

    __pydantic_validator__ = None
    __slots__ = ("__dict__", "__pydantic_extra__", "__pydantic_fields_set__")

    def __init__(self, **fields: Any):
        object.__setattr__(self, "__dict__", fields)
        object.__setattr__(self, "__pydantic_fields_set__", set(fields))

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)

    def __setattr__(self, name: str, value: Any) -> None:
        raise ValueError("frozen")

    def __getstate__(self) -> Any:
        return dict(self.__dict__)

    def __setstate__(self, fields: Any) -> None:
        self.__init__(**fields)


# -- classes that do not


class Plain:
    def __init__(self, **attributes: Any):
        self.__dict__.update(attributes)


class Color(enum.Enum):
    RED = jnp.float32


class Act:
    """An activation as an object."""

    def __init__(self, slope: Any):
        self.slope = slope

    def __call__(self, x: Any) -> Any:
        return x * self.slope


def param(*values: float) -> nnx.Param:
    return nnx.Param(jnp.array(values or (1.0, 2.0)))


class Row(NamedTuple):
    """A value of an attribute.

    Attributes:
      make: makes it.
      leaves: how many leaves it has.
      change: changes it in place, where a change inside a transform is to come out.
      is_copied: whether copies of the model have one of their own.
    """

    make: Callable[[], Any]
    leaves: int = 0
    change: Callable[[Any], Any] | None = None
    is_copied: bool = True


def static(make: Callable[[], Any]) -> Row:
    """A value that is static as a whole: all copies share it."""
    return Row(make, is_copied=False)


def _put(key: str, value: Any) -> Callable[[Any], None]:
    return lambda x: x.__setitem__(key, value)


def _set(name: str, value: Any) -> Callable[[Any], None]:
    return lambda x: object.__setattr__(x, name, value)


def _double(x: Any) -> None:
    x.mean[...] = x.mean[...] * 2.0


one = functools.partial(jnp.ones, 2)
ROWS: dict[str, Row] = {
    # containers of Python, as nodes
    "list": Row(lambda: [1, ["a"]], 0, lambda x: x[1].append("b")),
    "list of data": Row(lambda: [param(), one(), "text"], 2, lambda x: x.append(3)),
    "dict": Row(lambda: {"b": 1, "a": {"c": 2}}, 0, _put("d", 3)),
    "dict of data": Row(lambda: {"b": param(), "a": 1}, 1, _put("a", 2)),
    "OrderedDict": Row(
        lambda: collections.OrderedDict(b=1, a=one()), 1, lambda x: x.move_to_end("b")
    ),
    "defaultdict": Row(
        lambda: collections.defaultdict(list, b=[one()]), 1, lambda x: x["new"].append(1)
    ),
    "set": Row(lambda: {1, "a"}, 0, lambda x: x.add(2)),
    "deque": Row(lambda: collections.deque([1, 2], 2), 0, lambda x: x.append(3)),
    "deque of data": Row(lambda: collections.deque([param(), one()]), 2, lambda x: x.rotate()),
    "namespace": Row(lambda: types.SimpleNamespace(a=1, b=[2]), 0, _set("a", 2)),
    "namespace of data": Row(lambda: types.SimpleNamespace(w=param(), n=1), 1, _set("n", 2)),
    "UserDict": Row(lambda: collections.UserDict(a=param()), 1, _put("b", 1)),
    "UserList": Row(lambda: collections.UserList([param()]), 1, lambda x: x.append(1)),
    "ChainMap": Row(lambda: collections.ChainMap({"a": param()}, {"b": 1}), 1, _put("c", 1)),
    # subclasses
    "Counter": Row(lambda: collections.Counter("aab"), 0, lambda x: x.update("b")),
    "AttrDict": Row(lambda: AttrDict(scale=2.0, deep=AttrDict(a=1)), 0, _put("scale", 3.0)),
    "AttrDict of data": Row(lambda: AttrDict(w=param(), x=one()), 2, _put("w", 3.0)),
    "NoneDict": Row(lambda: NoneDict(a=1), 0, _put("b", 2)),
    "NoneDict of data": Row(lambda: NoneDict(w=param()), 1, _put("b", 2)),
    "MakingDict": Row(lambda: MakingDict(a=1), 0, lambda x: x.deep.deeper),
    "MakingDict of data": Row(lambda: MakingDict(a=param()), 1, lambda x: x.deep.deeper),
    "TwiceDict": Row(lambda: TwiceDict(a=1), 0, lambda x: setattr(x, "a", 2)),
    "TwiceDict of data": Row(lambda: TwiceDict(w=param()), 1, lambda x: setattr(x, "a", 2)),
    "OwnDict": Row(lambda: OwnDict(a=1), 0, lambda x: setattr(x, "a", 2)),
    "OwnDict of data": Row(lambda: OwnDict(w=param(), x=one()), 2, _put("a", 2)),
    "Tracked": Row(lambda: Tracked("me"), 0, _put("a", 2)),
    "Tracked with data": Row(lambda: Tracked("me", a=one()), 1, _put("a", 2)),
    "Locked": Row(lambda: Locked({"a": 1}, "why"), 0, lambda x: dict.update(x, b=1)),
    "Locked with data": Row(lambda: Locked({"b": 2, "a": one()}, "why"), 1, _set("reason", "no")),
    "Linked": Row(lambda: linked(1), 0, lambda x: x["inner"].parent.update(a=2)),
    "Ordered": Row(lambda: Ordered(b=1, a=param()), 1, lambda x: x.move_to_end("b")),
    "Default": Row(lambda: Default(a=[1]), 0, lambda x: x["b"].append(1)),
    "Default with data": Row(lambda: Default(a=[param()]), 1, _set("label", "y")),
    "Chain": Row(lambda: Chain("c", [1]), 0, lambda x: x.append(2)),
    "Chain of data": Row(lambda: Chain("c", [param(), one()]), 2, lambda x: x.append(2)),
    "Names": Row(lambda: Names({"A"}), 0, lambda x: x.add("b")),
    "Recent": Row(lambda: Recent([1, 2], 2), 0, lambda x: x.append(3)),
    "Recent with data": Row(lambda: Recent([param()], 2), 1, _set("label", "s")),
    "Space": Row(lambda: Space(a=param()), 1, _set("extra", 1)),
    # values
    "tuple": Row(lambda: (1, [one()]), 1, lambda x: x[1].append(1)),
    "Sized": Row(lambda: Sized(one(), 1, unit="m"), 1),
    "Sized without data": static(lambda: Sized(1, unit="m")),
    "named tuple": Row(lambda: Pair(param(), 1), 1),
    "Twins": Row(lambda: Twins(one()), 2),
    "struct_time": static(lambda: time.gmtime(0)),
    "mappingproxy": static(lambda: types.MappingProxyType({"a": 1})),
    "mappingproxy of data": Row(lambda: types.MappingProxyType({"b": param(), "a": 1}), 1),
    "frozenset": static(lambda: frozenset({1, "a"})),
    # classes that list their fields
    "dataclass": static(lambda: Stats(1)),
    "dataclass with data": Row(lambda: Stats(param()), 1, _set("name", "new")),
    "dataclass with an array": Row(lambda: Stats(one()), 1, _set("name", "new")),
    "dataclass with more": Row(lambda: Stats([Stats(param())]), 1, _set("other", one())),
    "Frozen": Row(lambda: Frozen(param()), 1, _double),
    "Slotted": Row(lambda: Slotted(param()), 1, _set("name", "new")),
    "Affine": Row(lambda: Affine(param()), 1, _set("name", "new")),
    "Affine with an array": static(lambda: Affine(np.ones(2))),
    "Attrs": Row(lambda: Attrs(param()), 1, _double),
    "Attrs without data": static(lambda: Attrs(1)),
    "Pydantic": Row(lambda: Pydantic(mean=param(), n=[1]), 1, lambda x: x.n.append(1)),
    # static, whatever is in it
    "object": static(lambda: Plain(a=1)),
    "object with an array": static(lambda: Plain(history=[np.ones(2)])),
    "enum": static(lambda: Color.RED),
    "callable": static(lambda: Act(param())),
    "partial": static(lambda: functools.partial(jnp.sum, axis=0)),
    "partial with data": static(lambda: functools.partial(jnp.dot, one())),
    "method": static(lambda: Act(param()).__call__),
    "texts": static(lambda: np.array(["a", "b"])),
    "objects": static(lambda: np.array([None, "b"], dtype=object)),
    "dates": static(lambda: np.array(["2020-01-01"], dtype="datetime64[D]")),
    "records": static(lambda: np.array([(1, 2.0)], dtype=[("a", int), ("b", float)])),
    "bfloat16": Row(lambda: np.ones(2, ml_dtypes.bfloat16), 1),
    "numbers marked as data": Row(lambda: nnx.data({"flag": True, "n": 2, "w": one()}), 1),
    "number marked as data": Row(lambda: nnx.data(2.0), 1),
    "text marked as data": static(lambda: nnx.data("text")),
}


def contents(value: Any) -> Any:
    """Says everything about a value, in terms that compare by `==`."""
    numbers: dict[int, int] = {}

    def visit(x: Any) -> Any:
        if isinstance(x, (jax.Array, np.ndarray)) and x.dtype != object:
            return (str(x.dtype), np.asarray(x).tolist())
        if isinstance(x, (bool, int, float, str, type(None), type, types.FunctionType)):
            return x
        if id(x) in numbers:
            return f"#{numbers[id(x)]}"
        numbers[id(x)] = len(numbers)
        if isinstance(x, nnx.Variable):
            return (type(x), visit(x.get_raw_value()))
        return (type(x), [visit(part) for part in _parts(x)], _own(x, visit))

    return visit(value)


def _parts(x: Any) -> Any:
    for kind, read in _READ:
        if isinstance(x, kind):
            return read(x)
    return []


_READ: list[tuple[Any, Callable[[Any], Any]]] = [
    (collections.OrderedDict, lambda x: [*sum(collections.OrderedDict.items(x), ())]),
    (dict, lambda x: [*sum(dict.items(x), ()), getattr(dict, "default_factory", None)]),
    (collections.deque, lambda x: [*collections.deque.__iter__(x), x.maxlen]),
    (list, list.__iter__),
    (tuple, tuple.__iter__),
    ((set, frozenset), lambda x: sorted(x, key=str)),
    (types.MappingProxyType, lambda x: [*sum(x.items(), ())]),
    (np.ndarray, lambda x: x.tolist()),
    (functools.partial, lambda x: [x.func, x.args, x.keywords]),
    (types.MethodType, lambda x: [x.__func__, x.__self__]),
]


def _own(x: Any, visit: Callable[[Any], Any]) -> Any:
    """Says what attributes an object has, in its dict and in slots."""
    found = {}
    for name in [n for base in type(x).__mro__ for n in vars(base).get("__slots__", ())]:
        if not name.startswith("__weak") and hasattr(type(x), name) and name != "__dict__":
            try:
                found[name] = object.__getattribute__(x, name)
            except AttributeError:
                continue
    try:
        own = object.__getattribute__(x, "__dict__")
    except AttributeError:
        own = {}
    if own is x:
        return "itself"
    if isinstance(x, (functools.partial, enum.Enum)):
        return None
    return [(name, visit(part)) for name, part in sorted({**own, **found}.items())]
