"""`prefix`: axes of a whole model, worked out by filters or a function."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx


@pytest.fixture
def norm():
    return nnx.BatchNorm(2, rngs=nnx.Rngs(0))


def axes_of(prefix):
    return {name: getattr(prefix, name) for name in ("bias", "mean", "scale", "var")}


@pytest.mark.parametrize(
    "filter_map",
    [
        {nnx.Param: 0, ...: None},
        nnx.StateAxes({nnx.Param: 0, ...: None}),
        lambda path, variable: 0 if path[-1] in ("bias", "scale") else None,
    ],
    ids=["mapping", "StateAxes", "function"],
)
def test_axes_of_a_model(norm, filter_map):
    prefix = nnx.prefix(norm, filter_map)
    assert type(prefix) is nnx.BatchNorm and axes_of(prefix) == {
        "bias": 0,
        "mean": None,
        "scale": 0,
        "var": None,
    }


def test_axes_are_used_by_vmap():
    models = nnx.vmap(lambda key: nnx.Linear(2, 3, rngs=nnx.Rngs(key)))(jnp.arange(4))
    models.bias.value = jnp.zeros(3)
    axes = nnx.prefix(models, {nnx.PathContains("kernel"): 0, ...: None})
    y = nnx.vmap(lambda m, x: m(x), in_axes=(axes, None))(models, jnp.ones(2))
    np.testing.assert_allclose(y, models.kernel.value.sum(1), rtol=1e-6)


class Model(nnx.Module):
    def __init__(self):
        self.layers = [nnx.Linear(2, 2, rngs=nnx.Rngs(i)) for i in range(2)]
        self.offset, self.rate = jnp.ones(2), 0.5

    def __call__(self, x):
        for layer in self.layers:
            x = layer(x)
        return x * self.rate + self.offset


@pytest.mark.parametrize("transform", [jax.vmap, nnx.vmap], ids=["jax", "weft"])
def test_a_prefix_for_transforms_of_both_libraries(transform):
    is_bias = nnx.PathContains("bias")
    model = Model()
    axes = nnx.prefix(model, {is_bias: 0, "offset": None, ...: None})
    widened = transform(lambda: Model(), out_axes=axes, axis_size=3)()
    shapes = {path[-1]: x.shape for path, x in nnx.to_flat_state(nnx.state(widened))}
    assert shapes == {"bias": (3, 2), "kernel": (2, 2), "offset": (2,)}
    y = transform(lambda m, x: m(x), in_axes=(axes, None))(widened, jnp.ones(2))
    np.testing.assert_array_equal(y, jnp.broadcast_to(model(jnp.ones(2)), (3, 2)))


def test_shardings_by_a_prefix():
    replicated = jax.NamedSharding(jax.make_mesh((4,), ("d",)), jax.P())
    model = Model()
    shardings = nnx.prefix(model, {...: replicated})
    assert jax.device_put(model, shardings).offset.sharding == replicated
    for jit in (jax.jit, nnx.jit):
        made = jit(Model, out_shardings=shardings)()
        assert made.layers[1].kernel.get_value().sharding == replicated
    nnx.jit(lambda m: m.offset + 1, in_shardings=(shardings,))(model)


def test_layers_of_a_scan():
    layers = nnx.vmap(lambda rngs: nnx.Linear(2, 2, rngs=rngs))(nnx.Rngs(0).split(3))
    axes = nnx.prefix(layers, {...: 0})
    scan = nnx.scan(lambda m, x: m(x), in_axes=(axes, nnx.Carry), out_axes=nnx.Carry)
    expected = nnx.scan(lambda m, x: m(x), in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
    x = jnp.ones(2)
    np.testing.assert_array_equal(scan(layers, x), expected(layers, x))


def test_shared_layers_and_cycles():
    model = nnx.Dict(a=nnx.Linear(2, 2, rngs=nnx.Rngs(0)))
    model.b = model.a
    call = lambda m: m.a(jnp.ones(2)) + m.b(jnp.ones(2))  # noqa: E731
    axes = nnx.prefix(model, {...: None})
    assert nnx.vmap(call, in_axes=(axes,), axis_size=2)(model).shape == (2, 2)
    model.me = model  # has no pytree form
    axes = nnx.prefix(model, {...: None})
    assert axes.map_prefix(("a", "kernel"), None) is None
    assert nnx.vmap(call, in_axes=(axes,), axis_size=2)(model).shape == (2, 2)


def test_prefixes_of_a_tree_see_paths_from_its_root(norm):
    paths = []

    def choose(path, value):
        paths.append(path)
        return 1

    tree = nnx.prefix({"m": norm, "x": jnp.ones(2), "v": nnx.Param(1.0)}, choose)
    assert tree["x"] == tree["v"] == 1
    assert axes_of(tree["m"]) == dict.fromkeys(["bias", "mean", "scale", "var"], 1)
    assert set(paths) == {("m", n) for n in ("bias", "mean", "scale", "var")} | {("x",), ("v",)}


def test_errors(norm):
    with pytest.raises(nnx.PrefixError, match="matches mean, a BatchStat"):
        nnx.prefix(norm, {nnx.Param: 0})
    with pytest.raises(nnx.SharedReferenceError):
        nnx.prefix(nnx.Dict(a=norm, b=norm), {...: 0}, graph=False)
