r"""Rules: which names of a file are which paths of a model, said by patterns.

A pattern is a name or a path in which `{i}` stands for what differs. It matches what it says, and
what begins with it: then the *rest*, what comes after the next dot, goes on below the target. A
variable is a number where a target has it in brackets, `blocks[{i}]`, else anything without a dot.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

from weft._core.path import Path, format_path
from weft.nn.torch_weights import Into

Target: TypeAlias = "str | tuple[str, ...] | list[str] | Into | None"
Rules: TypeAlias = "Mapping[Any, Target] | Iterable[tuple[Any, Target]]"
Bindings = tuple[tuple[str, str], ...]
"""What the variables of a pattern stand for, by name."""

_VARIABLE = re.compile(r"\{([^{}]*)\}")
_KEY = re.compile(r"\.?([^.\[\]]+)|\[(-?\d+)\]|\[(['\"])(.*?)\3\]")
_REMEDY = '`{"h.{i}.mlp.c_fc": "blocks[{i}].mlp.up"}`'


def parse_path(text: str) -> Path:
    """Returns the path that is written as text, `blocks[3].mlp`; digits between dots are ints.

    Raises:
      ValueError: if it is none.
    """
    keys: list[Any] = []
    end = 0
    while end < len(text):
        match = _KEY.match(text, end)
        if match is None or (end == 0 and text[0] == "."):
            raise ValueError(f"{text!r} is no path: write it as `blocks[3].attention.kernel`")
        plain, number, quote, quoted = match.groups()
        if quote:
            keys.append(quoted)
        else:
            key = number or plain
            keys.append(int(key) if re.fullmatch(r"-?\d+", key) else key)
        end = match.end()
    return tuple(keys)


class Pattern:
    """A name or path with variables.

    Args:
      text: the pattern.
      numbers: which variables are numbers.

    Attributes:
      text: the pattern.
      variables: its variables.
    """

    def __init__(self, text: str, numbers: Iterable[str]):
        self.text = text
        pieces = _VARIABLE.split(text)
        self.variables = list(dict.fromkeys(pieces[1::2]))
        expression, seen = "", set[str]()
        for i, piece in enumerate(pieces):
            if i % 2 == 0:
                expression += re.escape(piece)
                continue
            if not piece.isidentifier():
                raise ValueError(
                    f"{{{piece}}} in the rule for {text!r} is no variable: give it a name, "
                    f"{_REMEDY}"
                )
            number = r"\d+" if piece in numbers else r"[^.\[\]]+?"
            expression += f"(?P={piece})" if piece in seen else f"(?P<{piece}>{number})"
            seen.add(piece)
        self._whole = re.compile(expression)
        self._start = re.compile(expression + (r"(?:\.(.+))?" if text else "(.+)"))

    def match(self, name: str) -> tuple[Bindings, str] | None:
        """Returns what the variables are in a name, and the rest after it; None if it differs."""
        found = self._start.fullmatch(name)
        if found is None:
            return None
        return tuple(sorted(found.groupdict().items())), found.groups()[-1] or ""

    def match_whole(self, text: str) -> Bindings | None:
        """Returns what the variables are in a text without a rest; None if it differs."""
        found = self._whole.fullmatch(text)
        return None if found is None else tuple(sorted(found.groupdict().items()))

    def fill(self, bindings: Bindings) -> str:
        """Returns the text with what the variables are."""
        values = dict(bindings)
        return _VARIABLE.sub(lambda match: values[match[1]], self.text)


class Rule(NamedTuple):
    """One rule.

    Attributes:
      number: which of all it is.
      sources: patterns of names; none for targets that are left alone.
      targets: patterns of paths; none for names that are left out.
      into: how arrays are converted on the way.
    """

    number: int
    sources: tuple[Pattern, ...]
    targets: tuple[Pattern, ...]
    into: Into

    def __str__(self) -> str:
        return repr(_plain([pattern.text for pattern in self.sources]))


def _plain(texts: list[str]) -> Any:
    return texts[0] if len(texts) == 1 else tuple(texts) or None


def parse_rules(rules: Rules | None) -> list[Rule]:
    """Returns rules, checked.

    Raises:
      TypeError: for what is no rule.
      ValueError: if the variables of names and targets do not fit each other, or a path is none.
    """
    if rules is None:
        return []
    if not isinstance(rules, Iterable):
        raise TypeError(
            f"rules are a mapping or pairs of a name and a path, found {rules!r}: {_REMEDY}"
        )
    pairs = list(rules.items() if isinstance(rules, Mapping) else rules)
    for pair in pairs:
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise TypeError(
                f"rules are a mapping or pairs of a name and a path, found {pair!r}: {_REMEDY}"
            )
    return [_parse(number, source, target) for number, (source, target) in enumerate(pairs)]


def _parse(number: int, source: Any, target: Any) -> Rule:
    into = target if isinstance(target, Into) else None
    texts = _texts(source), _texts(target if into is None else into.targets)
    if None in texts or texts == ((), ()):
        raise TypeError(
            f"a rule leads from a name, or a tuple of names, to a path, several, an `nnx.Into` or "
            f"None, found {source!r}: {target!r}; write {_REMEDY}"
        )
    sources, targets = texts
    assert sources is not None and targets is not None
    numbers = set(re.findall(r"\[\{(\w+)\}\]", " ".join(targets)))
    rule = Rule(
        number,
        tuple([Pattern(text, numbers) for text in sources]),
        tuple([Pattern(text, numbers) for text in targets]),
        into or Into(targets),
    )
    _check_variables(rule)
    for pattern in rule.targets:
        parse_path(pattern.fill(tuple([(name, "0") for name in pattern.variables])))
    return rule


def _texts(given: Any) -> tuple[str, ...] | None:
    if given is None:
        return ()
    if isinstance(given, str):
        return (given,)
    if isinstance(given, (tuple, list)) and given and all(isinstance(x, str) for x in given):
        return tuple(given)
    return None


def _check_variables(rule: Rule) -> None:
    for side, patterns in (("names", rule.sources), ("paths", rule.targets)):
        if len({frozenset(pattern.variables) for pattern in patterns}) > 1:
            raise ValueError(
                f"the rule {rule} has {side} with different variables: all of them have the same"
            )
    if not rule.sources or not rule.targets:
        return
    unknown = sorted({*rule.targets[0].variables} - {*rule.sources[0].variables})
    if unknown:
        known = ", ".join(f"{{{name}}}" for name in rule.sources[0].variables) or "none"
        raise ValueError(
            f"the rule {rule} leads to {rule.targets[0].text!r}, and the variable "
            f"{{{unknown[0]}}} is not in the name, which has {known}: {_REMEDY}"
        )


def lost_variables(rule: Rule) -> list[str]:
    """Returns the variables of names that are not in the paths: no name can be made of these."""
    if not rule.sources or not rule.targets:
        return []
    return sorted({*rule.sources[0].variables} - {*rule.targets[0].variables})


def check_invertible(rules: Iterable[Rule]) -> None:
    """Raises ValueError for a rule that says how to load, and not how to save."""
    for rule in rules:
        if not rule.sources or not rule.targets:
            continue
        if lost := lost_variables(rule):
            raise ValueError(
                f"the rule {rule} cannot be inverted to save by: {{{lost[0]}}} is not in "
                f"{rule.targets[0].text!r}, so that no name can be made of a path; write the name "
                "without it"
            )
        if rule.into.load is not None and rule.into.save is None:
            raise ValueError(
                f"the rule {rule} cannot be inverted to save by: it has `load` alone; give the "
                "inverse, `nnx.Into(..., load=..., save=...)`"
            )


def covers(pattern: Pattern, address: Path) -> bool:
    """Says whether a pattern of a path is that of an address, or of something that it is in."""
    parts = (address[:n] for n in range(len(address) + 1))
    return any(pattern.match_whole(format_path(part) if part else "") is not None for part in parts)
