import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx
from tests.devices import make_mesh


def embed(*args, **kwargs):
    return nnx.Embed(*(args or (6, 3)), rngs=nnx.Rngs(0), **kwargs)


def test_looks_up_rows():
    layer = embed()
    tokens = jnp.array([[0, 5], [3, 2]])
    np.testing.assert_array_equal(layer(tokens), layer.embedding[...][tokens])


OUTSIDE = [-1, -6, -7, -100, 6, 7, 2**31 - 1, -(2**31)]


@pytest.mark.parametrize("rows", [1, 6])
@pytest.mark.parametrize("dtype", [jnp.int32, jnp.int8, jnp.uint8])
def test_tokens_outside_the_table_are_zeros_and_get_no_gradient(rows, dtype):
    layer = embed(rows, 3)
    outside = [token for token in OUTSIDE if abs(token) <= 100]
    outside = OUTSIDE if dtype == jnp.int32 else [t for t in outside if t >= 0 or dtype == jnp.int8]
    tokens = jnp.array([0, *outside], dtype)

    def masked(layer):
        return jnp.where(tokens[:, None] == 0, jnp.log(1 + layer(tokens) ** 2), 0).sum()

    for call in (lambda layer: layer(tokens), nnx.jit(lambda layer: layer(tokens))):
        rows_found = call(layer)
        np.testing.assert_array_equal(rows_found[0], layer.embedding[0])
        np.testing.assert_array_equal(rows_found[1:], 0)
    for loss in (masked, lambda layer: layer(tokens).sum()):
        gradient = nnx.grad(loss)(layer)["embedding"][...]
        assert jnp.isfinite(gradient).all() and gradient[0].all() and not gradient[1:].any()


def test_computation_dtype_is_that_of_the_table_unless_given():
    assert embed().dtype == jnp.float32
    assert embed(param_dtype=jnp.bfloat16)(jnp.array([1])).dtype == jnp.bfloat16
    assert embed(dtype=jnp.float16)(jnp.array([1])).dtype == jnp.float16


def test_attend_compares_with_all_rows():
    layer = embed()
    query = jax.random.normal(jax.random.key(1), (2, 3))
    np.testing.assert_allclose(layer.attend(query), query @ layer.embedding[...].T, rtol=1e-6)


def test_a_subclass_may_promote_by_itself():
    class Normed(nnx.Embed):
        def __call__(self, tokens):
            (table,) = self.promote_dtype((self.embedding[...],), dtype=self.dtype, inexact=False)
            return jnp.take(table, tokens, axis=0)

    layer = Normed(6, 3, rngs=nnx.Rngs(0))
    assert layer(jnp.array([1])).shape == (1, 3)


def test_tokens_that_are_no_integers_are_refused():
    message = r"Embed\(num_embeddings=6, features=3\) expects integer .* found float32: cast them"
    with pytest.raises(ValueError, match=message):
        embed()(jnp.ones(2))


@pytest.mark.parametrize("shape", [(2, 4), ()])
def test_query_of_another_size_is_refused(shape):
    message = r"attend expects a query of shape \(\.\.\., 3\), found shape .*: project it first"
    with pytest.raises(ValueError, match=message):
        embed().attend(jnp.ones(shape))


@pytest.mark.parametrize("rows", [1, 4])
def test_out_sharding_and_metadata(rows):
    mesh = make_mesh((2, 2), ("a", "b"), axis_types=(jax.sharding.AxisType.Explicit,) * 2)
    spec = jax.sharding.PartitionSpec("a", "b")
    assert embed(embedding_metadata={"group": 1}).embedding.group == 1
    with jax.set_mesh(mesh):
        layer = embed(rows, 8)
        assert layer(jnp.zeros(4, int), spec).sharding.spec == spec
        if rows > 1:
            assert layer.attend(jnp.ones((4, 8)), spec).sharding.spec == spec
