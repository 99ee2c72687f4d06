"""Facts of leaves: what is known of them, as JSON and back, and which fit where."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from weft._core.errors import CheckpointError
from weft._saving.facts import Fact, can_cast, fact_of, fits, key_dtype

PATH = ("a", 0)
VALUES = {
    "f32": jnp.ones((2, 3)),
    "bf16": jnp.ones(2, jnp.bfloat16),
    "weak": jnp.asarray(1.0),
    "weak int": jnp.asarray(1),
    "bool array": jnp.asarray(True),
    "strong int": jnp.zeros((), jnp.int32),
    "int8": np.zeros((), np.int8),
    "c64": np.ones((), np.complex64),
    "numpy": np.float64(3),
    "keys": jax.random.split(jax.random.key(0), 3),
    "rbg": jax.random.key(0, impl="rbg"),
    "bool": True,
    "int": 3,
    "float": 0.5,
    "complex": 1j,
}
FACTS = {name: fact_of(PATH, value) for name, value in VALUES.items()}


@pytest.mark.parametrize("name", FACTS)
def test_facts_come_back_from_json(name):
    assert Fact.from_json(json.loads(json.dumps(FACTS[name].to_json()))) == FACTS[name]


def test_what_facts_say():
    assert [str(FACTS[name]) for name in ("f32", "numpy", "keys", "complex")] == [
        "float32[2, 3]",
        "float64[]",
        "PRNG keys of key<fry> and shape (3,)",
        "a Python complex",
    ]
    assert FACTS["weak"].weak and not FACTS["strong int"].weak
    abstract = jax.eval_shape(lambda: jax.random.key(0))
    assert fits(fact_of(PATH, jax.random.key(1)), fact_of(PATH, abstract))


FITTING = {
    *(("weak int", "strong int"), ("strong int", "weak int")),
    *((a, b) for a, b in [("int", "weak int"), ("float", "weak"), ("bool", "bool array")]),
    *((b, a) for a, b in [("int", "weak int"), ("float", "weak"), ("bool", "bool array")]),
}


def test_which_fit_where():
    found = {(a, b) for a in FACTS for b in FACTS if a != b and fits(FACTS[a], FACTS[b])}
    assert found == FITTING
    assert all(fits(fact, fact) for fact in FACTS.values())


def test_which_can_be_cast():
    scalars = {name for name, fact in FACTS.items() if not fact.shape and not fact.key}
    complexes = {"c64", "complex"}
    for a in FACTS:
        for b in FACTS:
            usual = {a, b} <= scalars and not (a in complexes and b not in complexes)
            same = a == b and not FACTS[a].key
            assert can_cast(FACTS[a], FACTS[b]) == (usual or same), (a, b)


def test_implementations_that_are_not_known():
    assert str(key_dtype("threefry2x32")) == "key<fry>"
    with pytest.raises(CheckpointError, match="the PRNG implementation 'none' is not known here"):
        key_dtype("none")


@pytest.mark.parametrize("value", ["text", None, object(), np.array(["a"])])
def test_what_is_no_leaf(value):
    with pytest.raises(TypeError, match=r"a\[0\]: expected an array of numbers, PRNG keys or a P"):
        fact_of(PATH, value)
