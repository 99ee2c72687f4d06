"""`shard_map`: splitting arguments by PartitionSpecs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx
from tests.devices import make_mesh
from tests.lift.test_map import Scaled, data_mesh, error_of, stacked

P = jax.sharding.PartitionSpec


def test_shard_map_splits_and_writes_back():
    models = stacked(2)

    @nnx.shard_map(mesh=data_mesh(), in_specs=(P("data"), P("data")), out_specs=P("data"))
    def forward(m, x):
        m.seen[...] = m.seen + jnp.sum(x)
        return m.w * x

    y = forward(models, jnp.ones((2, 2)))
    np.testing.assert_array_equal(y, [[0, 0], [1, 1]])
    np.testing.assert_array_equal(models.seen, [2.0, 2.0])


def test_shard_map_with_specs_by_filter():
    model = Scaled(4)
    specs = nnx.StateSharding({nnx.Param: P("data"), ...: P()})

    def forward(m, x):
        assert m.w.shape == (2,)
        m.seen[...] = jax.lax.psum(jnp.sum(m.w * x), "data")

    nnx.shard_map(forward, mesh=data_mesh(), in_specs=(specs, P("data")), out_specs=P())(
        model, jnp.arange(4.0)
    )
    assert model.seen[...] == 6.0


def test_shard_map_leaves_what_it_only_reads_where_it_is():
    model = Scaled()
    specs = {"in_specs": (P(), P("data")), "out_specs": P("data")}
    y = nnx.shard_map(lambda m, x: m.w * x, mesh=data_mesh(), **specs)(model, jnp.ones(4))
    assert len(y.sharding.device_set) == 2
    assert len(model.w[...].sharding.device_set) == len(model.seen[...].sharding.device_set) == 1


def test_shard_map_takes_the_mesh_that_is_set_and_keywords_whole():
    with jax.set_mesh(data_mesh()):
        f = nnx.shard_map(lambda x, *, scale: x * scale, in_specs=P("data"), out_specs=P("data"))
        y = jax.jit(lambda x: f(x, scale=jnp.full(1, 2.0)))(jnp.ones(2))
    np.testing.assert_array_equal(y, [2.0, 2.0])


def test_shard_map_axis_names_and_check():
    mesh = make_mesh((2, 2), ("a", "b"), axis_types=(jax.sharding.AxisType.Auto,) * 2)

    @nnx.shard_map(mesh=mesh, in_specs=P("a"), out_specs=P("a"), axis_names={"a"}, check_vma=False)
    def f(x):
        return x + jax.lax.axis_index("a")

    np.testing.assert_array_equal(jax.jit(f)(jnp.zeros(2, jnp.int32)), [0, 1])


def test_shard_map_of_a_method():
    model = Scaled()
    f = nnx.shard_map(model.__call__, mesh=data_mesh(), in_specs=P(), out_specs=P())
    f(jnp.ones(2))
    assert model.seen[...] == 2.0


def test_shard_map_refuses_a_split_write_to_a_shared_variable():
    f = nnx.shard_map(
        lambda m, x: m(x), mesh=data_mesh(), in_specs=(P(), P("data")), out_specs=P("data")
    )
    message = error_of(ValueError, f, Scaled(1), jnp.ones(2))
    assert "written to m.seen, shared by all slices" in message
    assert "jax.lax.pmean(x, axis_name)" in message


# -- mistakes


def doubled(m, x):
    return x * 2.0


@pytest.mark.parametrize(
    ("specs", "shape", "found"),
    [
        ((P(), P("data")), (3, 2), "splits x of shape (3, 2) as P('data',) into 2 parts, which 3"),
        ((P(), P(None, ("data",))), (2, 3), "into 2 parts, which 3 cannot be divided by. Pad it"),
        ((P(), P(None, None, "data")), (2, 2), "splits x as P(None, None, 'data'), but its shape"),
        ((P("data"), P()), (2, 2), "splits m.seen as P('data',), but its shape is ()"),
        ((P(), P("rows")), (2, 2), "P('rows',) names the axis 'rows', but the mesh has 'data'"),
        ((P(), "data"), (2, 2), "takes PartitionSpecs or None, found 'data'"),
    ],
)
def test_specs_that_do_not_fit_name_the_argument(specs, shape, found):
    def run():
        nnx.shard_map(doubled, mesh=data_mesh(), in_specs=specs, out_specs=P())(
            Scaled(2), jnp.ones(shape)
        )

    message = error_of((ValueError, TypeError), run)
    assert found in message
    assert "nnx.shard_map of 'doubled'" in message
    assert f"\n  function:  doubled(m, x)\n  in_specs:  {specs!r}\n  out_specs: P()" in message


def test_outputs_that_do_not_fit():
    def run(f, out_specs):
        options = {"mesh": data_mesh(), "in_specs": (P(), P("data")), "out_specs": out_specs}
        return error_of(nnx.PrefixError, nnx.shard_map(f, **options), Scaled(2), jnp.ones(2))

    message = run(lambda m, x: {"sum": x.sum()}, {"sum": P("data")})
    assert "puts output.sum together as P('data',) says, but one slice of it has" in message
    message = run(lambda m, x: x.sum(), P())
    assert "a value with the mapped axis is returned as shared" in message
    assert "`check_vma=False` trusts you" in message
    assert "output is a single array, but its prefix is the tuple" in run(doubled, (P(), P()))
