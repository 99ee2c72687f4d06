"""Linen Modules inside models of Weft."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx

linen = pytest.importorskip("flax.linen", reason="flax is not installed")

X = jnp.arange(6.0).reshape(2, 3)


class Net(linen.Module):
    @linen.compact
    def __call__(self, x, train=False):
        x = linen.Dense(4, name="first")(x)
        x = linen.BatchNorm(use_running_average=not train)(x)
        x = linen.Dropout(0.5, deterministic=not train)(x)
        self.sow("intermediates", "hidden", x)
        return x

    def double(self, x):
        return 2 * x


@pytest.fixture
def net():
    return nnx.bridge.ToNNX(Net(), rngs=nnx.Rngs(params=0, dropout=1)).lazy_init(X)


def test_variables_become_attributes_of_their_types(net):
    paths = dict(nnx.to_flat_state(nnx.state(net)))
    assert type(paths[("first", "kernel")]) is nnx.Param
    assert type(paths[("BatchNorm_0", "mean")]) is nnx.BatchStat
    assert ("hidden",) not in paths
    assert net.first["kernel"].shape == (3, 4)
    assert isinstance(net.module, Net) and "dropout" in net.rngs


def test_a_call_equals_that_of_linen(net):
    variables = {
        "params": nnx.to_pure_dict(nnx.state(net, nnx.Param)),
        "batch_stats": nnx.to_pure_dict(nnx.state(net, nnx.BatchStat)),
    }
    np.testing.assert_array_equal(net(X), Net().apply(variables, X))


def test_mutable_collections_are_kept_in_place(net):
    mean = net.BatchNorm_0["mean"]
    net(X, train=True, mutable=["batch_stats"])
    assert net.BatchNorm_0["mean"] is mean and bool((mean.value != 0).any())
    net(X, mutable=["intermediates"])
    assert type(net.hidden) is nnx.Intermediate
    with pytest.raises(Exception, match="immutable"):
        net(X, train=True)


def test_methods_and_keys_at_the_call(net):
    np.testing.assert_array_equal(net(X, method="double"), 2 * X)
    np.testing.assert_array_equal(net(X, method=Net.double), 2 * X)
    options = {"train": True, "mutable": ["batch_stats"]}
    first = net(X, rngs={"dropout": jax.random.key(3)}, **options)
    again = net(X, rngs={"dropout": jax.random.key(3)}, **options)
    other = net(X, rngs=nnx.Rngs(dropout=4), **options)
    assert bool(((first == 0) == (again == 0)).all()) and not bool((first == other).all())
    net(X, rngs=jax.random.key(0))


def test_methods_and_fields_of_the_linen_module_are_attributes(net):
    np.testing.assert_array_equal(net.double(X), 2 * X)
    np.testing.assert_array_equal(nnx.jit(net.double)(X), 2 * X)
    assert net.double == net.double
    embed = nnx.bridge.ToNNX(linen.Embed(5, 3), rngs=nnx.Rngs(0))
    assert embed.features == 3 and embed.num_embeddings == 5
    assert nnx.bridge.lazy_init(embed.attend, X) is embed
    np.testing.assert_array_equal(embed.attend(X), X @ embed.embedding[...].T)


def test_attributes_that_nobody_has(net):
    found = "neither ToNNX nor the Dense in it has an attribute 'kernel'.*`model.lazy_init"
    with pytest.raises(AttributeError, match=found):
        nnx.bridge.ToNNX(linen.Dense(2)).kernel  # noqa: B018
    for name in ("apply", "__dlpack__"):
        with pytest.raises(AttributeError, match=f"ToNNX has no attribute '{name}'"):
            getattr(net, name)
    with pytest.raises(AttributeError, match="ToNNX has no attribute"):
        object.__new__(nnx.bridge.ToNNX).rngs  # noqa: B018


def test_it_goes_through_transforms(net):
    jitted = nnx.jit(lambda m, x: m(x, train=True, mutable=["batch_stats"]))
    before = net.BatchNorm_0["mean"].value
    jitted(net, X)
    assert bool((net.BatchNorm_0["mean"].value != before).any())
    grads = nnx.grad(lambda m, x: m(x).sum())(net, X)
    assert nnx.to_flat_state(grads).paths[-1] == ("first", "kernel")
    assert nnx.graphdef(net) == nnx.graphdef(nnx.clone(net))


def test_several_inside_a_model_are_made_by_one_call():
    class Model(nnx.Module):
        def __init__(self, rngs):
            self.a = nnx.bridge.ToNNX(linen.Dense(4), rngs=rngs)
            self.b = nnx.bridge.ToNNX(linen.Dense(2), rngs=rngs)

        def __call__(self, x):
            return self.b(self.a(self.a(x) @ jnp.ones((4, 3))))

    model = Model(nnx.Rngs(0))
    assert nnx.bridge.lazy_init(model, X) is model
    assert model.a.kernel.shape == (3, 4) and model.b.kernel.shape == (4, 2)
    other = Model(nnx.Rngs(0))
    assert nnx.bridge.lazy_init(other.__call__, X) is other
    np.testing.assert_array_equal(model(X), other(X))
    assert bool((model.a.kernel.value[:, :2] != model.b.kernel.value[:3]).any())


def test_initializing_again_draws_new_values():
    layer = nnx.bridge.ToNNX(linen.Dense(4), rngs=nnx.Rngs(0)).lazy_init(X)
    kernel, value = layer.kernel, layer.kernel.value
    layer.lazy_init(X)
    assert layer.kernel is kernel and bool((kernel.value != value).any())


@pytest.mark.parametrize(
    "make",
    [lambda: jax.random.key(0), lambda: nnx.Rngs(0).params],
    ids=["key", "stream"],
)
def test_other_sources_of_keys(make):
    layer = nnx.bridge.ToNNX(linen.Dense(4), rngs=make()).lazy_init(X)
    assert layer.kernel.shape == (3, 4)


def test_without_keys_only_what_needs_none_runs():
    layer = nnx.bridge.ToNNX(linen.Dropout(0.5, deterministic=True))
    np.testing.assert_array_equal(layer.lazy_init(X)(X), X)


@pytest.mark.parametrize("wrap", ["with_partitioning", "with_logical_partitioning"])
def test_boxes_become_metadata_and_boxes_again(wrap):
    init = getattr(linen, wrap)(linen.initializers.zeros_init(), ("data", None))
    layer = nnx.bridge.ToNNX(linen.Dense(4, kernel_init=init), rngs=nnx.Rngs(0)).lazy_init(X)
    assert layer.kernel.out_sharding == ("data", None)
    assert layer(X).shape == (2, 4)
    state = nnx.state({"kernel": layer.kernel})
    boxed = nnx.bridge.variables.nnx_attrs_to_linen_vars(state)["params"]["kernel"]
    assert type(boxed) is layer.kernel.linen_meta_type and boxed.names == ("data", None)


def test_a_name_that_is_taken():
    class Clashing(linen.Module):
        @linen.compact
        def __call__(self, x):
            return self.param("to_nnx__module", lambda key: x) + x

    with pytest.raises(ValueError, match="is called to_nnx__module, where there is a Clashing"):
        nnx.bridge.ToNNX(Clashing(), rngs=nnx.Rngs(0)).lazy_init(X)
