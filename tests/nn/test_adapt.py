import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx
from tests.devices import make_mesh
from weft.nn.adapt import LoRAConv, LoRAEinsum, LoRALinearGeneral

P = jax.sharding.PartitionSpec
normal = nnx.initializers.normal()
rngs = nnx.Rngs(0)

# What can be adapted: the layer, the class it becomes, the shape of its inputs, and the einsum of
# the factors that gives the change of its kernel.
LAYERS = {
    "Linear": (lambda: nnx.Linear(3, 5, rngs=rngs), nnx.LoRALinear, (4, 3), "ir,ro->io"),
    "LinearGeneral": (
        lambda: nnx.LinearGeneral((3, 2), (4, 5), axis=(1, -1), rngs=rngs),
        LoRALinearGeneral,
        (6, 3, 7, 2),
        "ijr,rkl->ijkl",
    ),
    "LinearGeneral with batch axes": (
        lambda: nnx.LinearGeneral(3, 5, batch_axis={0: 2}, rngs=rngs),
        LoRALinearGeneral,
        (2, 7, 3),
        "bir,bro->bio",
    ),
    "Einsum": (
        lambda: nnx.Einsum("...ta,hab->...htb", (2, 3, 4), (2, 4), rngs=rngs),
        LoRAEinsum,
        (5, 6, 3),
        "ar,rhb->hab",
    ),
    "Einsum with a batch axis": (
        lambda: nnx.Einsum("tha,hab->thb", (2, 3, 4), rngs=rngs),
        LoRAEinsum,
        (6, 2, 3),
        "har,hrb->hab",
    ),
    "Conv": (
        lambda: nnx.Conv(3, 5, (3, 2), (2, 1), kernel_dilation=2, rngs=rngs),
        LoRAConv,
        (2, 8, 6, 3),
        "hwir,ro->hwio",
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_adapter_is_a_low_rank_change_of_the_kernel(name):
    make, adapted, shape, change = LAYERS[name]
    layer = make()
    x = jax.random.normal(jax.random.key(1), shape)
    before = layer(x)
    assert nnx.lora(layer, rank=2, alpha=4, b_initializer=normal, rngs=rngs) is layer
    assert type(layer) is adapted
    a, b = layer.lora.lora_a[...], layer.lora.lora_b[...]
    outputs = layer(x)
    layer.lora.lora_b[...] = jnp.zeros_like(b)
    np.testing.assert_array_equal(layer(x), before)
    layer.kernel[...] = layer.kernel[...] + 2.0 * jnp.einsum(change, a, b)
    np.testing.assert_allclose(outputs, layer(x), rtol=1e-4, atol=1e-5)


def make_model():
    return nnx.Dict(
        body=nnx.List([nnx.Linear(4, 4, rngs=nnx.Rngs(1)), nnx.Linear(4, 4, rngs=nnx.Rngs(2))]),
        head=nnx.Linear(4, 2, rngs=nnx.Rngs(3)),
        norm=nnx.Identity(),
    )


def adapted_paths(model):
    return [path[:-2] for path, _ in nnx.to_flat_state(nnx.state(model, nnx.LoRAParam))][::2]


@pytest.mark.parametrize(
    ("filter", "paths"),
    [
        (..., [("body", 0), ("body", 1), ("head",)]),
        (nnx.Linear, [("body", 0), ("body", 1), ("head",)]),
        (nnx.PathContains("body"), [("body", 0), ("body", 1)]),
        (lambda path, layer: layer.out_features == 2, [("head",)]),
        (nnx.All(nnx.Linear, nnx.Not(nnx.PathContains("body"))), [("head",)]),
    ],
)
def test_filter_says_which_layers(filter, paths):
    model = make_model()
    nnx.lora(model, filter, rank=2, rngs=rngs)
    assert adapted_paths(model) == paths


def test_weights_keep_their_paths_and_identity():
    model = make_model()
    model.tied = model.body[0]
    kernels = dict(nnx.to_flat_state(nnx.state(model, nnx.Param)))
    nnx.lora(model, rank=2, rngs=rngs)
    after = dict(nnx.to_flat_state(nnx.state(model, nnx.Not(nnx.LoRAParam))))
    assert after.keys() == kernels.keys()
    assert all(after[path] is kernel for path, kernel in kernels.items())
    assert model.tied is model.body[0]


def test_adapted_model_splits_merges_and_pickles():
    model = make_model()
    nnx.lora(model, rank=2, b_initializer=normal, rngs=rngs)
    x = jnp.ones((1, 4))
    for copy in (nnx.merge(*nnx.split(model)), pickle.loads(pickle.dumps(model))):
        assert type(copy.head) is nnx.LoRALinear
        np.testing.assert_array_equal(copy.body[1](x), model.body[1](x))


@pytest.mark.parametrize("options", [{}, {"param_dtype": jnp.bfloat16}, {"dtype": jnp.float32}])
def test_adapters_do_not_change_the_dtype_of_a_layer(options):
    layer = nnx.Linear(3, 5, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    nnx.lora(layer, rank=2, rngs=rngs, **options)
    assert layer(jnp.ones((1, 3))).dtype == jnp.bfloat16


def stack_of(make, num_layers, **metadata):
    """Returns a layer whose parameters are those of several layers, stacked on axis 0."""
    layers = [make() for _ in range(num_layers)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)
    if metadata:
        stacked.kernel = nnx.Param(stacked.kernel[...], **metadata)
    return stacked


def test_stacked_layers_get_stacked_adapters():
    stack = stack_of(lambda: nnx.Linear(3, 5, rngs=rngs), 4)
    nnx.lora(stack, rank=2, b_initializer=normal, rngs=rngs)
    assert stack.lora.lora_a.shape == (4, 3, 2)
    x = jax.random.normal(jax.random.key(0), (4, 7, 3))
    outputs = jax.vmap(lambda layer, x: layer(x))(stack, x)
    kernel = stack.kernel[...] + stack.lora.lora_a[...] @ stack.lora.lora_b[...]
    np.testing.assert_allclose(outputs, x @ kernel, rtol=1e-5, atol=1e-6)  # sums in another order


@pytest.mark.parametrize("spec", [("a", "b"), P("a", "b"), P("a")])
def test_factors_take_the_sharding_of_the_axes_they_share_with_the_kernel(spec):
    mesh = make_mesh((2, 2), ("a", "b"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    with jax.set_mesh(mesh):
        layer = nnx.Linear(4, 8, kernel_metadata={"out_sharding": spec}, rngs=nnx.Rngs(0))
        nnx.lora(layer, rank=2, rngs=rngs)
        names = ["a", "b" if len(spec) == 2 else None]
        a, b = layer.lora.lora_a, layer.lora.lora_b
        assert type(a.out_sharding) is type(spec)
        assert tuple(a.out_sharding) == (names[0], None)
        assert tuple(b.out_sharding) == (None, names[1])
        placed = jax.sharding.NamedSharding(mesh, P("a", None))
        assert a[...].sharding.is_equivalent_to(placed, 2)


def test_factors_of_a_stacked_kernel_get_specs_of_their_own_rank():
    mesh = make_mesh((2, 2), ("a", "b"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    with jax.set_mesh(mesh):
        stack = stack_of(
            lambda: nnx.LinearGeneral(4, (2, 6), rngs=rngs), 3, out_sharding=(None, "a", "b", None)
        )
        nnx.lora(stack, rank=2, rngs=rngs)
        assert stack.lora.lora_a.shape == (3, 4, 2)
        assert stack.lora.lora_a.out_sharding == (None, "a", None)
        assert stack.lora.lora_b.shape == (3, 2, 2, 6)
        assert stack.lora.lora_b.out_sharding == (None, None, "b", None)


def test_filter_that_means_no_layer_is_refused():
    message = r"means no layer that can be adapted; .* the model has\n  Linear at model.body\[0\]\n"
    with pytest.raises(ValueError, match=message):
        nnx.lora(make_model(), nnx.Conv, rank=2, rngs=rngs)
    with pytest.raises(ValueError, match="layers the model has none"):
        nnx.lora(nnx.Identity(), rank=2, rngs=rngs)


def test_second_adapter_is_refused():
    model = make_model()
    nnx.lora(model, nnx.PathContains("head"), rank=2, rngs=rngs)
    with pytest.raises(ValueError, match=r"LoRALinear at model.head has an adapter already: leave"):
        nnx.lora(model, rank=2, rngs=rngs)
    assert adapted_paths(model) == [("head",)]
    nnx.lora(model, lambda path, layer: not hasattr(layer, "lora"), rank=2, rngs=rngs)
    assert len(adapted_paths(model)) == 3


def test_subclass_is_refused():
    class Doubled(nnx.Linear):
        def __call__(self, x):
            return 2 * super().__call__(x)

    message = r"Doubled at .* its class changes what Linear computes: leave it out .*Not\(Doubled\)"
    with pytest.raises(ValueError, match=message):
        nnx.lora(Doubled(3, 5, rngs=rngs), rank=2, rngs=rngs)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            lambda: nnx.Einsum("ta,...ab->...tb", (3, 4), rngs=rngs),
            r"cannot adapt Einsum at .*'ta,\.\.\.ab->\.\.\.tb'\) cannot be adapted, because its k",
        ),
        (lambda: nnx.Einsum("ta,cab->tb", (2, 3, 4), rngs=rngs), "neither inputs nor outputs have"),
        (
            lambda: nnx.Einsum("ta,a->ta", (3,), kernel_init=normal, rngs=rngs),
            "its kernel is no matrix: a low-rank",
        ),
        (
            lambda: nnx.Conv(2, 4, 3, feature_group_count=2, rngs=rngs),
            "with groups or a mask cannot be adapted, found feature_group_count=2 and no mask",
        ),
        (
            lambda: nnx.Conv(2, 4, 3, mask=jnp.ones((3, 2, 4)), rngs=rngs),
            "found feature_group_count=1 and a mask: leave it out",
        ),
    ],
)
def test_layer_that_cannot_be_adapted_is_refused(layer, message):
    model = nnx.List([nnx.Linear(3, 5, rngs=rngs), layer()])
    with pytest.raises(ValueError, match=message):
        nnx.lora(model, rank=2, rngs=rngs)
    assert type(model[0]) is nnx.Linear


def test_kernel_that_does_not_fit_is_refused():
    layer = nnx.Linear(3, 5, rngs=rngs)
    layer.kernel = nnx.Param(jnp.ones((3, 7, 5)))
    message = (
        r"expected a kernel of shape \(3, 5\), or a stack .* found shape \(3, 7, 5\): move the"
    )
    with pytest.raises(ValueError, match=message):
        nnx.lora(layer, rank=2, rngs=rngs)


def test_sharding_metadata_that_does_not_fit_is_refused():
    layer = nnx.Linear(3, 5, rngs=rngs)
    layer.kernel.set_metadata(out_sharding=("a", "b", "c"))
    message = r"its kernel has 2 axes, but out_sharding=\('a', 'b', 'c'\) names 3: give one name"
    with pytest.raises(ValueError, match=message):
        nnx.lora(layer, rank=2, rngs=rngs)
