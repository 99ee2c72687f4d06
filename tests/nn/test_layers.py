"""What holds for every layer: its structure is a value, and copies and pickles keep all of it."""

import copy
import functools
import importlib
import inspect
import pickle
import re
import types
from pathlib import Path

import cloudpickle
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx
from tests.parity.cases import Layer, quick_init

LAYERS = {
    f"{file.stem}: {case.name}": case.make
    for file in sorted(Path(__file__).parents[1].glob("parity/cases/[!_]*.py"))
    for case in importlib.import_module(f"tests.parity.cases.{file.stem}").CASES
    if isinstance(case.make, Layer)
} | {
    "AdaptiveAvgPool": Layer("AdaptiveAvgPool", (2,)),
    "AdaptiveMaxPool": Layer("AdaptiveMaxPool", 2),
    "AvgPool": Layer("AvgPool", (2,), count_include_pad=False),
    "Flatten": Layer("Flatten", 1, -1),
    "GlobalAvgPool": Layer("GlobalAvgPool", (1,)),
    "GlobalMaxPool": Layer("GlobalMaxPool", (1,)),
    "GRUCell": Layer("GRUCell", 2, 3, carry_init=jax.nn.initializers.zeros),
    "Identity": Layer("Identity"),
    "LSTMCell": Layer("LSTMCell", 2, 3, keep_rngs=True),
    "MaxPool": Layer("MaxPool", (2,), padding="SAME"),
    "MinPool": Layer("MinPool", (2,)),
    "OptimizedLSTMCell": Layer("OptimizedLSTMCell", 2, 3),
    "RoPE": Layer("RoPE", embedding_size=4, max_seq_len=3),
    "Sequential": Layer("Sequential", Layer("Linear", 2, 3), nnx.relu),
    "SimpleCell": Layer("SimpleCell", 2, 3, activation_fn=nnx.hard_tanh),
    "Stack": lambda nnx, rngs: nnx.Stack(
        lambda rngs: nnx.Linear(2, 2, kernel_init=quick_init, rngs=rngs), n=2, rngs=rngs
    ),
}
NO_LAYERS = {"RNNCellBase"}
"""Modules that are only the interface of some."""

WITH_FUNCTION_OF_JAX = {"recurrent: Bidirectional time-major"}
"""Keeps `jnp.add`, which JAX compiles, and of which pickle and copy make no second."""


@functools.cache
def make(name, seed):
    return LAYERS[name](nnx, nnx.Rngs(seed, params=seed + 1, dropout=seed + 2))


def bits(node):
    found = {}
    for path, leaf in nnx.to_flat_state(nnx.state(node)):
        value = leaf.get_value() if isinstance(leaf, nnx.Variable) else leaf
        if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            value = jax.random.key_data(value)
        found[path] = np.asarray(value).tobytes()
    return found


def names_in(made):
    """The names of a layer and of those that are its arguments."""
    if isinstance(made, Layer):
        yield made.name
        for part in (*made.args, *made.kwargs.values()):
            yield from names_in(part)


def public_layers():
    return {
        name: value
        for name, value in ((name, getattr(nnx.nn, name)) for name in nnx.nn.__all__)
        if isinstance(value, type) and issubclass(value, nnx.Module)
    }


def test_no_layer_is_left_out():
    there = {"Stack", *(name for made in LAYERS.values() for name in names_in(made))}
    assert public_layers().keys() - there == NO_LAYERS


@pytest.mark.parametrize("name", sorted(public_layers()))
def test_arguments_are_documented_in_one_place(name):
    """The class; what a keyword collects is not an argument of its own."""
    layer = public_layers()[name]
    own = vars(layer).get("__init__")
    assert own is None or own.__doc__ is None
    parameters = inspect.signature(layer.__init__).parameters.values()
    taken = [p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)][1:]
    _, _, section = inspect.getdoc(layer).partition("Args:\n")
    documented = re.findall(r"^  (\w+):", section.partition("\n\n")[0], re.MULTILINE)
    assert documented == taken


ONE_CASE_EACH = {
    case.make.name: case
    for file in sorted(Path(__file__).parents[1].glob("parity/cases/[!_]*.py"))
    for case in reversed(importlib.import_module(f"tests.parity.cases.{file.stem}").CASES)
    if isinstance(case.make, Layer) and case.method == "__call__" and case.dtype == jnp.float32
}
"""The first case of each layer in the table of parity."""


@pytest.mark.parametrize("name", sorted(ONE_CASE_EACH))
def test_a_call_takes_whatever_has_the_attributes(name):
    """`nnx.Conv.__call__(stand_in, x)`, as code does that keeps a layer's parts by itself."""
    case = ONE_CASE_EACH[name]
    layer, twin = (case.make(nnx, nnx.Rngs(0)) for _ in range(2))
    stand_in = types.SimpleNamespace(
        **{name: value for name, value in vars(twin).items() if not name.startswith("_")}
    )
    expected = layer(*case.arrays(), **case.call)
    found = type(layer).__call__(stand_in, *case.arrays(), **case.call)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("name", sorted(ONE_CASE_EACH))
def test_inputs_may_be_lists(name):
    case = ONE_CASE_EACH[name]
    layer, twin = (case.make(nnx, nnx.Rngs(0)) for _ in range(2))
    arrays = case.arrays()
    lists = [x.tolist() if isinstance(x, jax.Array) else x for x in arrays]
    expected = layer(*arrays, **case.call)
    found = twin(*lists, **case.call)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize(
    "layer",
    [
        nnx.AdaptiveAvgPool(2),
        nnx.AdaptiveMaxPool(2),
        nnx.AvgPool(2),
        nnx.Flatten(),
        nnx.GlobalAvgPool(),
        nnx.GlobalMaxPool(),
        nnx.MaxPool(2),
        nnx.MinPool(2),
        nnx.RoPE(),
        nnx.Dropout(0.0),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_inputs_of_layers_without_parameters_may_be_lists(layer):
    x = np.arange(16.0, dtype=np.float32).reshape(1, 4, 4)
    np.testing.assert_array_equal(layer(x.tolist()), layer(jnp.asarray(x)))


@pytest.mark.parametrize("name", LAYERS)
def test_its_structure_is_a_value(name):
    one, other = nnx.graphdef(make(name, 0)), nnx.graphdef(make(name, 7))
    assert one == other
    assert hash(one) == hash(other)


@pytest.mark.parametrize("name", sorted(LAYERS.keys() - WITH_FUNCTION_OF_JAX))
def test_copies_and_pickles_are_whole(name):
    layer = make(name, 0)
    for twin in (
        copy.deepcopy(layer),
        nnx.clone(layer),
        pickle.loads(pickle.dumps(layer)),
        cloudpickle.loads(cloudpickle.dumps(layer)),
    ):
        assert nnx.graphdef(twin) == nnx.graphdef(layer)
        assert bits(twin) == bits(layer)
