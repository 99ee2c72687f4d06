"""Saving and restoring: the same values back, all of them or nothing."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from jax.sharding import NamedSharding, PartitionSpec

import weft as nnx
from tests.devices import make_mesh
from tests.saving.nets import Net, assert_same, objects, values


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
    assert list(nnx.load(file)) == ["x.0", "x.1.'1'", "x.1.x"]
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
    nnx.save(file, x=params, y=nnx.Param(1.0))
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
    assert str(caught.value).splitlines() == [
        f"{file} does not fit the objects, and nothing was written:",
        "  x.dtype: saved float32[2], wanted bfloat16[2] (`cast=True` converts it)",
        "  x.key: saved PRNG keys of key<fry> and shape (), wanted PRNG keys of key<rbg> and "
        "shape ()",
        "  missing: x.new (float32[2]) was not saved",
        "  x.number: saved a Python int, wanted a Python float (`cast=True` converts it)",
        "  x.shape: saved float32[2, 3], wanted float32[3, 2]",
        "  unexpected: x.gone (float32[2]) is not in the objects",
        "  unexpected: y (a Python float) is not in the objects",
        "restore into objects made as those that were saved, or `nnx.restore(file, ..., "
        "strict=False)` takes what is in both; leave out what is not wanted: "
        "`nnx.restore(file, ..., y=None)`",
    ]
    assert_same(values(others), before)


def test_strict_false_takes_what_is_in_both_and_cast_converts(file):
    nnx.save(file, a=nnx.Param(jnp.ones(2)), b=nnx.Param(jnp.ones(2)), n=nnx.Variable(3))
    a, c, n = nnx.Param(jnp.zeros(2, jnp.bfloat16)), nnx.Param(jnp.zeros(2)), nnx.Variable(0.5)
    with pytest.raises(nnx.StructureError) as caught:
        nnx.restore(file, strict=False, a=a, c=c)
    assert str(caught.value).count("\n") == 2  # what is missing or unexpected passes
    nnx.restore(file, strict=False, cast=True, a=a, c=c, n=n)
    assert a.value.dtype == jnp.bfloat16 and (a == 1).all() and (c == 0).all()
    assert type(n.value) is float and n.value == 3.0


def test_nothing_in_both_is_an_error(file):
    nnx.save(file, model=nnx.Param(jnp.ones(2)), ema=nnx.Param(jnp.ones(2)))
    other = nnx.Param(jnp.zeros(2))
    with pytest.raises(nnx.StructureError, match="  ema, model was saved, and the objects are x"):
        nnx.restore(file, strict=False, x=other)
    nnx.restore(file, strict=False, x=other, model=nnx.Param(jnp.zeros(2)))
    nnx.restore(file, strict=False)
    assert (other == 0).all()


def test_what_is_not_wanted_is_left_out_by_none(file):
    nnx.save(file, **objects(0))
    model = Net(1)
    nnx.restore(file, model=model, optimizer=None)
    assert_same(values(model), values(Net(0)))


def test_an_array_cannot_be_restored_in_place(file):
    nnx.save(file, x=jnp.ones(2), y=[jnp.ones(2)], z=(np.ones(2),))
    with pytest.raises(TypeError, match=r"x is an array, .*take it from `nnx.load\(file\)\['x'\]`"):
        nnx.restore(file, x=jnp.zeros(2), y=None, z=None)
    y = [jnp.zeros(2)]
    nnx.restore(file, x=None, y=y, z=None)
    assert (y[0] == 1).all()
    with pytest.raises(TypeError, match=r"z\[0\] is an array, .*place where it is: .*\['z\.0'\]"):
        nnx.restore(file, x=None, y=y, z=(np.zeros(2),))


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (
            nnx.Variable(np.array([object()])),
            "x.a: expected an array .*, found an array of dtype",
        ),
        (
            nnx.Variable("text"),
            "x.a: expected an array of numbers, PRNG keys or a Python number",
        ),
        ({(1, 2): nnx.Variable(1)}, r"cannot save .*the key \(1, 2\) is neither a name nor an int"),
        (nnx.Variable(jax.ShapeDtypeStruct((2,), "float32")), "cannot save x.a: it has no .* abst"),
        ({"step": 3}, r"x.a.step is a plain number or text, .*: give it as `meta=\{'step': ...\}`"),
    ],
    ids=["objects", "text", "key", "abstract", "plain"],
)
def test_what_cannot_be_saved(file, node, message):
    with pytest.raises(TypeError, match=message):
        nnx.save(file, x={"a": node})
    assert not file.exists()


@pytest.mark.parametrize("name", ["strict", "cast"])
def test_names_that_restoring_has_as_options(file, name):
    with pytest.raises(TypeError, match=f"'{name}' is an option of `nnx.restore`: save the object"):
        nnx.save(file, **{name: nnx.Variable(1)})


def test_values_that_are_gone_or_traced_cannot_be_saved(file):
    model = nnx.Param(jnp.ones(2))
    with pytest.raises(TypeError, match=r"no value yet, as it is traced: save outside"):
        nnx.jit(lambda model: nnx.save(file, model=model))(model)
    model.get_raw_value().delete()
    with pytest.raises(ValueError, match="cannot save model: its array was donated to a compiled"):
        nnx.save(file, model=model)


def test_nothing_is_restored_into_what_is_traced(file):
    model = nnx.Param(jnp.ones(2))
    nnx.save(file, model=model)
    with pytest.raises(TypeError, match="cannot restore model: it is traced: restore outside of"):
        nnx.jit(lambda model: nnx.restore(file, model=model))(model)
    assert (model == 1).all()


def test_an_array_that_was_donated_is_restored(file):
    model = {"x": nnx.Param(jnp.ones(2)), "key": nnx.Variable(jax.random.key(3))}
    nnx.save(file, model=model)
    for variable in model.values():
        variable.get_raw_value().delete()
    nnx.restore(file, model=model)
    assert (model["x"] == 1).all() and model["key"].value == jax.random.key(3)


def test_keys_of_any_text_stay_apart(file):
    keys = [
        "",
        " ",
        ".",
        "a.b",
        "a/b",
        "a[0]",
        "0",
        "-1",
        "00",
        "'",
        '"',
        "\n",
        "@x",
        "\ud800",
        "é",
    ]
    keys += ["__metadata__", "weft", "x" * 1000, 0, -1, 10**12]
    saved = {key: nnx.Variable(jnp.full(2, i)) for i, key in enumerate(keys)}
    nnx.save(file, **{"": saved, "a.b": nnx.Variable(7)})
    restored = {key: nnx.Variable(jnp.zeros(2, int)) for key in keys}
    nnx.restore(file, **{"": restored, "a.b": nnx.Variable(0)})
    assert all((restored[key] == saved[key]).all() for key in keys)
    assert len(nnx.load(file)) == len(keys) + 1 and len(nnx.load(file).state()[""]) == len(keys)


# -- what is shared


def test_a_shared_variable_is_written_once_and_found_on_each_of_its_paths(file):
    model = Net(0)
    nnx.save(file, agent={"model": model}, model=model)
    assert "model.number" not in nnx.load(file) and "agent.model.number" in nnx.load(file)
    other = Net(1)
    nnx.restore(file, agent=None, model=other)
    assert_same(values(other), values(model))
    nnx.save(file, model=model)
    other = Net(1)
    nnx.restore(file, agent={"model": other}, model=other)
    assert_same(values(other), values(model))


def test_a_change_of_what_is_shared_is_found(file):
    weight = nnx.Param(jnp.ones(2))
    nnx.save(file, a=weight, b=weight)
    a, b = nnx.Param(jnp.zeros(2)), nnx.Param(jnp.zeros(2))
    with pytest.raises(nnx.StructureError, match="shared: b was saved as one with a, and is one o"):
        nnx.restore(file, a=a, b=b)
    nnx.restore(file, strict=False, a=a, b=b)
    assert (a == 1).all() and (b == 1).all()
    nnx.save(file, a=a, b=nnx.Param(jnp.zeros(2)))
    with pytest.raises(nnx.StructureError, match="shared: b was saved as one of its own, and is o"):
        nnx.restore(file, a=weight, b=weight)


def test_cycles(file):
    model = nnx.Dict(weight=nnx.Param(1.0))
    model.me = model
    nnx.save(file, model=model)
    model.weight.value = 2.0
    nnx.restore(file, model=model)
    assert model.weight.value == 1.0


# -- Python numbers


def test_numbers_that_a_compiled_function_changed_fit_where_they_came_from(file):
    count = nnx.Variable(0)
    nnx.jit(lambda count: count.set_value(count.value + 1))(count)
    assert isinstance(count.value, jax.Array)
    nnx.save(file, count=count, number=nnx.Variable(5))
    fresh, abstract = nnx.Variable(0), nnx.eval_shape(lambda: nnx.Variable(jnp.asarray(0)))
    nnx.restore(file, count=fresh, number=abstract)
    assert fresh.value.weak_type and fresh.value.dtype == jnp.int32 and int(fresh.value) == 1
    assert abstract.value == 5
    strong = nnx.Variable(jnp.zeros((), jnp.int32))
    with pytest.raises(nnx.StructureError, match="saved a Python int, wanted float32"):
        nnx.restore(file, count=None, number=nnx.Variable(jnp.zeros(())))
    nnx.restore(file, cast=True, count=None, number=strong)
    assert strong.value.dtype == jnp.int32 and int(strong.value) == 5


@pytest.mark.parametrize("number", [True, 3, -(2**80), 0.1, -0.0, float("inf"), 1e-300, 2 - 3j])
def test_python_numbers_come_back(file, number):
    nnx.save(file, x=nnx.Variable(number))
    found = nnx.Variable(type(number)(0))
    nnx.restore(file, x=found)
    assert type(found.value) is type(number) and repr(found.value) == repr(number)


# -- without objects, and files of others


def test_load_maps_arrays(file):
    nnx.save(file, x=objects(0))
    saved = nnx.load(file)
    kernel = saved["x.model.layers.0.kernel"]
    assert not kernel.flags.owndata and not kernel.flags.writeable
    assert "x.model.tied" not in saved and len(saved) == len(list(saved))
    assert saved["x.model.dropout.rngs.key"].dtype == jax.random.key(0).dtype
    assert saved["x.model.number"] == 0.1
    model = Net(1)
    nnx.update(model.layers, saved.state()["x"]["model"]["layers"])
    assert_same(values(model.layers), values(Net(0).layers))
    with pytest.raises(KeyError, match=r"run.safetensors has no 'nothing'; it has .* more: `list"):
        saved["nothing"]


def test_files_of_others(file):
    arrays = {"model.0.weight": np.arange(6.0).reshape(2, 3), "model.1.weight": np.ones(2, "i4")}
    safetensors.numpy.save_file(arrays, file, {"author": "A"})
    saved = nnx.load(file)
    assert saved.meta == {"author": "A"} and saved.paths["model.0.weight"] == ("model", 0, "weight")
    assert_same(dict(saved), arrays)
    model = [{"weight": nnx.Param(np.zeros((2, 3)))}, {"weight": nnx.Param(jnp.zeros(2, int))}]
    assert nnx.restore(file, model=model) == {"author": "A"}
    assert (model[1]["weight"] == 1).all()
    np.testing.assert_array_equal(model[0]["weight"].value, arrays["model.0.weight"])


def test_names_of_others_are_those_of_their_file(file):
    arrays = {name: np.ones(1) for name in ("a b", "a..b", "'q'", "@p", "-1", "00", "x/y:0")}
    safetensors.numpy.save_file(arrays, file)
    saved = nnx.load(file)
    assert set(saved) == set(arrays) and (saved["a b"] == 1).all()
    assert saved.paths["a..b"] == ("a", "", "b")
    with pytest.raises(KeyError, match=r"has no .a\.b.; it has"):
        saved["a.b"]


def test_others_read_the_file(file):
    saved = objects(0)
    nnx.save(file, half=nnx.Param(jnp.ones(2, jnp.bfloat16)), **saved)
    found = safetensors.numpy.load_file(file)
    assert found["half"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(found["model.layers.0.kernel"], saved["model"].layers[0].kernel)
    assert found["model.dropout.rngs.key"].dtype == np.uint32
    with safetensors.safe_open(file, "numpy") as opened:
        assert set(opened.metadata()) == {"weft", "weft.crc32"}


def test_metrics_averages_and_random_streams(file):
    def make(seed):
        model = nnx.Linear(2, 3, rngs=nnx.Rngs(seed))
        metrics = nnx.MultiMetric(loss=nnx.metrics.Average(), accuracy=nnx.metrics.Accuracy())
        return {"ema": nnx.EMA(model, 0.9), "rngs": nnx.Rngs(seed, dropout=7), "metrics": metrics}

    saved, restored = make(0), make(1)
    saved["metrics"].update(
        values=jnp.ones(3), logits=jnp.eye(3), labels=jnp.arange(3, dtype=jnp.int32)
    )
    saved["rngs"].dropout()
    nnx.save(file, **saved)
    nnx.restore(file, **restored)
    assert_same(values(restored), values(saved))
    assert_same(restored["metrics"].compute(), saved["metrics"].compute())


# -- in several pieces


def test_abstract_objects_are_made_where_their_metadata_says(file):
    def make(seed=0):
        metadata = {"out_sharding": (None, "x")}
        return nnx.Linear(4, 8, kernel_metadata=metadata, rngs=nnx.Rngs(seed))

    saved = make()
    nnx.save(file, model=saved)
    for kind in (jax.sharding.AxisType.Auto, jax.sharding.AxisType.Explicit):
        mesh = make_mesh((4,), ("x",), axis_types=(kind,))
        with jax.set_mesh(mesh):
            abstract = nnx.eval_shape(make)
            nnx.restore(file, model=abstract)
        assert abstract.kernel.value.sharding == NamedSharding(mesh, PartitionSpec(None, "x"))
        np.testing.assert_array_equal(abstract.kernel, saved.kernel)


MESHES = [((2, 2), ("x", "y")), ((4,), ("x",)), ((3,), ("x",)), ((1,), ("x",))]


@pytest.mark.parametrize(("shape", "axes"), MESHES)
@pytest.mark.parametrize("spec", [("x",), (None, "x"), ()], ids=str)
def test_restores_onto_other_meshes(file, shape, axes, spec):
    value = jnp.arange(144.0).reshape(12, 12)
    square = NamedSharding(make_mesh((2, 2), ("a", "b")), PartitionSpec("a", "b"))
    nnx.save(file, x=nnx.Param(jax.device_put(value, square)))
    sharding = NamedSharding(make_mesh(shape, axes), PartitionSpec(*spec))
    for old in (
        jax.device_put(jnp.zeros((12, 12)), sharding),
        jax.ShapeDtypeStruct((12, 12), jnp.float32, sharding=sharding),
    ):
        found = nnx.Param(old)
        nnx.restore(file, x=found)
        assert found.value.sharding == sharding
        np.testing.assert_array_equal(found, value)
