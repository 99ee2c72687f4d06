"""What weights are called in files: the names that rules and layers give to them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from weft._core.errors import StructureError
from weft._core.path import Path
from weft.tools.weights.layout import Layout, Slot
from weft.tools.weights.links import Link
from weft.tools.weights.rules import Rule, covers

Named = dict[str, Link]
"""By the name of each array the link that it is made by."""

_ALONE = 1_000_000  # deeper than any object: the path is that of one weight


class Namer:
    """Finds the names that rules and layers give to weights.

    Args:
      layout: the weights of the model.
      rules: the rules, whose names can be made of the paths that they lead to.
      strict: whether to raise for rules that lead nowhere, or to one name twice; else such names
        are left out.
    """

    def __init__(self, layout: Layout, rules: list[Rule], *, strict: bool = True):
        self._layout = layout
        self._rules = rules
        self._strict = strict
        self._named: Named = {}
        self._covered: dict[Any, Path] = {}

    def links(self) -> Named:
        """Returns by name how each array is made.

        Raises:
          StructureError: if two have one name, or a rule leads nowhere.
        """
        left = [pattern for rule in self._rules if not rule.sources for pattern in rule.targets]
        for slot in self._layout.wanted.values():
            if any(covers(pattern, slot.address) for pattern in left):
                self._covered[slot.key] = slot.address
        found = [link for rule in self._rules for link in self._links_of(rule)]
        # What is named alone is not named with all around it, a layer not with what it is in.
        for link, depth in sorted(found, key=lambda pair: -pair[1]):
            self._add(link, depth)
        for name, entry in self._layout.entries.items():
            if entry.names[0] == name and any(x.key in self._layout.wanted for x in entry.slots):
                self._add(Link(list(entry.names), (entry,)), 0)
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
                if not self._strict:
                    continue
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
        if not is_met and self._strict:
            raise StructureError(
                f"the rule {rule} leads to {rule.targets[0].text}, which is not in the model: "
                "correct the path, or leave out the rule"
            )

    def _add(self, link: Link, depth: int) -> None:
        """Notes the names of a link, unless its weights have some already.

        Args:
          link: the link.
          depth: how long the path is that its rule leads to.
        """
        if all(self._has_name(slot, depth) for slot in link.slots):
            return
        covered = {slot.key: slot.address for slot in link.slots}
        names = [name for name in link.sources if name is not None]
        if any(self._is_left_out(name) for name in names):
            self._covered.update(covered)
            return
        for name in names:
            other = self._named.get(name)
            if other is not None and not self._strict:
                return
            if other is not None:
                raise StructureError(
                    f"two weights would have the name {name!r}, {link.slots[0]} and "
                    f"{other.slots[0]}: write rules that lead to each from a name of its own"
                )
            self._named[name] = link
        self._covered.update(covered)

    def _has_name(self, slot: Slot, depth: int) -> bool:
        """Says whether a weight has a name already, so that one by a path so long is no other.

        What is shared has one by each address that rules lead to, but for those within one object.
        """
        known = self._covered.get(slot.key)
        if known is None or depth == _ALONE:
            return False
        return known[:depth] == slot.address[:depth]

    def _is_left_out(self, name: str) -> bool:
        for rule in self._rules:
            if any(pattern.match(name) for pattern in rule.sources):
                return not rule.targets
        return False


def join_rest(name: str, rest: str) -> str:
    """Returns a name and what comes below it."""
    return ".".join([part for part in (name, rest) if part])
