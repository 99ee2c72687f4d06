"""What PyTorch would call the weights of a model, and where each of them belongs.

The *address* of a weight is its path as one writes it, in which the layers of a Stack have
numbers: `blocks[3].mlp.kernel`. A *slot* is what is at an address: a leaf of the model, or a layer
of one. An *entry* is what has a name in PyTorch, or several: one slot, or several that are one
array there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from weft._core.errors import StructureError
from weft._core.path import Own, Path, format_path
from weft._core.types import ARRAY_TYPES
from weft._graph import find_duplicates
from weft._graph.iterate import iter_graph
from weft._saving.facts import is_key
from weft._saving.leaves import leaves_in
from weft._variable.types import BatchStat, Param
from weft._variable.variable import Variable
from weft.nn.stack import Stack
from weft.nn.torch_weights import Into
from weft.tools.weights.rules import parse_path


@dataclasses.dataclass(frozen=True)
class Slot:
    """What is at an address.

    Attributes:
      address: the path, with numbers for the layers of Stacks.
      leaf: the path of the leaf in the model.
      index: which layer of it, for each Stack that it is in.
      shape: its shape.
      dtype: its dtype.
      form: how its layer says that it stands in PyTorch; None for as it is.
    """

    address: Path
    leaf: Path
    index: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: Any
    form: Into | None

    @property
    def key(self) -> tuple[Path, tuple[int, ...]]:
        """What slots have in common that are one by several addresses."""
        return self.leaf, self.index

    def __str__(self) -> str:
        return text_of(self.address)


class Entry(NamedTuple):
    """What has a name in PyTorch.

    Attributes:
      names: by which it is found; those of one that is made of several arrays are several.
      into: how the arrays become those of the slots, before their own forms; None for as they are.
      slots: where it goes.
    """

    names: tuple[str, ...]
    into: Into | None
    slots: tuple[Slot, ...]


class Layout:
    """The weights of a model by name and by address.

    Args:
      model: an object, or a container of objects; may be abstract.

    Attributes:
      slots: by address.
      nodes: the names of objects and containers, by address.
      entries: by name; first those of several slots, then those that a layer gives a name to.
      ignored: names that layers have no use for.
      texts: by their text, the paths that a rule may lead to.
      wanted: the slots, by leaf and index, that hold a `Param` or a `BatchStat`.

    Raises:
      StructureError: if a class declares `torch_weights` of what it does not have.
    """

    def __init__(self, model: Any):
        self._objects = dict(iter_graph(model))
        self._same = {path: first for first, *others in find_duplicates(model) for path in others}
        self._children: dict[Path, list[Any]] = {}
        for path in (*self._objects, *self._same):
            if path:
                self._children.setdefault(path[:-1], []).append(path[-1])
        self.slots: dict[Path, Slot] = {}
        self.nodes: dict[Path, str] = {}
        self.ignored: set[str] = set()
        self.wanted: dict[tuple[Path, tuple[int, ...]], Slot] = {}
        self._named: dict[Path, str] = {}
        self._forms: dict[Path, Into] = {}
        self._several: list[tuple[tuple[str, ...], Into, tuple[Path, ...]]] = []
        self._single: list[tuple[str, Slot]] = []
        self._declared: list[Path] = []
        self._visit((), (), (), "", ())
        self.entries = self._make_entries()
        self.texts = self._make_texts()

    def _visit(
        self, address: Path, path: Path, index: tuple[int, ...], name: str, around: tuple[Path, ...]
    ) -> None:
        """Notes what is at an address; `path` is where it is, `around` the objects it is in."""
        path = self._same.get(path, path)
        if path in around:  # a cycle
            return
        value = self._objects[path]
        if path not in self._children:
            self._note_leaves(address, path, index, name, value)
            return
        self.nodes[address] = name
        self._note_declared(address, value, name)
        for key in self._children[path]:
            below, around_it = (*path, key), (*around, path)
            if isinstance(value, Stack) and key == "stacked":
                for i in range(value.n):
                    own = join(name, i)
                    self._visit((*address, i), below, (*index, i), own, around_it)
            else:
                own = self._named.get((*address, key)) or join(name, key)
                self._visit((*address, key), below, index, own, around_it)

    def _note_leaves(
        self, address: Path, path: Path, index: tuple[int, ...], name: str, value: Any
    ) -> None:
        form = self._forms.get(address)
        for inner, raw in leaves_in([((), value)]):
            if not hasattr(raw, "dtype") or is_key(raw):
                continue
            shape = tuple(raw.shape[len(index) :])
            slot = Slot((*address, *inner), (*path, *inner), index, shape, raw.dtype, form)
            self.slots[slot.address] = slot
            self._single.append((join(name, *inner), slot))
            if isinstance(value, (Param, BatchStat)):
                self.wanted.setdefault(slot.key, slot)

    def _note_declared(self, address: Path, node: Any, name: str) -> None:
        table = getattr(node, "torch_weights", None)
        if isinstance(node, (Variable, Mapping)) or not isinstance(table, Mapping):
            return
        for given, target in table.items():
            names = (given,) if isinstance(given, str) else tuple(given)
            full = tuple([join(name, one) for one in names])
            if target is None:
                self.ignored.update(full)
                continue
            into = target if isinstance(target, Into) else Into(target)
            paths = tuple(map(parse_path, into.targets))
            found = [_look_up(node, path, names[0]) for path in paths]
            if any(value is None for value in found):  # a layer without a bias
                continue
            addresses = tuple([(*address, *path) for path in paths])
            is_own = _is_leaf(found[0]) and len(paths[0]) == 1
            if len(paths) == len(names) == 1 and (is_own or not _is_leaf(found[0])):
                self._named[addresses[0]] = full[0]
                if is_own:
                    self._forms[addresses[0]] = into
                    self._declared.append((*address, *names[0].split(".")))
            else:
                self._several.append((full, into, addresses))
                self._declared += [(*address, *one.split(".")) for one in names]

    def _make_entries(self) -> dict[str, Entry]:
        found: dict[str, Entry] = {}
        for names, into, addresses in self._several:
            slots = tuple([self.slots[address] for address in addresses])
            for name in names:
                found.setdefault(name, Entry(names, into, slots))
        for name, slot in sorted(self._single, key=lambda pair: pair[1].form is None):
            found.setdefault(name, Entry((name,), None, (slot,)))
        return found

    def _make_texts(self) -> dict[str, Path]:
        """Returns by its text what a rule may lead to: names in layers, objects and weights."""
        return {text_of(path): path for path in (*self._declared, *self.nodes, *self.slots)}

    def name_at(self, path: Path, rest: str = "") -> str:
        """Returns the name of what is at an address, or below it by the name `rest`.

        The last keys of the address may be a name that a layer declares.
        """
        size = next(n for n in range(len(path), -1, -1) if path[:n] in self.nodes)
        return join(self.nodes[path[:size]], *path[size:], rest)

    def entry_at(self, path: Path, rest: str = "") -> Entry | None:
        """Returns what is at an address, or below it by a name; None if there is nothing."""
        slot = self.slots.get(path)
        if slot is not None:
            return None if rest else Entry((str(slot),), None, (slot,))
        return self.entries.get(self.name_at(path, rest))

    def beyond(self, path: Path) -> str:
        """Says of a path how many there are where it goes beyond them; empty if it does not."""
        for size in range(len(path)):
            start, key = path[:size], path[size]
            if start in self.nodes and type(key) is int and path[: size + 1] not in self.nodes:
                last = {x[size] for x in self.nodes if len(x) == size + 1 and x[:size] == start}
                numbers = [x for x in last if type(x) is int]
                if numbers:
                    return f"{text_of(start) or 'the model'} has {len(numbers)}"
        return ""

    def below(self, name: str) -> list[str]:
        """Returns the names of weights that begin with that of an object, without it."""
        start = f"{name}." if name else ""
        return [
            other[len(start) :]
            for other, entry in self.entries.items()
            if other.startswith(start) and any(slot.key in self.wanted for slot in entry.slots)
        ]


def join(*keys: Any) -> str:
    """Returns keys joined by dots; empty ones are left out."""
    return ".".join([str(x) for key in keys if (x := key.name if type(key) is Own else key) != ""])


def text_of(address: Path) -> str:
    """Returns an address as a rule has it; that of the model is empty."""
    return format_path(address) if address else ""


def _is_leaf(value: Any) -> bool:
    return isinstance(value, (Variable, *ARRAY_TYPES))


def _look_up(node: Any, path: Path, name: str) -> Any:
    value = node
    for key in path:
        try:
            value = value[key] if type(key) is int else getattr(value, key)
        except (AttributeError, LookupError) as error:
            raise StructureError(
                f"{type(node).__name__}.torch_weights has {name!r} for {format_path(path)}, and "
                f"there is no {format_path((key,))}: name attributes of the layer, "
                '`{"weight": "kernel"}`'
            ) from error
        if value is None:
            return None
    return value
