import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx
from tests.devices import make_mesh


def einsum(*args, **kwargs):
    return nnx.Einsum(*args, rngs=nnx.Rngs(0), **kwargs)


def test_computes_the_contraction():
    layer = einsum("nta,hab->nthb", (2, 3, 4), (2, 4), bias_init=nnx.initializers.normal())
    x = jax.random.normal(jax.random.key(0), (5, 6, 3))
    expected = jnp.einsum("nta,hab->nthb", x, layer.kernel[...]) + layer.bias[...]
    np.testing.assert_allclose(layer(x), expected, rtol=1e-5)


def test_bias_meets_the_axes_of_the_kernel():
    layer = einsum("nta,hab->hntb", (2, 3, 4), (2, 4), bias_init=nnx.initializers.normal())
    outputs = layer(jnp.zeros((5, 6, 3)))
    np.testing.assert_array_equal(
        outputs, jnp.broadcast_to(layer.bias[...][:, None, None], (2, 5, 6, 4))
    )


def test_ellipsis_of_the_kernel_meets_the_last_axes():
    layer = einsum("...a,...ab->...b", (2, 3, 4), (2, 4), bias_init=nnx.initializers.normal())
    outputs = layer(jnp.zeros((5, 2, 3)))
    np.testing.assert_array_equal(outputs, jnp.broadcast_to(layer.bias[...], (5, 2, 4)))


def test_string_of_the_call_replaces_that_of_the_layer():
    layer = einsum("ta,ab->tb", (3, 4))
    assert layer(jnp.ones((5, 3))).shape == (5, 4)
    assert layer(jnp.ones((2, 5, 3)), "nta,ab->bnt").shape == (4, 2, 5)


@pytest.mark.parametrize("text", ["nta,ab", "nta->nt", "a,b,c->abc", None])
def test_string_of_another_form_is_refused(text):
    with pytest.raises(ValueError, match=r"expects a string .* such as 'btd,dhk->bthk', found"):
        einsum(text, (3, 4))


def test_kernel_shape_that_does_not_fit_is_refused():
    message = r"names 2 axes of its kernel, 'ab', found kernel_shape=\(2, 3, 4\): give one size"
    with pytest.raises(ValueError, match=message):
        einsum("ta,ab->tb", (2, 3, 4))


def test_bias_shape_that_does_not_fit_is_refused():
    message = r"expects bias_shape=\(2, 4\), the sizes .* found bias_shape=\(3, 4\)"
    with pytest.raises(ValueError, match=message):
        einsum("nta,hab->nthb", (2, 3, 4), (3, 4))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (
            (5, 6, 7),
            r"Einsum\('nta,hab->nthb'\) expects inputs of axes 'nta' with a = 3, found shape",
        ),
        (
            (6, 3),
            r"expects inputs of axes 'nta', found shape \(6, 3\): bring the axes of the inputs",
        ),
    ],
)
def test_inputs_of_another_shape_are_refused(shape, message):
    layer = einsum("nta,hab->nthb", (2, 3, 4))
    with pytest.raises(ValueError, match=message):
        layer(jnp.ones(shape))


def test_functions_of_the_user_are_used():
    calls = []

    def einsum_op(*args, **kwargs):
        calls.append((args[0], kwargs))
        return jnp.einsum(*args, **kwargs)

    layer = einsum("ta, ab -> tb", (3, 4), einsum_op=einsum_op, preferred_element_type=jnp.float32)
    layer(jnp.ones((5, 3)))
    assert calls == [("ta,ab->tb", {"precision": None, "preferred_element_type": jnp.float32})]


def test_out_sharding_and_metadata():
    mesh = make_mesh((2, 2), ("a", "b"), axis_types=(jax.sharding.AxisType.Explicit,) * 2)
    spec = jax.sharding.PartitionSpec("a", "b")
    layer = einsum(
        "ta,ab->tb", (4, 8), (8,), kernel_metadata={"group": 1}, bias_metadata={"group": 2}
    )
    assert (layer.kernel.group, layer.bias.group) == (1, 2)
    with jax.set_mesh(mesh):
        layer = einsum("ta,ab->tb", (4, 8), (8,))
        assert layer(jnp.ones((4, 4)), out_sharding=spec).sharding.spec == spec


def test_bias_shape_of_one_size():
    layer = nnx.Einsum("ik,kj->ij", (5, 4), 4, rngs=nnx.Rngs(0))
    assert layer.bias.shape == (4,)
