import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx


def test_identity_ignores_other_arguments():
    x = jnp.ones(2)
    assert nnx.Identity()(x, 1, deterministic=True) is x


@pytest.mark.parametrize(
    ("axes", "shape"), [((), (2, 60)), ((0, 1), (6, 4, 5)), ((-2, -1), (2, 3, 20)), ((1, 1), None)]
)
def test_flatten(axes, shape):
    x = jnp.arange(120).reshape(2, 3, 4, 5)
    flat = nnx.Flatten(*axes)(x)
    assert flat.shape == (shape or x.shape)
    np.testing.assert_array_equal(flat.ravel(), x.ravel())


@pytest.mark.parametrize("axes", [(1, -1), (2, 3), (-3, -1)])
def test_flatten_refuses_axes_that_are_not_there(axes):
    message = r"Flatten\(start_axis=.* cannot merge the axes of an array of shape \(3,\)"
    with pytest.raises(ValueError, match=message):
        nnx.Flatten(*axes)(jnp.ones(3))


def test_flatten_refuses_axes_in_the_wrong_order():
    with pytest.raises(ValueError, match=r"in order, such as `nnx.Flatten\(1, -1\)`"):
        nnx.Flatten(2, 1)(jnp.ones((2, 3, 4)))
