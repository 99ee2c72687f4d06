"""Watches: valid until something that they are set on changes."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import pytest

import weft as nnx
from weft._object.pytree import watch_object
from weft._variable.keeper import watch_variable
from weft._variable.watch import SEVERAL, Watch, Watches, add, is_watched_elsewhere, void

CHANGES: dict[str, Any] = {
    "metadata": lambda m: m.w.set_metadata(tag="a"),
    "a value of several leaves": lambda m: m.w.set_raw_value({"a": 1.0}),
    "attribute": lambda m: setattr(m, "size", 2),
    "deleted attribute": lambda m: delattr(m, "size"),
    "nothing but an array": lambda m: m.w.set_value(jnp.zeros(2)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_told_once(name: str) -> None:
    told: list[str] = []
    model, watch = nnx.Dict(w=nnx.Param(jnp.ones(2)), size=1), Watch(lambda: told.append(name))
    watch_variable(model.w, watch)
    watch_object(model, watch)
    CHANGES[name](model)
    assert watch.valid == (name == "nothing but an array")
    void([watch, watch])
    assert told == [name] and not watch.valid


def test_a_watch_is_set_once_and_void_ones_are_forgotten() -> None:
    watches: list[Watch] = []
    kept = Watch()
    for _ in range(3):
        add(watches, kept)
    assert watches == [kept]
    for _ in range(1000):
        passing = Watch()
        add(watches, passing)
        passing.void()
    assert watches[0] is kept and len(watches) < 40
    void(watches)
    assert not watches and not kept.valid


def test_which_threads_read_unseen() -> None:
    watches = Watches()
    assert not is_watched_elsewhere(None, 1) and not is_watched_elsewhere(watches, 1)
    watches.note_thread(None)
    watches.note_thread(1)
    assert not is_watched_elsewhere(watches, 1) and is_watched_elsewhere(watches, 2)
    watches.note_thread(2)
    watches.note_thread(1)
    assert watches.thread == SEVERAL and is_watched_elsewhere(watches, 1)
