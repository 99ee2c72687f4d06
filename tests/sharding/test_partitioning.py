"""Sharding plans of whole models: specs, shardings, axes added by transforms."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import weft as nnx
from tests.devices import make_mesh
from weft import spmd

KERNEL = nnx.with_partitioning(nnx.initializers.lecun_normal(), ("data", "model"))


def make_layer():
    return nnx.Linear(4, 2, kernel_init=KERNEL, rngs=nnx.Rngs(0))


@pytest.fixture
def mesh():
    return make_mesh((2, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)


# -- metadata
def test_with_partitioning_gives_metadata(mesh):
    def hook(variable, value):
        return value

    init = nnx.with_partitioning(
        nnx.initializers.zeros_init(), ("data", None), mesh, on_get_value=hook, group="decay"
    )
    param = nnx.Param(init(jax.random.key(0), (4, 2), jnp.float32))
    assert param.get_metadata() == {
        "out_sharding": ("data", None),
        "mesh": mesh,
        "group": "decay",
        "on_get_value": (hook,),
    }
    assert param.value.sharding == NamedSharding(mesh, P("data", None))


def test_without_a_mesh_there_is_no_metadata_for_it():
    assert make_layer().kernel.get_metadata() == {"out_sharding": ("data", "model")}


# -- specs
def test_specs_stand_in_the_place_of_values():
    tree = {"layer": make_layer(), "array": jnp.ones(3), "number": 2, "none": None}
    specs = nnx.get_partition_spec(tree)
    assert type(specs["layer"]) is nnx.Linear and type(specs["layer"].kernel) is nnx.Param
    assert specs["layer"].kernel.value == P("data", "model")
    assert specs["layer"].bias.value == P()
    assert specs["array"] == P()
    assert specs["number"] is None and specs["none"] is None
    assert specs["layer"].kernel.out_sharding == ("data", "model")


def test_specs_of_a_state_are_a_prefix_for_jax():
    state = nnx.state(make_layer())
    specs = nnx.get_partition_spec(state)
    ranks = jax.tree.map(lambda x, spec: (x.ndim, len(spec)), state, specs)
    assert ranks.kernel.value == (2, 2) and ranks.bias.value == (1, 0)


def test_a_sharded_value_without_a_plan_says_where_it_is(mesh):
    value = jax.device_put(jnp.ones((4, 2)), NamedSharding(mesh, P("data")))
    param = nnx.Param(value)
    assert spmd.get_var_pspec(param) == P("data")
    assert nnx.get_partition_spec({"a": value})["a"] == P("data")
    assert nnx.get_named_sharding({"a": param}, mesh)["a"].value.spec == P("data")
    assert param.sharding == value.sharding
    other = make_mesh((4,), ("x",), axis_types=(AxisType.Auto,))
    assert nnx.get_named_sharding({"a": param}, other)["a"].value == NamedSharding(other, P())


def test_a_plan_counts_more_than_where_the_value_is(mesh):
    value = jax.device_put(jnp.ones((4, 2)), NamedSharding(mesh, P("data")))
    assert spmd.get_var_pspec(nnx.Param(value, out_sharding=(None, "model"))) == P(None, "model")


def test_specs_inside_jit(mesh):
    specs = []

    @jax.jit
    def f(x):
        specs.append(spmd.get_var_pspec(nnx.Param(x)))
        return x

    f(jnp.ones(2))
    assert specs == [P()]


# -- shardings
def test_named_shardings_place_a_state(mesh):
    state = nnx.state(make_layer())
    placed = jax.device_put(state, nnx.get_named_sharding(state, mesh))
    assert placed.kernel.value.sharding == NamedSharding(mesh, P("data", "model"))
    assert placed.bias.value.sharding == NamedSharding(mesh, P())


def test_named_shardings_as_a_pure_dict(mesh):
    shardings = nnx.get_named_sharding(nnx.state(make_layer()), mesh)
    assert nnx.to_pure_dict(shardings)["kernel"] == NamedSharding(mesh, P("data", "model"))


def test_one_error_names_every_plan_that_does_not_fit(mesh):
    model = {
        "blocks": [make_layer(), nnx.Param(jnp.ones((3, 3)), out_sharding=("data", None))],
        "head": nnx.Param(jnp.ones(4), out_sharding=("vocab", None)),
        "array": 3,
    }
    with pytest.raises(ValueError, match="the sharding does not fit") as caught:
        nnx.get_named_sharding(model, mesh)
    text = str(caught.value)
    assert "blocks[1] (Param), out_sharding=('data', None): dimension 0 of size 3" in text
    assert "head (Param), out_sharding=('vocab', None): it names 2 dimensions" in text
    assert "'vocab' is no axis of the mesh" in text
    assert "kernel" not in text


# -- axes
def test_axes_are_added_and_removed_in_place():
    tree = {"a": nnx.Param(jnp.ones((2, 3)), out_sharding=("data", "model")), "b": make_layer()}
    layers = {nnx.PARTITION_NAME: "layers"}
    assert spmd.add_axis(tree, 1, layers) is tree
    assert tree["a"].out_sharding == ("data", "layers", "model")
    assert tree["b"].kernel.out_sharding == ("data", "layers", "model")
    assert not tree["b"].bias.has_metadata("out_sharding")
    spmd.remove_axis(tree, 1, layers)
    assert tree["a"].out_sharding == tree["b"].kernel.out_sharding == ("data", "model")


def test_a_shared_variable_gets_one_axis():
    param = nnx.Param(jnp.ones(2), out_sharding=("data",))
    spmd.add_axis([param, {"again": param}], 0, {nnx.PARTITION_NAME: None})
    assert param.out_sharding == (None, "data")


def test_an_empty_plan_may_get_and_lose_an_axis():
    param = nnx.Param(jnp.ones(()), out_sharding=())
    spmd.add_axis(param, 0, {nnx.PARTITION_NAME: "layers"})
    spmd.remove_axis(param, 0, {nnx.PARTITION_NAME: "layers"})
    assert param.out_sharding == ()


def test_an_axis_of_a_sharded_variable_needs_a_name():
    param = nnx.Param(jnp.ones(2), out_sharding=("data",))
    with pytest.raises(ValueError, match=r"Param with out_sharding=\('data',\) .* without a name"):
        spmd.add_axis(param, 0, {})
    assert spmd.add_axis(nnx.Param(jnp.ones(2)), 0, {}).shape == (2,)


def test_removing_an_axis_of_another_name():
    param = nnx.Param(jnp.ones(2), out_sharding=("data",))
    with pytest.raises(ValueError, match="expected 'layers'"):
        spmd.remove_axis(param, 0, {nnx.PARTITION_NAME: "layers"})
