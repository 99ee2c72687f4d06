"""The plan of a load: all links between the arrays of a source and the weights of a model."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from weft.tools.weights.layout import Entry, Layout, Slot, join
from weft.tools.weights.links import Link, zeros
from weft.tools.weights.namer import Named, Namer
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
from weft.tools.weights.rules import Pattern, Rule, covers, lost_variables, parse_path
from weft.tools.weights.source import Aval

_RESTORE = (
    "`nnx.restore(file, model=model)` reads what `nnx.save` wrote, `nnx.update` takes a State"
)
_KINDS = (jnp.bool_, jnp.integer, jnp.floating, jnp.complexfloating)


@dataclasses.dataclass
class Plan:
    """What goes where.

    Attributes:
      links: those that fit.
      rows: of the report.
      misfits: links of arrays of another shape.
      twice: pairs of links that lead to the same weight, and have to be equal there.
    """

    links: list[Link] = dataclasses.field(default_factory=list)
    rows: list[WeightRow] = dataclasses.field(default_factory=list)
    misfits: list[Link] = dataclasses.field(default_factory=list)
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
        if rest and path in self._layout.nodes:
            near = Suggestions(self._layout.below(self._layout.nodes[path])).near(rest)
            near = f"{near} Or leave" if near else "leave"
            return f"{where}, which has no {rest!r}; {near} it out by a rule to None"
        if beyond := self._layout.beyond(path):
            return f"{where}, and {beyond}: make the model with more, or leave it out"
        near = Suggestions(self._layout.texts).near(text)
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
        if self._dtype is not None and jnp.issubdtype(slot.dtype, jnp.floating):
            return self._dtype
        return slot.dtype

    def _fault(self, link: Link) -> str:
        """Says what is wrong with a link; empty for nothing."""
        avals = [self._avals[name] for name in link.sources if name is not None]
        dtypes = [aval.dtype for aval in avals]
        try:
            made = link.load([zeros(aval.shape, aval.dtype) for aval in avals])
            if link.is_function:  # which may make floats of quantised integers
                dtypes = [array.dtype for array in made]
        except (ValueError, TypeError, IndexError) as error:
            self._plan.misfits.append(link)
            shapes = link.expected()
            found = f"found {' | '.join(_shown(aval.shape) for aval in avals)} ({error})"
            if shapes is None:
                return f"{found}, for {_shown(link.slots[0].shape)} in the model"
            here = " | ".join(_shown(slot.shape) for slot in link.slots)
            wanted = " | ".join(map(_shown, shapes))
            return f"expected {wanted}, for {here} in the model, {found}"
        for dtype in dtypes:
            for slot in link.slots:
                if not _converts(dtype, slot.dtype):
                    made_by = f"the rule makes {dtype}, " if link.is_function else ""
                    wanted = f"expected {slot.dtype}, which numbers of another kind do not become"
                    return made_by + wanted
        return ""

    @functools.cached_property
    def _expected(self) -> Named:
        """By the names that rules and layers give them, the arrays that the model needs."""
        rules = [rule for rule in self._rules if not lost_variables(rule)]
        return Namer(self._layout, rules, strict=False).links()

    def _note_missing(self) -> None:
        left = [pattern for rule in self._rules if not rule.sources for pattern in rule.targets]
        strays = Suggestions([name for name, _ in self._strays])
        missing: dict[str, list[Slot]] = {}
        for key, slot in self._layout.wanted.items():
            if key not in self._covered and not any(covers(x, slot.address) for x in left):
                missing.setdefault(self._name_of(slot), []).append(slot)
        for name, slots in missing.items():
            near = strays.near(name)
            note = f"expected as {name!r}" + (f"; {near}" if near else "")
            shape, dtype = _shown(slots[0].shape), str(slots[0].dtype)
            self._note(MISSING, "", joined(list(map(str, slots))), shape, dtype, note)

    def _name_of(self, slot: Slot) -> str:
        """Returns the name, or the names, by which a weight is expected."""
        by_rules = self._names_by_rules.get(slot.key)
        return self._names_of_layers[slot.key] if by_rules is None else by_rules

    @functools.cached_property
    def _names_by_rules(self) -> dict[Any, str]:
        return {
            slot.key: joined([name for name in link.sources if name is not None])
            for link in reversed(self._expected.values())
            for slot in link.slots
        }

    @functools.cached_property
    def _names_of_layers(self) -> dict[Any, str]:
        return {
            slot.key: name
            for name, entry in reversed(self._layout.entries.items())
            for slot in entry.slots
        }

    def _note_strays(self) -> None:
        if not self._strays:
            return
        slots = {name: link.slots for name, link in self._expected.items()}
        slots |= {name: list(entry.slots) for name, entry in self._layout.entries.items()}
        free = [
            name
            for name, owned in slots.items()
            if not any(slot.key in self._covered for slot in owned)
        ]
        suggestions = Suggestions(free)
        own = {join(*slot.leaf) for slot in self._layout.slots.values()}
        for name, note in self._strays:
            if name in own or name.partition(".")[2] in own:
                note = f"a name of Weft's own: {_RESTORE}"
            self._note(UNEXPECTED, name, note=note or suggestions.near(name))

    def _check_rules(self) -> None:
        suggestions = Suggestions(self._avals)
        for rule in self._rules:
            if rule.number in self._used or not rule.sources or not rule.targets:
                continue
            if self._leads_to_shared(rule):
                continue
            note = "the rule matches no name" + self._why_unused(rule, suggestions)
            source = ", ".join([pattern.text for pattern in rule.sources])
            self._note(WRONG, source, rule.targets[0].text, note=note)

    def _leads_to_shared(self, rule: Rule) -> bool:
        """Says whether all that a rule leads to is shared with something that has its weights.

        As the two ends of a tied model, of which the file has one.
        """
        found = [
            (path, slot)
            for text, path in self._layout.texts.items()
            if any(pattern.match_whole(text) is not None for pattern in rule.targets)
            for slot in self._layout.slots.values()
            if slot.address[: len(path)] == path and slot.key in self._layout.wanted
        ]
        owners = [self._covered.get(slot.key) for _, slot in found]
        return bool(found) and all(
            owner is not None
            and any(
                other.key == slot.key and other.address[: len(path)] != path
                for other in owner.slots
            )
            for (path, slot), owner in zip(found, owners, strict=True)
        )

    def _why_unused(self, rule: Rule, suggestions: Suggestions) -> str:
        """Says which names a rule would match; empty if there are none."""
        for name in self._avals:
            if _matches(rule.sources, name):
                first = next(x for x in self._rules if _matches(x.sources, name))
                return (
                    f" that is left: {name!r} goes by the rule {first} before it, and the first "
                    "that matches counts; put the one that says more before the other"
                )
        for name in self._avals:
            ends = [i + 1 for i, letter in enumerate(name) if letter == "."]
            if any(_matches(rule.sources, name[end:]) for end in ends):
                start = next(name[:end] for end in ends if _matches(rule.sources, name[end:]))
                return f"; {name!r} begins with {start!r}: write `{start + rule.sources[0].text}`"
        if any("*" in pattern.text for pattern in rule.sources):
            return "; write `{i}` for what differs, not `*`"
        near = suggestions.near(rule.sources[0].text)
        return f"; {near}" if near else ""


def _matches(patterns: Iterable[Pattern], name: str) -> bool:
    return any(pattern.match(name) is not None for pattern in patterns)


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
