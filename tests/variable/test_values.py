"""Raw values: containers of their own, items replaced, keys for pickle."""

from __future__ import annotations

import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from weft._variable.values import from_picklable, is_leaf, own_value, replace_item, to_picklable


def test_leaves() -> None:
    for leaf in (jnp.ones(2), np.ones(2), 1.0, jax.random.key(0), "text"):
        assert is_leaf(leaf)
        assert own_value(leaf) is leaf
    for tree in (None, {"a": 1}, (1, 2), []):
        assert not is_leaf(tree)


def test_containers_of_their_own_around_the_same_arrays() -> None:
    raw = {"a": [jnp.ones(2), {"b": jnp.zeros(1)}], "n": None}
    own = own_value(raw)
    assert jax.tree.structure(own) == jax.tree.structure(raw)
    assert all(map(lambda x, y: x is y, jax.tree.leaves(own), jax.tree.leaves(raw)))
    own["a"][1]["b"] = 1
    own["a"].append(2)
    assert len(raw["a"]) == 2 and raw["a"][1]["b"].shape == (1,)


@pytest.mark.parametrize("old", [jnp.zeros(3), np.zeros(3), [0.0, 0.0, 0.0], {1: 0.0}])
def test_an_item_is_replaced_in_a_copy(old: Any) -> None:
    new = replace_item(old, 1, 2.0)
    assert float(new[1]) == 2.0 and float(old[1]) == 0.0
    assert type(new) is type(old)


def test_the_whole_value_is_replaced() -> None:
    assert replace_item({"a": 1}, ..., 3) == 3
    new = jnp.ones(3, jnp.float32)
    assert replace_item(jnp.zeros(3), ..., new) is new
    assert replace_item(jnp.zeros(3), ..., 2.0).tolist() == [2.0, 2.0, 2.0]
    assert replace_item(jnp.zeros(3), ..., jnp.ones(3, int)).dtype == jnp.float32


def test_keys_are_pickled() -> None:
    raw = {"key": jax.random.key(3), "keys": jax.random.split(jax.random.key(0)), "x": jnp.ones(1)}
    new = from_picklable(pickle.loads(pickle.dumps(to_picklable(raw))))
    assert new["key"] == raw["key"] and (new["keys"] == raw["keys"]).all()
    assert new["key"].dtype == raw["key"].dtype
    assert new["x"].tolist() == [1.0]
