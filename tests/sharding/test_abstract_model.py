"""Models without memory: shapes, dtypes and shardings in the place of arrays."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import weft as nnx
from tests.devices import make_mesh

KERNEL = nnx.with_partitioning(nnx.initializers.lecun_normal(), ("data", "model"))


def make_layer():
    return nnx.Linear(4, 2, kernel_init=KERNEL, rngs=nnx.Rngs(0))


@pytest.fixture
def mesh():
    return make_mesh((2, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)


def test_an_abstract_model_knows_where_its_values_belong(mesh):
    graphdef, state = nnx.get_abstract_model(make_layer, mesh)
    assert state.kernel.value == jax.ShapeDtypeStruct(
        (4, 2), jnp.float32, sharding=NamedSharding(mesh, P("data", "model"))
    )
    assert state.bias.value.sharding == NamedSharding(mesh, P())
    model = nnx.merge(graphdef, state)
    assert graphdef == nnx.graphdef(make_layer()) and model.kernel.shape == (4, 2)


def test_an_abstract_model_may_share(mesh):
    def make():
        layer = make_layer()
        return nnx.Dict(a=layer, b=layer)

    _, state = nnx.get_abstract_model(make, mesh)
    assert len(nnx.to_flat_state(state)) == 2
    with pytest.raises(nnx.SharedReferenceError):
        nnx.get_abstract_model(make, mesh, graph=False)


def test_as_abstract_of_a_model(mesh):
    model = make_layer()
    model.twin = model
    assert nnx.as_abstract(model).kernel.value == jax.ShapeDtypeStruct(
        (4, 2), jnp.float32, sharding=model.kernel.value.sharding
    )
    with jax.set_mesh(mesh):
        abstract = nnx.as_abstract(model)
    assert abstract.twin is abstract and abstract is not model
    assert abstract.kernel.value.sharding == NamedSharding(mesh, P("data", "model"))
    assert isinstance(model.kernel.value, jax.Array)


def test_as_abstract_of_other_trees(mesh):
    with jax.set_mesh(mesh):
        state = nnx.as_abstract(nnx.eval_shape(lambda: nnx.state(make_layer())))
        tree = nnx.as_abstract({"a": np.ones(2, np.float32), "b": nnx.Variable("text"), "c": 3})
    assert type(state) is nnx.State
    assert state.kernel.value.sharding == NamedSharding(mesh, P("data", "model"))
    assert tree["a"].sharding == NamedSharding(mesh, P())
    assert tree["b"].value == "text" and tree["c"] == 3
    assert nnx.abstract_with_sharding is nnx.as_abstract


def test_as_abstract_inside_a_trace(mesh):
    found = []

    @jax.jit
    def f(x):
        found.append(nnx.as_abstract({"a": nnx.Param(x, out_sharding=("data",))})["a"].value)
        return x

    f(jnp.ones(4))
    with jax.set_mesh(mesh):
        f(jnp.ones(2))
    assert found[0].sharding is None and found[1].sharding.spec == P("data")


def test_as_abstract_checks_the_plans(mesh):
    with jax.set_mesh(mesh), pytest.raises(ValueError, match=r"kernel .* names 1 dim"):
        nnx.as_abstract(
            {"kernel": nnx.Param(1.0 + jnp.zeros(()), out_sharding=("data",), eager_sharding=False)}
        )


def test_as_abstract_of_variables_with_meshes_of_their_own(mesh):
    other = jax.make_mesh((4,), ("c",), axis_types=(jax.sharding.AxisType.Auto,))

    def make():
        own = jax.NamedSharding(other, jax.P(None, "c"))
        return nnx.Dict(
            a=nnx.Param(jnp.ones((4, 4)), out_sharding=("c", None), mesh=other),
            b=nnx.Param(jnp.ones((4, 4)), out_sharding=own),
            plain=nnx.Param(jnp.ones(2)),
        )

    expected = {"a": jax.P("c", None), "b": jax.P(None, "c")}
    for around in (contextlib.nullcontext(), jax.set_mesh(mesh)):
        with around:
            model = nnx.as_abstract(nnx.eval_shape(make))
        for name, spec in expected.items():
            assert getattr(model, name).sharding == jax.NamedSharding(other, spec)
