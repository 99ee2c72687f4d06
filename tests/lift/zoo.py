"""A graph that holds everything a graph may hold, and how to look at it.

What looks at it does so without the help of the walk, and unnoticed: nothing is exposed or opened.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import types
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import weft as nnx
from tests.lift.donated import peek
from weft._graph.walk import items_of
from weft._object.pytree import Pytree, attributes


class Pair(NamedTuple):
    first: Any
    second: Any


@jax.tree_util.register_pytree_node_class
class Foreign:
    """A mutable pytree of another library."""

    def __init__(self, value: Any, tag: str):
        self.value, self.tag = value, tag

    def tree_flatten(self) -> Any:
        return (self.value,), self.tag

    @classmethod
    def tree_unflatten(cls, tag: str, children: Any) -> Foreign:
        return cls(children[0], tag)


@dataclasses.dataclass
class Config:
    rate: float
    sizes: list[int]


@dataclasses.dataclass(unsafe_hash=True)
class Hashed:
    rate: float


@dataclasses.dataclass(frozen=True)
class Frozen:
    inner: Config


class Loose:
    """A config without content equality but unhashable: compared by its attributes."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self) -> None:
        self.depth = 1


class Opaque:
    """An object that equals only itself."""

    def __init__(self) -> None:
        self.depth = 1
        self.inner = types.SimpleNamespace(sizes=[1])


class Slotted:
    """Unhashable, with slots, and more of them in a subclass."""

    __slots__ = ("depth",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self) -> None:
        self.depth = 1


class MoreSlots(Slotted):
    __slots__ = ("sizes",)

    def __init__(self) -> None:
        super().__init__()
        self.sizes = [1]


def scaled(x: Any) -> Any:
    return x * 2.0


def power(x: Any, exponents: Any) -> Any:
    return x


class Tag(nnx.Variable):
    pass


class Leaf(nnx.Module):
    def __init__(self) -> None:
        self.weight = nnx.Param(jnp.arange(2.0))
        self.scale = 1

    def apply(self, x: Any) -> Any:
        return x * self.scale


class OtherLeaf(Leaf):
    pass


class Guarded(Leaf):
    """A class whose `__setattr__` goes past that of Weft."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "forbidden":
            raise ValueError(name)
        object.__setattr__(self, name, value)


class Describes:
    """A mixin that comes before Module, with a `__dict__` of its own."""


class Described(Describes, Leaf):
    pass


class AttrDict(dict):
    """The common dict with attributes: it finds whatever it is asked for, or raises KeyError."""

    __getattr__ = dict.__getitem__
    __setattr__ = dict.__setitem__


class Tracked(list):
    """A list with an attribute, and mutators of its own that do more."""

    def __init__(self, *items: Any) -> None:
        super().__init__(items)
        self.changes = 0

    def append(self, item: Any) -> None:
        self.changes += 1
        super().append(item)

    def __setitem__(self, index: Any, item: Any) -> None:
        self.changes += 1
        super().__setitem__(index, item)


class Zoo(nnx.Module):
    def __init__(self) -> None:
        self.weight = nnx.Param(jnp.ones(2), axes=["a"], hook=scaled)
        self.array = jnp.zeros(2)
        self.numpy = np.zeros(2, np.float32)
        self.size = 3
        self.guarded = Guarded()
        self.described = Described()
        self.layers = [Leaf(), Leaf()]
        self.table = {"a": Leaf(), "b": nnx.Param(jnp.ones(1))}
        self.pair = Pair([Leaf()], {"x": nnx.Param(jnp.ones(1))})
        self.marked = nnx.data({"n": jnp.zeros(()), "deep": {"k": [jnp.ones(1)]}})
        self.names = {"u", "v"}
        self.plain = {"sizes": [1, 2], "deep": ({"k": 1},)}
        self.config = Config(0.1, [1, 2])
        self.hashed = Hashed(0.1)
        self.frozen = Frozen(Config(0.1, []))
        self.loose = Loose()
        self.foreign = Foreign(Leaf(), "tag")
        self.state = nnx.State({"a": {"b": nnx.Param(jnp.ones(1))}, "c": jnp.ones(1)})
        self.list = nnx.List([Leaf()])
        self.dict = nnx.Dict(a=Leaf())
        self.partial = functools.partial(power, exponents=[1])
        self.function = scaled
        self.schedule = optax.cosine_decay_schedule(0.1, 10)
        self.opaque = Opaque()
        self.slotted = MoreSlots()
        self.space = types.SimpleNamespace(rate=1)
        self.recent = nnx.static(collections.deque([1, 2]))
        self.counts = nnx.static(collections.Counter("ab"))
        self.settings = AttrDict(rate=1, sizes=[1])
        self.heads = AttrDict(a=Leaf())
        self.tracked = Tracked(Leaf(), 1)
        self.tracked_numbers = Tracked(1, 2)
        self.buffer = collections.deque([jnp.ones(1)], maxlen=3)
        self.method = self.layers[0].apply
        self.tree = nnx.Variable({"a": jnp.ones(1), "b": (jnp.ones(1),)})
        self.fixed = nnx.static(jnp.arange(2))
        self.constants = nnx.static(np.arange(2))
        self.default = collections.defaultdict(list, {"a": [Leaf()]})


def look(*roots: Any, in_partial: bool = False) -> tuple[list[Any], str]:
    """Returns the arrays of a graph in order, and a text that says everything else about it."""
    arrays: list[Any] = []
    numbers: dict[int, int] = {}

    def visit(x: Any) -> str:
        if isinstance(x, (jax.Array, np.ndarray)):
            arrays.append(x)
            return f"{x.dtype}{x.shape}"
        if in_partial and isinstance(x, functools.partial):  # it may hold itself
            return "partial"
        if isinstance(x, (Pytree, nnx.Variable, list, dict, set)):
            if id(x) in numbers:
                return f"#{numbers[id(x)]}"
            numbers[id(x)] = len(numbers)
        for kinds, text in _TEXTS:
            if isinstance(x, kinds):
                return f"{type(x).__name__}({text(x, visit)})"
        return repr(x)

    return arrays, _all(roots, visit)


def _all(parts: Any, visit: Callable[[Any], str]) -> str:
    return ", ".join([visit(part) for part in parts])


def _variable_text(x: Any, visit: Callable[[Any], str]) -> str:
    leaves, treedef = jax.tree.flatten(peek(x))
    return f"{_all(leaves, visit)}, {treedef}, {_all(sorted(x._metadata.items()), visit)}"


def _dict_text(x: Any, visit: Callable[[Any], str]) -> str:
    pairs = sorted(x.items(), key=lambda pair: str(pair[0]))
    factory = x.default_factory if isinstance(x, collections.defaultdict) else None
    return f"{tuple(x)}, {_all(pairs, visit)}, {factory}"


def _state_text(x: dict[Any, Any], visit: Callable[[Any], str]) -> str:
    levels = [
        f"{k}: {_state_text(v, visit) if type(v) is dict else visit(v)}"
        for k, v in sorted(x.items(), key=lambda pair: str(pair[0]))
    ]
    return ", ".join(levels)


def _partial_text(x: Any, visit: Callable[[Any], str]) -> str:
    # A partial is a value: met twice it is two, each with a dict of its own. What its containers
    # hold are constants, also where the graph has the same object.
    _, text = look(*x.keywords.values(), in_partial=True)
    return f"{_all(x.args, visit)}, {text}, {tuple(x.keywords)}"


def _attributes_text(x: Any, visit: Callable[[Any], str]) -> str:
    return _all(sorted(vars(x).items()), visit)


_TEXTS: list[tuple[Any, Callable[[Any, Callable[[Any], str]], str]]] = [
    (nnx.Variable, _variable_text),
    (Pytree, lambda x, visit: f"{_all(items_of(x), visit)}, {sorted(x._pytree_marks.items())}"),
    (nnx.State, lambda x, visit: _state_text(x._mapping, visit)),
    (dict, _dict_text),
    ((set, frozenset), lambda x, visit: str(sorted(x))),
    (Tracked, lambda x, visit: f"{_all(x, visit)}, {x.changes}"),
    ((list, tuple), _all),
    (Foreign, lambda x, visit: f"{visit(x.value)}, {x.tag}"),
    (functools.partial, _partial_text),
    (types.MethodType, lambda x, visit: f"{x.__func__.__name__}, {visit(x.__self__)}"),
    (types.FunctionType, lambda x, visit: f"{x.__name__}"),
    ((Config, Hashed, Frozen, Loose, Opaque, types.SimpleNamespace), _attributes_text),
    (MoreSlots, lambda x, visit: f"{x.depth}, {visit(x.sizes)}"),
    (collections.deque, _all),
]


def fingerprint(text: str) -> int:
    return zlib.crc32(text.encode())


def describe(*roots: Any) -> Any:
    """Returns the arrays of a graph and, as a number, all else about it."""
    arrays, text = look(*roots)
    return [jnp.asarray(x) for x in arrays], jnp.asarray(np.uint32(fingerprint(text)))


def shaped(*roots: Any) -> Any:
    """Returns an array whose shape says what is in a graph: to see it, nothing has to be run."""
    arrays, text = look(*roots)
    return jnp.zeros((len(arrays), fingerprint(text) % 9973), jnp.int8)


def shaped_in_turn(roots: Any, x: Any) -> Any:
    return roots, shaped(*roots)


def bump(root: Any) -> Any:
    """Writes every Variable, an array attribute and static attributes, one of them new."""
    for _, variable in nnx.iter_graph(root):
        if isinstance(variable, nnx.Variable):
            variable.set_raw_value(jax.tree.map(lambda x: x + 1, variable.get_raw_value()))
    if isinstance(attributes(root).get("array"), jax.Array):
        root.array = root.array + 1
    if type(attributes(root).get("size")) is int:
        root.size = (root.size + 1) % 3
    root.made, root.again = Config(0.5, [1]), attributes(root).get("config")
    return jnp.zeros(())


def nodes(*roots: Any) -> list[Any]:
    """Returns everything in a graph that can be changed in place."""
    found: dict[int, Any] = {}
    seen: dict[int, Any] = {}
    todo = list(roots)
    while todo:
        x = todo.pop()
        if id(x) in seen:
            continue
        seen[id(x)] = x
        if isinstance(x, _MUTABLE):
            found[id(x)] = x
        for kinds, below in _BELOW:
            if isinstance(x, kinds):
                todo.extend(below(x))
                break
    return list(found.values())


_MUTABLE = (
    *(nnx.Variable, Pytree, nnx.State, dict, list, set),
    *(Config, Hashed, Loose, Foreign, Opaque, MoreSlots, types.SimpleNamespace),
    *(functools.partial, collections.deque),
)
_BELOW: list[tuple[Any, Callable[[Any], Any]]] = [
    (nnx.Variable, lambda x: ()),
    (Pytree, lambda x: [child for _, child in items_of(x)]),
    (nnx.State, lambda x: nnx.to_flat_state(x).leaves),
    (dict, lambda x: x.values()),
    ((list, tuple), list),
    (Foreign, lambda x: [x.value]),
    (functools.partial, lambda x: x.keywords.values()),
    (Frozen, lambda x: [x.inner]),
    ((Opaque, types.SimpleNamespace), lambda x: vars(x).values()),
    (types.MethodType, lambda x: [x.__self__]),
]


def refresh(x: list, name: str, new: Any) -> None:
    """Replaces an element such that the new one may get the address of the old one."""
    if x:
        x[0] = None
        x[0] = Leaf()
