"""Histories: however a graph is changed between calls, no call uses a stale plan.

The state machine changes a graph at random, in every way there is, and compares after each change.
The number of its histories is WEFT_HISTORIES.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import os
import types
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, rule

import weft as nnx
from tests.lift import zoo
from tests.lift.zoo import (
    Config,
    Foreign,
    Guarded,
    Hashed,
    Leaf,
    Loose,
    OtherLeaf,
    Tag,
    Zoo,
    refresh,
)
from weft._graph.walk import Flattener
from weft._object.pytree import attributes

HISTORIES = int(os.environ.get("WEFT_HISTORIES", "8"))
NAMES = ["extra", "size", "weight", "layers", "a", "b"]


def change(x: Any, kind: int, name: str, new: Any) -> None:
    """Changes one thing in place, in one of the ways that it offers."""
    for kinds, ways in WAYS:
        if isinstance(x, kinds):
            ways[kind % len(ways)](x, name, new)
            return


def _object_ways() -> list[Callable[[Any, str, Any], Any]]:
    def delete(x: Any, name: str, new: Any) -> None:
        for own in list(attributes(x))[:1]:
            delattr(x, own)

    def delete_in_vars(x: Any, name: str, new: Any) -> None:
        vars(x).pop(name, None)

    def become_other(x: Any, name: str, new: Any) -> None:
        if type(x) in (Leaf, OtherLeaf):
            x.__class__ = OtherLeaf if type(x) is Leaf else Leaf

    def become_other_unseen(x: Any, name: str, new: Any) -> None:
        if type(x) in (Leaf, OtherLeaf):
            object.__setattr__(x, "__class__", OtherLeaf if type(x) is Leaf else Leaf)

    def go_past(x: Any, name: str, new: Any) -> None:
        if isinstance(x, Guarded):
            object.__setattr__(x, name, new)

    return [
        lambda x, name, new: setattr(x, name, new),
        delete,
        lambda x, name, new: vars(x).__setitem__(name, new),
        delete_in_vars,
        lambda x, name, new: setattr(x, name, nnx.static(7)),
        lambda x, name, new: setattr(x, name, nnx.data([jnp.ones(1), new])),
        lambda x, name, new: x.set_attributes(scale=5, raise_if_not_found=False),
        lambda x, name, new: nnx.pop(x, Tag),
        lambda x, name, new: nnx.update(x, {"added": Tag(jnp.ones(1))}),
        become_other,
        become_other_unseen,
        go_past,
        lambda x, name, new: setattr(x, "array", jnp.full(2, 3.0)),
        lambda x, name, new: setattr(x, "fixed", nnx.static(jnp.arange(3))),
    ]


def _variable_ways() -> list[Callable[[Any, str, Any], Any]]:
    def change_tree(x: Any, name: str, new: Any) -> None:
        value = x.get_raw_value()
        if isinstance(value, dict):
            value[name] = jnp.ones(1)

    def change_metadata(x: Any, name: str, new: Any) -> None:
        if "axes" in x._metadata:
            x.axes.append(name)

    return [
        lambda x, name, new: x.set_raw_value({"a": jnp.ones(1), "b": (jnp.ones(1),)}),
        lambda x, name, new: x.set_raw_value(jnp.full(2, 4.0)),
        lambda x, name, new: x.set_metadata(axes=[name]),
        lambda x, name, new: x.set_metadata("tag", name),
        lambda x, name, new: x.del_metadata("tag") if x.has_metadata("tag") else None,
        change_tree,
        change_metadata,
    ]


def _state_ways() -> list[Callable[[Any, str, Any], Any]]:
    def change_view(x: Any, name: str, new: Any) -> None:
        if "a" in x and isinstance(x["a"], nnx.State):
            x["a"][name] = nnx.Param(jnp.ones(2))

    return [
        lambda x, name, new: x.__setitem__(name, nnx.Param(jnp.ones(1))),
        lambda x, name, new: x.__setitem__("a", {"deep": {name: jnp.ones(1)}}),
        change_view,
        lambda x, name, new: x.raw_mapping.__setitem__(name, jnp.ones(1)),
        lambda x, name, new: x.raw_mapping.setdefault("a", {}) and None,
        lambda x, name, new: x.pop(name, None),
        lambda x, name, new: (
            nnx.replace_by_pure_dict(x, {"c": jnp.ones(1)}, lambda old, value: nnx.Param(value))
            if "c" in x
            else None
        ),
    ]


WAYS: list[tuple[Any, list[Callable[[Any, str, Any], Any]]]] = [
    (nnx.Variable, _variable_ways()),
    (
        nnx.List,
        [
            lambda x, name, new: x.append(new),
            lambda x, name, new: x.pop() if x else None,
            lambda x, name, new: x.__setitem__(slice(None), [new, 1]),
            lambda x, name, new: x.insert(0, nnx.data([jnp.ones(1)])),
            lambda x, name, new: x.reverse(),
            refresh,
        ],
    ),
    (
        nnx.Dict,
        [
            lambda x, name, new: x.__setitem__(name, new),
            lambda x, name, new: x.pop(name, None),
            lambda x, name, new: setattr(x, name, Leaf()),
            lambda x, name, new: x.update({"z": 1, "y": new}),
        ],
    ),
    (nnx.Module, _object_ways()),
    (nnx.State, _state_ways()),
    (
        collections.defaultdict,
        [
            lambda x, name, new: setattr(x, "default_factory", dict),
            lambda x, name, new: x[name].append(Leaf()) if x.default_factory is list else None,
        ],
    ),
    (collections.Counter, [lambda x, name, new: x.update([name])]),
    (
        dict,
        [
            lambda x, name, new: x.__setitem__(name, new),
            lambda x, name, new: x.pop(name, None),
            lambda x, name, new: x.__setitem__("renamed", x.pop(next(iter(x)))) if x else None,
            lambda x, name, new: x.update([x.popitem()]) if x else None,
            lambda x, name, new: x.clear(),
        ],
    ),
    (
        list,
        [
            lambda x, name, new: x.append(new),
            lambda x, name, new: x.pop() if x else None,
            lambda x, name, new: x.reverse(),
            refresh,
            lambda x, name, new: x.clear(),
        ],
    ),
    (set, [lambda x, name, new: x.add(name), lambda x, name, new: x.discard(name)]),
    (
        Config,
        [
            lambda x, name, new: setattr(x, "rate", x.rate + 1),
            lambda x, name, new: x.sizes.append(1),
            lambda x, name, new: setattr(x, "sizes", list(x.sizes)),
        ],
    ),
    (Hashed, [lambda x, name, new: setattr(x, "rate", x.rate + 1)]),
    (Loose, [lambda x, name, new: setattr(x, "depth", x.depth + 1)]),
    (
        Foreign,
        [
            lambda x, name, new: setattr(x, "tag", name),
            lambda x, name, new: setattr(x, "value", new),
            lambda x, name, new: setattr(x, "value", {"inner": jnp.ones(1)}),
        ],
    ),
    (functools.partial, [lambda x, name, new: x.keywords.__setitem__(name, 1)]),
    (collections.deque, [lambda x, name, new: x.append(name), lambda x, name, new: x.rotate(1)]),
    (
        (zoo.Opaque, types.SimpleNamespace),
        [
            lambda x, name, new: setattr(x, name, name),
            lambda x, name, new: vars(x).clear(),
            lambda x, name, new: vars(x).popitem(),
        ],
    ),
    (zoo.MoreSlots, [lambda x, name, new: setattr(x, "depth", x.depth + 1)]),
]


CHANGE = st.tuples(st.integers(0, 999), st.integers(0, 99), st.integers(0, 99))
MUTATION_ERRORS = (AttributeError, KeyError, RuntimeError, TypeError, ValueError)


def outcome(function: Any, *roots: Any) -> Any:
    """Returns what a call returns as plain values, or the error that it raises."""
    try:
        arrays, number = function(*roots)
    except (TypeError, ValueError) as error:
        return str(error)
    return plain(arrays), int(number)


def plain(arrays: list[Any]) -> list[Any]:
    """Returns arrays as values to compare: it is quick, and tells dtypes apart."""
    return [(x.dtype, x.shape, x.tobytes()) for x in map(np.asarray, arrays)]


class Histories(RuleBasedStateMachine):
    """Changes between calls; nothing is compiled, so that many histories are walked."""

    def __init__(self) -> None:
        super().__init__()
        self.root, self.other = Zoo(), Leaf()
        self.describe = nnx.jit(zoo.describe, on_retrace=None)
        self.read = nnx.jit(zoo.describe, donate=None, on_retrace=None)
        self.bump = nnx.jit(zoo.bump, on_retrace=None)
        self.check()

    def new_value(self, kind: int) -> Any:
        shared = zoo.nodes(self.root)
        makers: list[Callable[[], Any]] = [
            Leaf,
            lambda: 5,
            lambda: nnx.Param(jnp.ones(2)),
            lambda: jnp.ones(3),
            lambda: [Leaf(), {"k": 1}],
            lambda: {"k": Tag(jnp.ones(1))},
            lambda: None,
            lambda: "text",
            lambda: shared[kind % len(shared)],
            lambda: zoo.Pair(Leaf(), [1]),
            Guarded,
            zoo.Described,
            lambda: Config(0.5, []),
            zoo.Opaque,
            lambda: optax.linear_schedule(1.0, 0.0, kind + 1),
        ]
        return makers[kind % len(makers)]()

    def check(self) -> None:
        with jax.disable_jit():
            uncached = outcome(nnx.jit(zoo.describe), self.root, self.other)
            for function in (self.describe, self.read, self.read):
                assert outcome(function, self.root, self.other) == uncached
        if isinstance(uncached, str):  # what was made is not allowed
            self.root = Zoo()
            return
        arrays, text = zoo.look(self.root, self.other)
        assert uncached[1] == zoo.fingerprint(text), text
        assert uncached[0] == plain([jnp.asarray(x) for x in arrays])
        self.check_content()

    def check_content(self) -> None:
        """Checks that what the root remembers of itself is what a walk finds."""
        flattener = Flattener()
        record = flattener.flatten(self.root)
        graphdef, state = nnx.split(self.root)
        assert graphdef.root == record
        found = dict(nnx.to_flat_state(state))
        assert len(found) == len(flattener.entries)
        assert all(found[entry.path] is entry.value for entry in flattener.entries)
        assert zoo.look(nnx.merge(graphdef, state))[1] == zoo.look(self.root)[1]

    @rule(changes=st.lists(CHANGE, min_size=1, max_size=3))
    def change(self, changes: list[tuple[int, int, int]]) -> None:
        for chosen, kind, made in changes:
            found = zoo.nodes(self.root, self.other)
            name, new = NAMES[made % len(NAMES)], self.new_value(made)
            with contextlib.suppress(*MUTATION_ERRORS):
                change(found[chosen % len(found)], kind, name, new)
            del found, new
        self.check()

    @rule()
    def bump_all(self) -> None:
        expected = nnx.clone(self.root)
        zoo.bump(expected)
        with jax.disable_jit():
            self.bump(self.root)
        arrays, text = zoo.look(self.root)
        expected_arrays, expected_text = zoo.look(expected)
        assert text == expected_text
        assert plain(arrays) == plain(expected_arrays)
        self.check()

    @rule()
    def replace_by_one_at_the_same_address(self) -> None:
        del self.other
        self.other = Leaf()
        self.other.scale = 2
        self.check()

    @rule()
    def enter_loops_and_branches(self) -> None:
        """They keep traces by the function, which is the same each time."""
        roots, turns = (self.root, self.other), jnp.zeros(2)
        run = nnx.scan(zoo.shaped_in_turn, length=2)
        calls: list[Callable[[], Any]] = [
            lambda: nnx.cond(True, zoo.shaped, zoo.shaped, *roots),
            lambda: nnx.switch(0, [zoo.shaped, zoo.shaped], *roots),
            lambda: run(roots, turns)[1],
        ]
        arrays, text = zoo.look(*roots)
        expected = (len(arrays), zoo.fingerprint(text) % 9973)
        for call in calls:
            for _ in range(2):
                assert jax.eval_shape(call).shape[-2:] == expected

    @rule(mode=st.booleans())
    def train_or_eval(self, mode: bool) -> None:
        self.root.train() if mode else self.root.eval()
        self.check()


TestHistories = Histories.TestCase
TestHistories.settings = settings(
    max_examples=HISTORIES,
    stateful_step_count=12,
    suppress_health_check=list(HealthCheck),
)
