import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx

normal = nnx.initializers.normal()


def test_alone_it_is_the_product_of_its_factors():
    layer = nnx.LoRA(3, 2, 5, b_initializer=normal, scale=0.5, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (4, 3))
    expected = 0.5 * (x @ layer.lora_a[...] @ layer.lora_b[...])
    np.testing.assert_allclose(layer(x), expected, rtol=1e-5)


def test_several_features():
    layer = nnx.LoRA((2, 3), 2, (4, 5), b_initializer=normal, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (7, 2, 3))
    expected = jnp.einsum("nij,ijr,rkl->nkl", x, layer.lora_a[...], layer.lora_b[...])
    np.testing.assert_allclose(layer(x), expected, rtol=1e-5)


def test_batch_shape_draws_for_each_index():
    layer = nnx.LoRA(3, 2, 5, batch_shape=(4, 6), rngs=nnx.Rngs(0))
    assert layer.lora_a.shape == (4, 6, 3, 2)
    assert layer.lora_b.shape == (4, 6, 2, 5)
    assert len(np.unique(layer.lora_a[...])) == 4 * 6 * 3 * 2


def test_around_a_layer_it_adds_and_passes_keywords_on():
    def base(x, *, factor):
        return factor * x

    layer = nnx.LoRA(3, 2, 3, base_module=base, rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(layer(jnp.ones((1, 3)), factor=2.0), jnp.full((1, 3), 2.0))


@pytest.mark.parametrize("param_dtype", [jnp.float16, jnp.float32])
def test_dtype_is_that_of_the_result_whatever_the_inputs_are(param_dtype):
    layer = nnx.LoRA(3, 2, 5, dtype=jnp.float16, param_dtype=param_dtype, rngs=nnx.Rngs(0))
    assert layer(jnp.ones((4, 3), jnp.float32)).dtype == jnp.float16


@pytest.mark.parametrize(
    "options", [{}, {"lora_dtype": jnp.float32}, {"lora_param_dtype": jnp.float16}]
)
def test_lora_linear_has_the_dtype_of_linear(options):
    kwargs = {"lora_rank": 2, "dtype": jnp.float16, "rngs": nnx.Rngs(0), **options}
    assert nnx.LoRALinear(3, 5, **kwargs)(jnp.ones((4, 3))).dtype == jnp.float16


def test_lora_linear_adds_its_adapter():
    layer = nnx.LoRALinear(3, 5, lora_rank=2, b_initializer=normal, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (4, 3))
    kernel = layer.kernel[...] + layer.lora.lora_a[...] @ layer.lora.lora_b[...]
    np.testing.assert_allclose(layer(x), x @ kernel, rtol=1e-5)


def test_parameters_are_found_by_type_and_may_have_another():
    class Thin(nnx.LoRAParam):
        pass

    layer = nnx.LoRALinear(3, 5, lora_rank=2, rngs=nnx.Rngs(0))
    assert [path for path, _ in nnx.to_flat_state(nnx.state(layer, nnx.LoRAParam))] == [
        ("lora", "lora_a"),
        ("lora", "lora_b"),
    ]
    assert type(nnx.LoRA(3, 2, 5, lora_param_type=Thin, rngs=nnx.Rngs(0)).lora_a) is Thin


def test_metadata():
    layer = nnx.LoRALinear(
        3, 5, lora_rank=2, a_metadata={"group": 1}, b_metadata={"group": 2}, rngs=nnx.Rngs(0)
    )
    assert (layer.lora.lora_a.group, layer.lora.lora_b.group) == (1, 2)


def test_rank_that_is_not_positive_is_refused():
    with pytest.raises(
        ValueError, match="LoRA expects lora_rank to be an int of 1 or more, found 0"
    ):
        nnx.LoRA(3, 0, 5, rngs=nnx.Rngs(0))


def test_base_that_cannot_be_called_is_refused():
    with pytest.raises(
        TypeError, match=r"base_module to be a layer or another callable, found 3 of"
    ):
        nnx.LoRA(3, 2, 5, base_module=3, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("shape", [(4, 2), ()])
def test_inputs_of_another_size_are_refused(shape):
    message = r"LoRA\(in_features=3, out_features=5\) expects inputs of shape \(\.\.\., 3\), found"
    with pytest.raises(ValueError, match=message):
        nnx.LoRA(3, 2, 5, rngs=nnx.Rngs(0))(jnp.ones(shape))
