"""The plan of a load: all links between the arrays of a source and the weights of a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from weft.tools.weights.layout import Entry, Layout, Slot
from weft.tools.weights.links import Link, zeros
from weft.tools.weights.report import (
    IGNORED,
    MATCHED,
    MISFIT,
    MISSING,
    UNEXPECTED,
    WRONG,
    Suggestions,
    WeightRow,
    joined,
)
from weft.tools.weights.rules import Rule, covers, parse_path
from weft.tools.weights.source import Aval

_KINDS = (jnp.bool_, jnp.integer, jnp.floating, jnp.complexfloating)


@dataclasses.dataclass
class Plan:
    """What goes where.

    Attributes:
      links: those that fit.
      rows: of the report.
      twice: pairs of links that lead to the same weight, and have to be equal there.
    """

    links: list[Link] = dataclasses.field(default_factory=list)
    rows: list[WeightRow] = dataclasses.field(default_factory=list)
    twice: list[tuple[Link, Link, Slot]] = dataclasses.field(default_factory=list)


class Planner:
    """Finds links.

    Args:
      layout: the weights of the model.
      avals: what is known of the arrays of the source, by name.
      rules: which names are which paths.
      dtype: what floats become; None for the dtypes of the model.
    """

    def __init__(
        self, layout: Layout, avals: Mapping[str, Aval], rules: list[Rule], dtype: Any = None
    ):
        self._layout = layout
        self._avals = avals
        self._rules = rules
        self._dtype = dtype
        self._links: dict[Any, Link] = {}
        self._plan = Plan()
        self._used: set[int] = set()
        self._strays: list[tuple[str, str]] = []

    def plan(self) -> Plan:
        """Returns the plan."""
        for name in self._avals:
            self._place(name)
        self._check_links()
        self._note_missing()
        self._note_strays()
        self._check_rules()
        return self._plan

    def _place(self, name: str) -> None:
        """Finds what an array is in the model, and notes it in a link."""
        for rule in self._rules:
            for position, pattern in enumerate(rule.sources):
                found = pattern.match(name)
                if found is not None:
                    self._used.add(rule.number)
                    self._place_by(rule, position, name, *found)
                    return
        entry = self._layout.entries.get(name)
        if entry is not None:
            link = self._link((None, entry.names), (entry,), None, len(entry.names))
            link.sources[entry.names.index(name)] = name
        elif name in self._layout.ignored:
            self._note(IGNORED, name)
        else:
            self._strays.append((name, ""))

    def _place_by(self, rule: Rule, position: int, name: str, bindings: Any, rest: str) -> None:
        if not rule.targets:
            self._note(IGNORED, name)
            return
        texts = [pattern.fill(bindings) for pattern in rule.targets]
        paths = list(map(parse_path, texts))
        entries = [self._layout.entry_at(path, rest) for path in paths]
        if None in entries:
            missing = entries.index(None)
            if self._layout.name_at(paths[missing], rest) in self._layout.ignored:
                self._note(IGNORED, name)
            else:
                self._strays.append((name, self._why_nowhere(rule, texts[missing], rest)))
            return
        found = tuple([entry for entry in entries if entry is not None])
        several, first = max([len(entry.names) for entry in found]), found[0]
        key, count = (rule.number, bindings, rest), len(rule.sources)
        if several > 1:
            if len(found) > 1 or count > 1 or rule.into.load is not None:
                text = f"the layer joins {several} arrays there, and the rule {rule} does as well"
                self._note(WRONG, name, texts[0], note=f"{text}: write a rule for each weight")
                return
            own = self._layout.name_at(paths[0], rest)
            key, count = (rule.number, first.names), several
            position = first.names.index(own)
            if key in self._links and self._links[key].sources[position] is not None:
                key = (*key, bindings)  # two names for one: that is found out later
        self._link(key, found, rule, count).sources[position] = name

    def _why_nowhere(self, rule: Rule, text: str, rest: str) -> str:
        path = parse_path(text)
        where = f"by the rule {rule} it goes to {text or 'the model'}"
        if not rest and path in self._layout.nodes:
            names = self._layout.below(self._layout.nodes[path])
            example = f", as in `{text}.{names[0]}`" if names else ""
            return f"{where}, which is an object: name an array in it{example}"
        near = Suggestions(self._layout.texts).near(text)
        if rest and path in self._layout.nodes:
            return f"{where}, which has no {rest!r}; leave it out by a rule to None"
        return f"{where}, which is not in the model" + (f"; {near}" if near else "")

    def _link(self, key: Any, entries: tuple[Entry, ...], rule: Rule | None, count: int) -> Link:
        return self._links.setdefault(key, Link([None] * count, entries, rule))

    def _note(
        self, kind: str, source: str, target: str = "", shape: str = "", dtype: str = "", note=""
    ) -> None:
        if not shape and source in self._avals:
            shape, dtype = _shown(self._avals[source].shape), str(self._avals[source].dtype)
        self._plan.rows.append(WeightRow(kind, source, target, shape, dtype, note))

    # -- what was found

    def _check_links(self) -> None:
        owners: dict[Any, Link] = {}
        for link in self._links.values():
            source = joined([name for name in link.sources if name is not None])
            target = joined(list(map(str, link.slots)))
            lack, fault = _lack(link), self._fault(link)
            avals = [self._avals[name] for name in link.sources if name is not None]
            shape = " | ".join([_shown(aval.shape) for aval in avals])
            old, new = avals[0].dtype, self.dtype_of(link.slots[0])
            dtype = str(old) if old == new else f"{old} → {np.dtype(new)}"
            if lack or fault:
                kind = WRONG if lack else MISFIT
                self._note(kind, source, target, shape, str(old), lack or fault)
                for slot in link.slots:
                    owners.setdefault(slot.key, link)
                continue
            for slot in link.slots:
                owner = owners.setdefault(slot.key, link)
                if owner is not link:
                    self._plan.twice.append((owner, link, slot))
            self._plan.links.append(link)
            self._note(MATCHED, source, target, shape, dtype, link.how())
        self._covered = owners

    def dtype_of(self, slot: Slot) -> Any:
        """Returns the dtype that a weight gets."""
        if self._dtype is not None and jnp.issubdtype(slot.dtype, jnp.inexact):
            return self._dtype
        return slot.dtype

    def _fault(self, link: Link) -> str:
        """Says what is wrong with a link; empty for nothing."""
        avals = [self._avals[name] for name in link.sources if name is not None]
        for aval in avals:
            for slot in link.slots:
                if not _converts(aval.dtype, slot.dtype):
                    return f"expected {slot.dtype}, which numbers of another kind do not become"
        try:
            link.load([zeros(aval.shape, aval.dtype) for aval in avals])
        except (ValueError, TypeError, IndexError) as error:
            shapes = link.expected()
            found = f"found {' | '.join(_shown(aval.shape) for aval in avals)} ({error})"
            if shapes is None:
                return f"{found}, for {_shown(link.slots[0].shape)} in the model"
            here = " | ".join(_shown(slot.shape) for slot in link.slots)
            wanted = " | ".join(map(_shown, shapes))
            return f"expected {wanted}, for {here} in the model, {found}"
        return ""

    def _note_missing(self) -> None:
        left = [pattern for rule in self._rules if not rule.sources for pattern in rule.targets]
        strays = Suggestions([name for name, _ in self._strays])
        names = {
            slot.key: name
            for name, entry in reversed(self._layout.entries.items())
            for slot in entry.slots
        }
        missing: dict[str, list[Slot]] = {}
        for key, slot in self._layout.wanted.items():
            if key not in self._covered and not any(covers(x, slot.address) for x in left):
                missing.setdefault(names[key], []).append(slot)
        for name, slots in missing.items():
            near = strays.near(name)
            note = f"expected as {name!r}" + (f"; {near}" if near else "")
            shape, dtype = _shown(slots[0].shape), str(slots[0].dtype)
            self._note(MISSING, "", joined(list(map(str, slots))), shape, dtype, note)

    def _note_strays(self) -> None:
        free = [
            name
            for name, entry in self._layout.entries.items()
            if not any(slot.key in self._covered for slot in entry.slots)
        ]
        suggestions = Suggestions(free)
        for name, note in self._strays:
            self._note(UNEXPECTED, name, note=note or suggestions.near(name))

    def _check_rules(self) -> None:
        suggestions = Suggestions(self._avals)
        for rule in self._rules:
            if rule.number in self._used or not rule.sources or not rule.targets:
                continue
            near = suggestions.near(rule.sources[0].text)
            note = "the rule matches no name" + (f"; {near}" if near else "")
            source = ", ".join([pattern.text for pattern in rule.sources])
            self._note(WRONG, source, rule.targets[0].text, note=note)


def _lack(link: Link) -> str:
    """Says which arrays a link lacks; empty for none."""
    absent = [i for i, name in enumerate(link.sources) if name is None]
    if not absent:
        return ""
    if link.rule is not None and len(link.rule.sources) == len(link.sources):
        names = [link.rule.sources[i].text for i in absent]
    else:
        names = [link.entries[0].names[i] for i in absent]
    return f"needs {joined(names)} as well, which the source does not have"


def _shown(shape: Iterable[int]) -> str:
    return ", ".join(map(str, shape)) or "scalar"


def _converts(old: Any, new: Any) -> bool:
    """Says whether numbers stay of one kind; real ones may become complex."""
    kinds = [
        next((i for i, kind in enumerate(_KINDS) if jnp.issubdtype(x, kind)), -1)
        for x in (old, new)
    ]
    return kinds[0] == kinds[1] or kinds == [2, 3]
