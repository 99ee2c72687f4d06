import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx

X = jax.random.normal(jax.random.key(0), (2, 3, 4)) * 2 + 1


def test_group_norm_normalises_groups():
    y = nnx.GroupNorm(4, 2, rngs=nnx.Rngs(0))(X).reshape(2, 3, 2, 2)
    np.testing.assert_allclose(np.mean(y, (1, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(np.var(y, (1, 3)), 1, atol=1e-4)


@pytest.mark.parametrize("axes", [(2,), (0, 2), (0, 1, 2), -1, (1, -1)])
def test_reduction_axes(axes):
    y = nnx.GroupNorm(4, 2, reduction_axes=axes, epsilon=0.0, rngs=nnx.Rngs(0))(X)
    groups = np.asarray(X).reshape(2, 3, 2, 2)
    reduced = (*(a for a in np.atleast_1d(axes) % 3 if a != 2), 3)
    mean, deviation = groups.mean(reduced, keepdims=True), groups.std(reduced, keepdims=True)
    np.testing.assert_allclose(y, ((groups - mean) / deviation).reshape(X.shape), atol=2e-4)


def test_a_mask_that_broadcasts():
    mask = jnp.array([True, True, False])[:, None]
    layer = nnx.GroupNorm(4, 2, rngs=nnx.Rngs(0))
    np.testing.assert_allclose(
        layer(X, mask=mask)[:, :2], layer(X.at[:, 2].set(9.0), mask=mask)[:, :2], rtol=1e-5
    )


def test_group_size_and_number():
    layer = nnx.GroupNorm(6, num_groups=None, group_size=2, rngs=nnx.Rngs(0))
    assert (layer.num_groups, layer.group_size) == (3, 2)


def test_instance_norm_normalises_each_channel():
    y = nnx.InstanceNorm(4, rngs=nnx.Rngs(0))(X)
    np.testing.assert_allclose(np.mean(y, 1), 0, atol=1e-5)
    np.testing.assert_allclose(np.var(y, 1), 1, atol=1e-4)


def test_instance_norm_of_an_image_equals_group_norm_of_single_channels():
    x = jax.random.normal(jax.random.key(1), (2, 3, 3, 4))
    instance = nnx.InstanceNorm(4, rngs=nnx.Rngs(0))(x)
    group = nnx.GroupNorm(4, num_groups=4, rngs=nnx.Rngs(0))(x)
    np.testing.assert_allclose(instance, group, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda rngs: nnx.GroupNorm(4, 2, 2, rngs=rngs),
            "expects either num_groups or group_size, found num_groups=2 and group_size=2",
        ),
        (
            lambda rngs: nnx.GroupNorm(4, None, rngs=rngs),
            r"`nnx.GroupNorm\(4, num_groups=None, group_size=16, ...\)`",
        ),
        (
            lambda rngs: nnx.GroupNorm(5, 2, rngs=rngs),
            "cannot cut num_features=5 into groups with num_groups=2: choose one that divides 5",
        ),
        (lambda rngs: nnx.GroupNorm(4, None, 3, rngs=rngs), "with group_size=3"),
        (lambda rngs: nnx.GroupNorm(4, 0, rngs=rngs), "with num_groups=0"),
        (
            lambda rngs: nnx.GroupNorm(4, 2, rngs=rngs)(X[0, 0]),
            r"expects an input of shape \(batch, ..., 4\), found shape \(4,\):",
        ),
        (lambda rngs: nnx.GroupNorm(8, 2, rngs=rngs)(X), "was made for num_features=8"),
        (
            lambda rngs: nnx.GroupNorm(4, 2, reduction_axes=(1,), rngs=rngs)(X),
            r"reduction_axes=\(1,\) leaves out the last axis .* write `reduction_axes=\(1, -1\)`",
        ),
        (
            lambda rngs: nnx.InstanceNorm(2, feature_axes=0, rngs=rngs)(X),
            "takes axis 0 for the batch, but feature_axes=0 names it",
        ),
        (lambda rngs: nnx.InstanceNorm(3, rngs=rngs)(X), "was made for num_features=3"),
    ],
)
def test_mistakes(make, message):
    with pytest.raises(ValueError, match=message):
        make(nnx.Rngs(0))
