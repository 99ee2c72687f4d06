"""Saving weights under the names of others, for PyTorch and what reads its files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath
from typing import Any

import numpy as np

from weft._core.errors import StructureError
from weft._core.path import Path, format_path
from weft._core.tracebacks import boundary
from weft._saving.collect import check_value
from weft._saving.dtypes import FORMAT_NAMES
from weft._saving.index import INDEX
from weft._saving.leaves import Objects
from weft._saving.replacing import replacing
from weft._saving.save import on_host
from weft._saving.tensor_file import write_arrays
from weft.tools.weights.layout import Layout, Slot
from weft.tools.weights.links import Link, zeros
from weft.tools.weights.rules import Rule, Rules, check_invertible, covers, parse_rules

_ROOT, _METADATA = "model", {"format": "pt"}
_ALONE = 1_000_000  # deeper than any object: the path is that of one weight


@boundary
def save_weights(
    model: Any,
    path: str | os.PathLike[str],
    rules: Rules | None = None,
    *,
    max_shard_size: int | None = None,
) -> None:
    """Writes the weights of a model to a safetensors file that PyTorch and others read.

    The inverse of `nnx.load_weights`, by the same rules: every array gets the name and the layout
    that it has there. What is shared is written once, unless rules have two names for it. What
    rules lead to None is not written.

    Args:
      model: an object or a container of objects.
      path: a file, `model.safetensors`, or a folder, which gets a file of this name. A file that
        is there already is replaced as a whole.
      rules: as for `nnx.load_weights`.
      max_shard_size: for a folder, how many bytes of arrays a file may have: then there are
        several and an index, as large models have them.

    Raises:
      ValueError: for a rule that cannot be inverted; for arrays that were donated, or of which
        parts are on other hosts.
      StructureError: if rules give two weights one name, or lead to what the model does not have.
      TypeError: for an abstract model, and for dtypes that the format does not have.
      OSError: if a file cannot be written.

    Example:
      >>> import pathlib, tempfile
      >>> import weft as nnx
      >>> file = pathlib.Path(tempfile.mkdtemp(), "model.safetensors")
      >>> model = nnx.Sequential(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), nnx.relu)
      >>> nnx.save_weights(model, file)
      >>> {name: array.shape for name, array in nnx.load(file).items()}
      {'0.bias': (3,), '0.weight': (3, 2)}
    """
    parsed = parse_rules(rules)
    check_invertible(parsed)
    named = _Namer(Layout(model), parsed).links()
    leaves = Objects({_ROOT: model}).leaves
    for leaf in {slot.leaf for link in named.values() for slot in link.slots}:
        check_value(format_path(leaf), leaves[(_ROOT, *leaf)])
    file = FilePath(path)
    if file.suffix == ".safetensors" and max_shard_size is not None:
        raise ValueError(
            f"{file} is one file, and max_shard_size={max_shard_size} may need several: name a "
            f"folder, `nnx.save_weights(model, {str(file.parent)!r}, ...)`"
        )
    if file.suffix == ".safetensors":
        _write(file, named, leaves)
        return
    file.mkdir(parents=True, exist_ok=True)
    shards = _shards(named, max_shard_size)
    if len(shards) == 1:
        _write(file / "model.safetensors", named, leaves)
        return
    places = {}
    for i, shard in enumerate(shards, 1):
        name = f"model-{i:05}-of-{len(shards):05}.safetensors"
        _write(file / name, shard, leaves)
        places.update(dict.fromkeys(shard, name))
    index = {
        "metadata": {"total_size": sum(map(_size, named.values()))},
        "weight_map": dict(sorted(places.items())),
    }
    with replacing(file / f"model{INDEX}") as part:
        part.write_text(json.dumps(index, indent=2), encoding="utf-8")


Named = dict[str, Link]
"""By the name of each array the link that it is made by."""


def _shards(named: Named, limit: int | None) -> list[Named]:
    """Parts arrays into files of so many bytes; those of one link stay together."""
    shards: list[Named] = [{}]
    size, last = 0, None
    for name, link in named.items():
        if link is not last:
            size += _size(link)
            if limit is not None and shards[-1] and size > limit:
                shards.append({})
                size = _size(link)
        shards[-1][name] = last = link
    return shards


def _size(link: Link) -> int:
    return sum(zeros(slot.shape, slot.dtype).nbytes for slot in link.slots)


def _write(file: FilePath, named: Named, leaves: Mapping[Path, Any]) -> None:
    arrays: dict[str, np.ndarray] = {}
    hosted: dict[Path, np.ndarray] = {}
    for link in {id(link): link for link in named.values()}.values():
        made = link.save([_weight(slot, leaves, hosted) for slot in link.slots])
        for name, array in zip(link.sources, made, strict=True):
            assert name is not None
            if array.dtype.name not in FORMAT_NAMES:
                raise TypeError(
                    f"cannot save {format_path(link.slots[0].address)}: safetensors has no "
                    f"{array.dtype}; cast it, `x.astype(jnp.float32)`"
                )
            arrays[name] = array
    with replacing(file) as part:
        write_arrays(part, {name: arrays[name] for name in named}, _METADATA)


def _weight(slot: Slot, leaves: Mapping[Path, Any], hosted: dict[Path, np.ndarray]) -> np.ndarray:
    if slot.leaf not in hosted:
        array = on_host(slot.leaf, leaves[(_ROOT, *slot.leaf)])
        assert array is not None
        hosted[slot.leaf] = array
    return hosted[slot.leaf][slot.index]


class _Namer:
    """Finds the names that rules and layers give to weights.

    Args:
      layout: the weights of the model.
      rules: the rules, which can be inverted.
    """

    def __init__(self, layout: Layout, rules: list[Rule]):
        self._layout = layout
        self._rules = rules
        self._named: Named = {}
        self._covered: set[Any] = set()

    def links(self) -> Named:
        """Returns by name how each array is made.

        Raises:
          StructureError: if two have one name, or a rule leads nowhere.
        """
        left = [pattern for rule in self._rules if not rule.sources for pattern in rule.targets]
        for slot in self._layout.wanted.values():
            if any(covers(pattern, slot.address) for pattern in left):
                self._covered.add(slot.key)
        found = [link for rule in self._rules for link in self._links_of(rule)]
        # What is named alone is not named with all around it, a layer not with what it is in.
        for link, depth in sorted(found, key=lambda pair: -pair[1]):
            self._add(link, always=depth == _ALONE)
        for name, entry in self._layout.entries.items():
            if entry.names[0] == name and any(x.key in self._layout.wanted for x in entry.slots):
                self._add(Link(list(entry.names), (entry,)), always=False)
        return dict(sorted(self._named.items()))

    def _links_of(self, rule: Rule) -> Iterator[tuple[Link, int]]:
        """Yields the links that a rule makes, and how deep the path is that it leads to."""
        if not rule.sources or not rule.targets:
            return
        done: set[Any] = set()  # a variable is met as PyTorch's name, and then as the attribute
        for link, depth in self._matches(rule):
            keys = {slot.key for slot in link.slots}
            if not keys <= done:
                done |= keys
                yield link, depth

    def _matches(self, rule: Rule) -> Iterator[tuple[Link, int]]:
        is_met, paired = False, dict[tuple[str, ...], Link]()
        for text, path in self._layout.texts.items():
            bindings = rule.targets[0].match_whole(text)
            if bindings is None:
                continue
            is_met = True
            texts = [pattern.fill(bindings) for pattern in rule.targets]
            paths = [self._layout.texts.get(text) for text in texts]
            if None in paths:
                raise StructureError(
                    f"the rule {rule} leads to {text}, and also to "
                    f"{texts[paths.index(None)]}, which is not in the model: correct the path"
                )
            is_node = path in self._layout.nodes
            depth = len(path) if is_node else _ALONE
            for rest in self._layout.below(self._layout.nodes[path]) if is_node else [""]:
                entries = [self._layout.entry_at(one, rest) for one in paths if one is not None]
                found = tuple([entry for entry in entries if entry is not None])
                if len(found) < len(paths):
                    continue
                names = [join_rest(pattern.fill(bindings), rest) for pattern in rule.sources]
                several = found[0].names
                if len(found) == len(names) == 1 and len(several) > 1:
                    link = paired.setdefault(several, Link([None] * len(several), found, rule))
                    link.sources[several.index(self._layout.name_at(path, rest))] = names[0]
                    if None not in link.sources:
                        yield link, depth
                else:
                    yield Link(list(names), found, rule), depth
        if not is_met:
            raise StructureError(
                f"the rule {rule} leads to {rule.targets[0].text}, which is not in the model: "
                "correct the path, or leave out the rule"
            )

    def _add(self, link: Link, *, always: bool) -> None:
        keys = {slot.key for slot in link.slots}
        if keys <= self._covered and not always:
            return
        names = [name for name in link.sources if name is not None]
        if any(self._is_left_out(name) for name in names):
            self._covered |= keys
            return
        for name in names:
            other = self._named.get(name)
            if other is not None:
                raise StructureError(
                    f"two weights would have the name {name!r}, {link.slots[0]} and "
                    f"{other.slots[0]}: write rules that lead to each from a name of its own"
                )
            self._named[name] = link
        self._covered |= keys

    def _is_left_out(self, name: str) -> bool:
        for rule in self._rules:
            if any(pattern.match(name) for pattern in rule.sources):
                return not rule.targets
        return False


def join_rest(name: str, rest: str) -> str:
    """Returns a name and what comes below it."""
    return ".".join([part for part in (name, rest) if part])
