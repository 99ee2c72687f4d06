"""Saving and restoring: the same values back, all of them or nothing."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import weft as nnx
from tests.devices import make_mesh


class Net(nnx.Module):
    def __init__(self, seed: int):
        rngs = nnx.Rngs(seed)
        self.layers = [nnx.Linear(2, 3, rngs=rngs), nnx.BatchNorm(3, rngs=rngs)]
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.tied = self.layers[0].kernel
        self.number = nnx.Variable(seed + 0.1)
        self.scale = nnx.Variable(jnp.asarray(0.5 + seed))  # weakly typed
        self.nested = nnx.Variable({"a": jnp.arange(3) + seed, "b": [jnp.zeros((0, 2))]})
        self.plain = jnp.full(2, seed)
        self.host = np.arange(4) + seed


def objects(seed: int):
    model = Net(seed)
    return {"model": model, "optimizer": nnx.Optimizer(model, optax.adam(0.1), wrt=nnx.Param)}


def values(node):
    """The leaves by path, keys as their data, for comparison."""
    flat = {}
    for path, leaf in nnx.to_flat_state(nnx.state(node)):
        raw = leaf.get_raw_value() if isinstance(leaf, nnx.Variable) else leaf
        is_key = isinstance(raw, jax.Array) and jnp.issubdtype(raw.dtype, jax.dtypes.prng_key)
        flat[path] = jax.random.key_data(raw) if is_key else raw
    return flat


def assert_same(actual, expected):
    assert actual.keys() == expected.keys()
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "run.safetensors"


# -- round trips


def test_objects_round_trip(file):
    saved, restored = objects(0), objects(1)
    data = {"epoch": 3, "history": [0.1, 1e-300, 1 / 3], "name": "a"}
    nnx.save(file, meta=data, **saved)
    found = nnx.restore(file, **restored)
    assert found == data
    assert [x.hex() for x in found["history"]] == [x.hex() for x in data["history"]]
    assert_same(values(restored), values(saved))
    model = restored["model"]
    assert model.tied is model.layers[0].kernel
    assert type(model.host) is np.ndarray and isinstance(model.plain, jax.Array)
    assert model.scale.value.weak_type and not model.plain.weak_type
    assert file.parent.exists() and os.listdir(file.parent) == [file.name]


def test_random_streams_go_on(file):
    saved, restored = Net(0), Net(1)
    x = jnp.ones(64)
    saved.dropout(x)
    nnx.save(file, x=saved)
    nnx.restore(file, x=restored)
    np.testing.assert_array_equal(saved.dropout(x), restored.dropout(x))


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_keys_round_trip(file, impl):
    keys = jax.random.split(jax.random.key(7, impl=impl), 3)
    nnx.save(file, x={"keys": nnx.Variable(keys)})
    restored = {"keys": nnx.Variable(jax.random.split(jax.random.key(0, impl=impl), 3))}
    nnx.restore(file, x=restored)
    assert restored["keys"].value.dtype == keys.dtype
    np.testing.assert_array_equal(
        jax.random.key_data(restored["keys"].value), jax.random.key_data(keys)
    )


def test_int_keys_stay_ints(file):
    nnx.save(file, x=[nnx.Param(1.0), {"1": nnx.Param(2.0), "x": nnx.Param(3)}])
    assert list(nnx.load(file)) == ["x.1.'1'", "x.0", "x.1.x"]
    assert nnx.load(file).paths["x.1.'1'"] == ("x", 1, "1")


def test_restores_into_abstract_objects(file):
    saved = objects(0)
    nnx.save(file, x=saved)
    abstract = objects(1)
    for _, variable in nnx.to_flat_state(nnx.state(abstract, nnx.Param)):
        variable.value = jax.ShapeDtypeStruct(variable.shape, variable.dtype)
    nnx.restore(file, x=abstract)
    assert_same(values(abstract), values(saved))


def test_arrays_are_placed_as_those_they_replace(file):
    sharding = NamedSharding(make_mesh((4,), ("x",)), PartitionSpec("x"))
    place = lambda x: nnx.Variable(jax.device_put(x, sharding))  # noqa: E731
    nnx.save(file, x=[place(jnp.arange(8)), nnx.Variable(jnp.arange(8))])
    restored = [nnx.Variable(jnp.zeros(8, jnp.int32)), place(jnp.zeros(8, jnp.int32))]
    nnx.restore(file, x=restored)
    assert restored[1].value.sharding == sharding
    assert not restored[0].value.committed
    np.testing.assert_array_equal(restored[1].value, np.arange(8))


def test_restores_into_a_model_that_was_never_computed(file):
    def make(seed):
        model = Net(seed)
        del model.number, model.host  # would become arrays of JAX
        return model

    saved = make(0)
    x = jnp.ones(64)
    saved.dropout(x)
    nnx.save(file, x=saved)
    abstract = nnx.eval_shape(lambda: make(1))
    assert isinstance(abstract.dropout.rngs.key.value, jax.ShapeDtypeStruct)
    nnx.restore(file, x=abstract)
    assert_same(values(abstract), values(saved))
    np.testing.assert_array_equal(abstract.dropout(x), saved.dropout(x))


def test_a_restored_state_merges_with_its_layers_in_order(file):
    layers = [nnx.Linear(1, 1, rngs=nnx.Rngs(i)) for i in range(11)]
    nnx.save(file, x=nnx.state(layers))
    graphdef, state = nnx.split(
        nnx.eval_shape(lambda: [nnx.Linear(1, 1, rngs=nnx.Rngs(0)) for _ in range(11)])
    )
    nnx.restore(file, x=state)
    assert list(state) == list(range(11))
    for merged, layer in zip(nnx.merge(graphdef, state), layers, strict=True):
        np.testing.assert_array_equal(merged.kernel, layer.kernel)


def test_an_abstract_model_says_where_restored_arrays_go(file):
    def make():
        metadata = {"out_sharding": (None, "x")}
        return nnx.Linear(4, 4, kernel_metadata=metadata, rngs=nnx.Rngs(0))

    auto = {"axis_types": (jax.sharding.AxisType.Auto,)}
    with jax.set_mesh(make_mesh((4,), ("x",), **auto)):
        saved = make()
        nnx.save(file, x=saved)
    smaller = make_mesh((2,), ("x",), **auto)
    graphdef, abstract = nnx.get_abstract_model(make, smaller)
    nnx.restore(file, x=abstract)
    model = nnx.merge(graphdef, abstract)
    assert model.kernel.value.sharding == NamedSharding(smaller, PartitionSpec(None, "x"))
    np.testing.assert_array_equal(model.kernel, saved.kernel)


def test_training_that_goes_on_from_a_checkpoint_ends_on_the_same_bits(file):
    @nnx.jit
    def step(model, optimizer, x):
        def loss(model):
            return (model.dropout(model.layers[1](model.layers[0](x))) ** 2).mean()

        optimizer.update(model, nnx.grad(loss, argnums=nnx.DiffState(0, nnx.Param))(model))

    def train(model, optimizer, steps):
        for _ in range(steps):
            step(model, optimizer, jnp.linspace(-1.0, 1.0, 12).reshape(6, 2))

    whole, first, resumed = objects(0), objects(0), objects(1)
    train(**whole, steps=4)
    train(**first, steps=2)
    nnx.save(file, x=first)
    nnx.restore(file, x=resumed)
    train(**resumed, steps=2)
    assert_same(values(resumed), values(whole))


# -- what does not fit


def test_everything_that_does_not_fit_is_listed_and_nothing_written(file):
    params = {
        "same": nnx.Param(jnp.ones(2)),
        "gone": nnx.Param(jnp.ones(2)),
        "shape": nnx.Param(jnp.ones((2, 3))),
        "dtype": nnx.Param(jnp.ones(2)),
        "key": nnx.Variable(jax.random.key(0)),
        "number": nnx.Variable(3),
    }
    nnx.save(file, x=params)
    others = {
        "same": nnx.Param(jnp.zeros(2)),
        "new": nnx.Param(jnp.zeros(2)),
        "shape": nnx.Param(jnp.zeros((3, 2))),
        "dtype": nnx.Param(jnp.zeros(2, jnp.bfloat16)),
        "key": nnx.Variable(jax.random.key(0, impl="rbg")),
        "number": nnx.Variable(3.0),
    }
    before = values(others)
    with pytest.raises(nnx.StructureError) as caught:
        nnx.restore(file, x=others)
    for fault in (
        "missing: new",
        "unexpected: gone",
        "shape: expected float32[3, 2], found float32[2, 3]",
        "dtype: expected bfloat16[2], found float32[2]",
        "key: expected PRNG keys of key<rbg> and shape (), found PRNG keys of key<fry>",
        "number: expected a Python float, found a Python int",
    ):
        assert fault in str(caught.value)
    assert "same" not in str(caught.value)
    assert_same(values(others), before)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"a": nnx.Variable(np.array([object()]))}, "cannot save a: an array of dtype object"),
        ({"a": nnx.Variable("text")}, "cannot save a: expected an array, PRNG key or number, f"),
        ({(1, 2): nnx.Variable(1)}, r"cannot save .*the key \(1, 2\) is neither a name nor an i"),
        ({"a": nnx.Variable(jax.ShapeDtypeStruct((2,), "float32"))}, "found ShapeDtypeStruct"),
    ],
    ids=["objects", "text", "key", "abstract"],
)
def test_what_cannot_be_saved(file, node, message):
    with pytest.raises(TypeError, match=message):
        nnx.save(file, x=node)
    assert not file.exists()
