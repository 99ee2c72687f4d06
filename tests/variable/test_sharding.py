"""Sharding of single values: eager sharding, rules, constraints, and plans that do not fit."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.layout import Format, Layout
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import weft as nnx
from tests.devices import make_mesh
from weft import spmd

KINDS = {"auto": AxisType.Auto, "explicit": AxisType.Explicit}


@pytest.fixture(params=KINDS)
def mesh(request):
    return make_mesh((2, 2), ("data", "model"), axis_types=(KINDS[request.param],) * 2)


@pytest.fixture
def auto_mesh():
    return make_mesh((2, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)


def spec_of(array):
    """The spec without trailing Nones, which say nothing."""
    entries = list(array.sharding.spec)
    while entries and entries[-1] is None:
        entries.pop()
    return tuple(entries)


# -- eager sharding
def test_a_value_is_sharded_under_a_mesh(mesh):
    with jax.set_mesh(mesh):
        param = nnx.Param(jnp.ones((4, 2)), out_sharding=("data", "model"))
    assert param.value.sharding == NamedSharding(mesh, P("data", "model"))
    np.testing.assert_array_equal(param.value, np.ones((4, 2)))


@pytest.mark.parametrize(
    ("plan", "spec"),
    [
        (("data",), ("data",)),
        (P("data", None), ("data",)),
        ((None, "model"), (None, "model")),
        ((("data", "model"), None), (("data", "model"),)),
        ((), ()),
        (P("data", P.UNCONSTRAINED), ("data",)),
    ],
)
def test_plans_of_every_form(mesh, plan, spec):
    with jax.set_mesh(mesh):
        param = nnx.Param(jnp.ones((4, 4)), out_sharding=plan)
    assert spec_of(param.value) == spec
    assert param.out_sharding == plan


@pytest.mark.parametrize("name", ["sharding", "sharding_names", "out_sharding"])
def test_every_spelling_of_the_metadata_shards(auto_mesh, name):
    with jax.set_mesh(auto_mesh):
        param = nnx.Param(jnp.ones((4, 2)), **{name: ("data", None)})
    assert spec_of(param.value) == ("data",)
    assert param.get_metadata(name) == ("data", None)


@pytest.mark.parametrize(("traced", "around"), [(False, True), (False, False), (True, True)])
def test_a_sharding_is_a_plan_with_its_mesh(mesh, around, traced):
    plan = NamedSharding(mesh, P("data", None))
    make = lambda: nnx.Param(jnp.ones((4, 2)), out_sharding=plan)  # noqa: E731
    with jax.set_mesh(mesh) if around else contextlib.nullcontext():
        param = (jax.jit(make) if traced else make)()
    assert param.value.sharding.mesh == mesh and spec_of(param.value) == ("data",)
    assert param.out_sharding is plan
    assert nnx.get_partition_spec({"a": param})["a"].value == plan.spec
    (found,) = jax.tree.leaves(nnx.get_named_sharding({"a": param}, mesh))
    assert found == plan
    with jax.set_mesh(mesh):
        assert nnx.as_abstract(nnx.Dict(a=param)).a.sharding == plan


def test_a_sharding_says_where_in_memory(auto_mesh):
    plan = NamedSharding(auto_mesh, P("data"), memory_kind="pinned_host")
    param = nnx.Param(jnp.ones((4, 2)), out_sharding=plan)
    assert param.value.sharding.memory_kind == "pinned_host"


def test_a_sharding_keeps_its_form_when_axes_come_and_go(auto_mesh):
    plan = NamedSharding(auto_mesh, P("data", None))
    param = nnx.Param(jnp.ones((4, 2)), out_sharding=plan)
    param.add_axis(0, "model")
    assert param.out_sharding == NamedSharding(auto_mesh, P("model", "data", None))
    param.remove_axis(0, "model")
    assert param.out_sharding == plan
    axes = nnx.StateAxes({nnx.Param: 0})
    make = lambda key: nnx.Linear(  # noqa: E731
        4, 2, kernel_metadata={"out_sharding": plan}, rngs=nnx.Rngs(key)
    )
    metadata = {nnx.PARTITION_NAME: None}
    stacked = nnx.vmap(make, out_axes=axes, transform_metadata=metadata)(
        jax.random.split(jax.random.key(0), 3)
    )
    assert stacked.kernel.out_sharding == NamedSharding(auto_mesh, P(None, "data", None))


def test_two_meshes_for_one_variable(auto_mesh):
    other = make_mesh((4,), ("data",))
    with pytest.raises(ValueError, match=r"Param of shape .* two meshes: .*sharding\.spec`"):
        nnx.Param(jnp.ones(4), out_sharding=NamedSharding(auto_mesh, P("data")), mesh=other)
    nnx.Param(jnp.ones(4), out_sharding=NamedSharding(auto_mesh, P("data")), mesh=auto_mesh)


def test_outside_a_mesh_the_value_stays():
    value = jnp.ones((4, 2))
    assert nnx.Param(value, out_sharding=("anything", None)).value is value


def test_without_eager_sharding_the_value_stays(mesh):
    value = jnp.ones((4, 2))
    with jax.set_mesh(mesh):
        assert nnx.Param(value, out_sharding=("data",), eager_sharding=False).value is value
        with nnx.use_eager_sharding(False):
            assert nnx.Param(value, out_sharding=("data",)).value is value
            param = nnx.Param(value, out_sharding=("data",), eager_sharding=True)
    assert spec_of(param.value) == ("data",)


def test_the_mesh_may_be_metadata(mesh):
    param = nnx.Param(jnp.ones((4, 2)), out_sharding=("data",), mesh=mesh)
    assert param.value.sharding.mesh == mesh
    assert spec_of(param.value) == ("data",)


def test_inside_jit_it_is_a_constraint(mesh):
    @jax.jit
    def make():
        drawn = nnx.Param(jnp.ones((4, 2)), out_sharding=("data",))
        constant = nnx.Param(np.ones((4, 2), np.float32), out_sharding=(None, "model"))
        return drawn, constant

    with jax.set_mesh(mesh):
        drawn, constant = make()
    assert spec_of(drawn.value) == ("data",)
    assert spec_of(constant.value) == (None, "model")


def test_inside_jit_with_the_mesh_as_metadata(auto_mesh):
    param = jax.jit(lambda: nnx.Param(jnp.ones((4, 2)), out_sharding=("data",), mesh=auto_mesh))()
    assert spec_of(param.value) == ("data",)


def test_a_mesh_with_axes_of_both_types():
    mesh = make_mesh((2, 2), ("data", "model"), axis_types=(AxisType.Auto, AxisType.Explicit))
    with jax.set_mesh(mesh):
        make = lambda: nnx.Param(jnp.ones((4, 2)), out_sharding=("data", "model"))  # noqa: E731
        assert spec_of(make().value) == ("data", "model")
        assert spec_of(jax.jit(make)().value) == ("data", "model")


def test_inside_vmap_the_unbatched_value_is_meant(auto_mesh):
    with jax.set_mesh(auto_mesh):
        make = lambda x: nnx.Param(x, out_sharding=("data", None))  # noqa: E731
        param = jax.vmap(make)(jnp.ones((3, 4, 2)))
    assert param.value.shape == (3, 4, 2)


def test_pytrees_keys_abstract_and_other_values(auto_mesh):
    with jax.set_mesh(auto_mesh):
        tree = nnx.Param({"a": jnp.ones((4, 2)), "b": jnp.ones(2)}, out_sharding=("data",))
        keys = nnx.Variable(jax.random.split(jax.random.key(0), 4), out_sharding=("data",))
        abstract = nnx.Param(jax.ShapeDtypeStruct((4,), jnp.float32), out_sharding=("data",))
        scalar = nnx.Param(1.0, out_sharding=())
        text = nnx.Variable("name", out_sharding=("data",))
    assert spec_of(tree.value["a"]) == spec_of(tree.value["b"]) == ("data",)
    assert spec_of(keys.value) == spec_of(abstract.value) == ("data",)
    assert scalar.value == 1.0 and text.value == "name"


def test_layers_are_sharded_through_their_initializers_and_metadata(mesh):
    with jax.set_mesh(mesh):
        layer = nnx.Linear(
            4,
            2,
            kernel_init=nnx.with_partitioning(nnx.initializers.lecun_normal(), ("data", "model")),
            bias_metadata={"out_sharding": ("model",)},
            rngs=nnx.Rngs(0),
        )
    assert spec_of(layer.kernel.value) == ("data", "model")
    assert spec_of(layer.bias.value) == ("model",)
    plain = nnx.Linear(4, 2, rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(layer.kernel.value, plain.kernel.value)


# -- logical names
def test_rules_turn_logical_names_into_mesh_axes(mesh):
    rules = [("embed", "data"), ("heads", ("data", "model")), ("kept", None)]
    with jax.set_mesh(mesh), nnx.logical_axis_rules(rules):
        embed = nnx.Param(jnp.ones((4, 4)), out_sharding=("embed", "kept"))
        heads = nnx.Param(jnp.ones((4, 4)), out_sharding=("kept", "heads"))
        mixed = nnx.Param(jnp.ones((4, 4)), out_sharding=(("embed", "model"), None))
    assert spec_of(embed.value) == ("data",)
    assert spec_of(heads.value) == (None, ("data", "model"))
    assert spec_of(mixed.value) == (("data", "model"),)


def test_rules_of_the_variable_come_before_those_around():
    with nnx.logical_axis_rules({"x": "data", "y": "model"}):
        param = nnx.Param(jnp.ones((4, 4)), out_sharding=("x", "y"), sharding_rules=[("x", None)])
        assert spmd.get_var_pspec(param) == P(None, "model")
        with nnx.logical_axis_rules([("y", "data")]):
            assert spmd.get_var_pspec(param) == P(None, "data")
    assert spmd.get_var_pspec(param) == P(None, "y")


def test_rules_end_with_their_block_also_after_an_error():
    param = nnx.Param(jnp.ones(4), out_sharding=("x",))
    with pytest.raises(KeyError), nnx.logical_axis_rules([("x", "data")]):
        raise KeyError
    assert spmd.get_var_pspec(param) == P("x")


def test_rules_that_contradict_each_other_are_refused():
    with pytest.raises(ValueError, match=r"two logical axis rules for 'x': 'a' and 'b'"):
        with nnx.logical_axis_rules([("x", "a"), ("x", "b")]):
            pass


# -- plans that do not fit
@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (("data", None, None), r"names 3 dimensions, the value of shape \(4, 3\) has 2"),
        (("data", "data"), "mesh axis 'data' is used twice, for dimensions 0 and 1"),
        ((("data", "data"),), "mesh axis 'data' is used twice, for dimensions 0 and 0"),
        (("vocab", None), r"'vocab' is no axis of the mesh \{'data': 2, 'model': 2\}"),
        ((None, "model"), "dimension 1 of size 3 cannot be cut into 2 equal parts by 'model'"),
    ],
)
@pytest.mark.parametrize("traced", [False, True], ids=["eager", "traced"])
def test_a_plan_that_does_not_fit(mesh, plan, message, traced):
    make = lambda: nnx.Param(jnp.ones((4, 3)), out_sharding=plan)  # noqa: E731
    with jax.set_mesh(mesh), pytest.raises(ValueError, match=message) as caught:
        (jax.jit(make) if traced else make)()
    text = str(caught.value)
    assert "Param of shape (4, 3) (made at" in text and "test_sharding.py" in text
    assert f"out_sharding={plan!r}" in text and "nnx.logical_axis_rules" in text


def test_a_scalar_has_no_dimension_to_cut(auto_mesh):
    with jax.set_mesh(auto_mesh), pytest.raises(ValueError, match="names 1 dimensions"):
        nnx.Param(1.0, out_sharding=("data",))


@pytest.mark.parametrize("plan", ["data", 3, "a layout"], ids=repr)
def test_a_plan_of_the_wrong_type(auto_mesh, plan):
    if plan == "a layout":
        plan = Format(Layout((0,)), NamedSharding(auto_mesh, P("data")))
    with (
        jax.set_mesh(auto_mesh),
        pytest.raises(TypeError, match="names no mesh axis per dimension"),
    ):
        nnx.Param(jnp.ones(4), out_sharding=plan)


# -- constraints
def test_a_constraint_without_a_mesh_does_nothing():
    x = jnp.ones((4, 2))
    assert spmd.with_logical_constraint(x, ("data", None)) is x


def test_a_constraint_on_activations(mesh):
    with jax.set_mesh(mesh), nnx.logical_axis_rules([("batch", "data")]):
        f = jax.jit(lambda x: spmd.with_logical_constraint(x * 2, ("batch", None)))
        assert spec_of(f(jnp.ones((4, 2)))) == ("data",)


def test_a_constraint_takes_a_mesh(auto_mesh):
    x = spmd.with_logical_constraint(jnp.ones((4, 2)), ("data",), mesh=auto_mesh)
    assert spec_of(x) == ("data",)


def test_a_constraint_that_does_not_fit(auto_mesh):
    with jax.set_mesh(auto_mesh), pytest.raises(ValueError, match=r"the array, out_sharding=\('a"):
        spmd.with_logical_constraint(jnp.ones(4), ("a",))


@pytest.mark.parametrize("manual", [{"data"}, {"data", "model"}], ids=["some", "all"])
def test_constraints_leave_manual_axes_out(mesh, manual):
    def body(x):
        param = nnx.Param(x, out_sharding=("data", "model"))
        return spmd.with_logical_constraint(param.value, (("data", "model"), None))

    specs = P("data", "model") if len(manual) == 2 else P("data")
    with jax.set_mesh(mesh):
        mapped = jax.shard_map(body, in_specs=specs, out_specs=specs, axis_names=manual)
        y = jax.jit(mapped)(jax.device_put(jnp.ones((4, 4)), specs))
    np.testing.assert_array_equal(y, np.ones((4, 4)))


def test_a_mesh_as_metadata_knows_the_manual_axes_around(auto_mesh):
    def body(x):
        return nnx.Param(x, out_sharding=("data", "model"), mesh=auto_mesh).value

    with jax.set_mesh(auto_mesh):
        mapped = jax.shard_map(body, in_specs=P("data"), out_specs=P("data"), axis_names={"data"})
        assert jax.jit(mapped)(jnp.ones((4, 4))).shape == (4, 4)
