import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx
from weft.nn.attention import dot_product_attention_weights

Q, K, V = (
    jax.random.normal(key, (2, length, 4, 3))
    for key, length in zip(jax.random.split(jax.random.key(0), 3), (5, 6, 6), strict=True)
)
MASK = jax.random.bernoulli(jax.random.key(1), 0.6, (2, 1, 5, 6)).at[..., 0].set(True)
BIAS = jax.random.normal(jax.random.key(2), (2, 4, 5, 6))
STEPWISE = {"dropout_rate": 0.5, "deterministic": True}  # no kernel knows these options


def reference(query, key, value, bias=0.0, mask=True):
    query, key, value, bias = (np.asarray(x, np.float64) for x in (query, key, value, bias))
    repeats = query.shape[-2] // key.shape[-2]
    key, value = (np.repeat(x, repeats, axis=-2) for x in (key, value))
    logits = np.einsum("...qhd,...khd->...hqk", query, key) / np.sqrt(query.shape[-1]) + bias
    logits = np.where(np.asarray(mask) != 0, logits, -1e30)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return np.einsum("...hqk,...khd->...qhd", weights / weights.sum(-1, keepdims=True), value)


@pytest.mark.parametrize("how", [{}, STEPWISE], ids=["kernel", "stepwise"])
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_against_the_formula(how, kv_heads):
    key, value = K[..., :kv_heads, :], V[..., :kv_heads, :]
    attend = lambda **options: nnx.dot_product_attention(Q, key, value, **options, **how)  # noqa: E731
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)  # noqa: E731
    close(attend(), reference(Q, key, value))
    close(attend(bias=BIAS, mask=MASK), reference(Q, key, value, BIAS, MASK))
    causal = np.tril(np.ones((5, 6), bool))
    close(attend(is_causal=True), reference(Q, key, value, mask=causal))
    close(
        attend(is_causal=True, mask=MASK.astype(jnp.float32)),
        reference(Q, key, value, mask=causal & np.asarray(MASK)),
    )


@pytest.mark.parametrize("how", [{}, STEPWISE], ids=["kernel", "stepwise"])
@pytest.mark.parametrize(
    "shape", [(5, 6), (1, 5, 6), (4, 1, 6), (2, 1, 1, 6), (1, 1, 1, 1), (2, 4, 5, 6)]
)
def test_every_mask_that_broadcasts_is_obeyed(how, shape):
    mask = jax.random.bernoulli(jax.random.key(3), 0.5, shape).at[..., 0].set(True)
    found = nnx.dot_product_attention(Q, K, V, mask=mask, **how)
    np.testing.assert_allclose(found, reference(Q, K, V, mask=mask), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("how", [{}, STEPWISE], ids=["kernel", "stepwise"])
def test_batch_axes(how):
    several = [x[None].repeat(3, 0) for x in (Q, K, V)]
    # A mask that differs along one of the batch axes only.
    mask = jax.random.bernoulli(jax.random.key(3), 0.5, (3, 1, 1, 5, 6)).at[..., 0].set(True)
    found = nnx.dot_product_attention(*several, mask=mask, bias=BIAS[None], **how)
    expected = reference(*several, BIAS[None], mask)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    none = nnx.dot_product_attention(Q[0], K[0], V[0], mask=MASK[0], **how)
    np.testing.assert_allclose(
        none, reference(Q[0], K[0], V[0], mask=MASK[0]), rtol=1e-4, atol=1e-5
    )


def test_values_of_another_size():
    value = V[..., :2]
    found = nnx.dot_product_attention(Q, K, value, mask=MASK)
    np.testing.assert_allclose(found, reference(Q, K, value, mask=MASK), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_low_precision_under_strict_promotion(dtype):
    def loss(query):
        return (
            nnx.dot_product_attention(query, K, V, mask=MASK, dtype=dtype).astype(jnp.float32).sum()
        )

    for run in (jax.value_and_grad(loss), jax.jit(jax.value_and_grad(loss))):
        value, gradient = run(Q)
        expected, expected_gradient = jax.value_and_grad(
            lambda q: nnx.dot_product_attention(q, K, V, mask=MASK).sum()
        )(Q)
        np.testing.assert_allclose(value, expected, atol=0.2)
        np.testing.assert_allclose(gradient, expected_gradient, atol=0.05)


def test_float16_is_compiled_where_types_promote():
    with jax.numpy_dtype_promotion("standard"):
        found = jax.jit(lambda *x: nnx.dot_product_attention(*x, dtype=jnp.float16))(Q, K, V)
    assert found.dtype == jnp.float16
    np.testing.assert_allclose(found, reference(Q, K, V), atol=0.01)


@pytest.mark.parametrize(
    "precision", ["highest", jax.lax.Precision.HIGHEST, "fastest", ("highest", "highest")]
)
def test_precision_reaches_every_product(precision):
    jaxpr = jax.make_jaxpr(lambda *x: nnx.dot_product_attention(*x, precision=precision))(Q, K, V)
    found = {e.params["precision"] for e in jaxpr.eqns if e.primitive.name == "dot_general"}
    wanted = jax.lax.Precision.DEFAULT if precision == "fastest" else jax.lax.Precision.HIGHEST
    assert found == {(wanted, wanted)}


def test_dropout_of_weights():
    options = {"dropout_rng": jax.random.key(4), "dropout_rate": 0.5}
    plain = dot_product_attention_weights(Q, K)
    shared = dot_product_attention_weights(Q, K, **options)
    dropped = shared == 0
    assert (dropped == dropped[0, 0]).all() and 0 < dropped[0, 0].sum() < dropped[0, 0].size
    np.testing.assert_allclose(shared[~dropped], 2 * plain[~dropped], rtol=1e-6)
    each = dot_product_attention_weights(Q, K, broadcast_dropout=False, **options)
    assert not ((each == 0) == (each == 0)[0, 0]).all()
    everything = {**options, "dropout_rate": 1.0}
    np.testing.assert_array_equal(nnx.dot_product_attention(Q, K, V, **everything), 0)


def test_sown_weights():
    class Model(nnx.Module):
        pass

    model = Model()
    nnx.dot_product_attention(Q, K, V, module=model)
    (weights,) = model.attention_weights.get_value()
    np.testing.assert_allclose(weights, dot_product_attention_weights(Q, K), rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((Q, K[0], V), {}, r"query, key and value of one rank, .* key \(6, 4, 3\), value"),
        ((Q[0, 0], K[0, 0], V[0, 0]), {}, r"\(batch..., length, heads, head_dim\), found query"),
        (
            (Q, K[:1], V[:1]),
            {},
            r"key and value of the query's batch .* found query \(2, 5, 4, 3\)",
        ),
        ((Q, K[..., :2], V), {}, "a key of the query's head_dim"),
        ((Q, K, V[:, :5]), {}, "of one length and number of heads"),
        ((Q, K[..., :3, :], V[..., :3, :]), {}, "the number of key heads divides, found 4 and 3"),
        ((Q, K, V), {"mask": MASK[..., :5]}, r"a mask that broadcasts .* = \(2, 4, 5, 6\), found"),
        ((Q, K, V), {"mask": jnp.ones((3, 1, 5, 6))}, r"found shape \(3, 1, 5, 6\)"),
        ((Q, K, V), {"bias": BIAS[None]}, r"a bias that broadcasts .* \(1, 2, 4, 5, 6\)"),
        (
            (Q, K, V),
            {"dropout_rate": 0.1},
            "at dropout_rate=0.1, but has no key: pass `dropout_rng=",
        ),
    ],
)
def test_mistakes(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        nnx.dot_product_attention(*arguments, **options)


# -- additive masks

ADDITIVE = {
    "minus infinity": jnp.where(MASK, 0.0, -jnp.inf),
    "lowest": jnp.where(MASK, 0.0, jnp.finfo(jnp.float32).min),
    "large": jnp.where(MASK, 0.0, -1e9),
    "integers": jnp.where(MASK, 0, -(10**9)),
    "bfloat16": jnp.where(MASK, 0.0, -jnp.inf).astype(jnp.bfloat16),
}


@pytest.mark.parametrize("how", [{}, STEPWISE], ids=["kernel", "stepwise"])
@pytest.mark.parametrize("name", ADDITIVE)
def test_an_additive_mask_is_not_inverted(name, how):
    attend = lambda mask, **options: nnx.dot_product_attention(Q, K, V, mask=mask, **how, **options)  # noqa: E731
    mask = ADDITIVE[name]
    for call in (attend, jax.jit(lambda **options: attend(mask, **options))):
        with pytest.raises(ValueError, match="additive mask is a bias, `bias=mask`;"):
            call(*([mask] if call is attend else []))
    # Its values cannot be seen where it is traced: it does what was meant.
    expected = reference(Q, K, V, mask=MASK)
    np.testing.assert_allclose(jax.jit(attend)(mask), expected, rtol=1e-4, atol=1e-5)
    both = jax.jit(lambda mask: attend(mask, bias=BIAS))(mask)
    np.testing.assert_allclose(both, reference(Q, K, V, BIAS, MASK), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="additive"):
        dot_product_attention_weights(Q, K, mask=mask)


def test_a_traced_additive_mask_of_many_values():
    distances = -jnp.abs(jnp.arange(5.0)[:, None] - jnp.arange(6.0))
    found = jax.jit(lambda mask: nnx.dot_product_attention(Q, K, V, mask=mask))(distances)
    np.testing.assert_allclose(found, reference(Q, K, V, distances), rtol=1e-4, atol=1e-5)


def test_a_traced_mask_of_numbers_is_a_mask():
    mask = MASK.astype(jnp.float32) * 3
    found = jax.jit(lambda mask: nnx.dot_product_attention(Q, K, V, mask=mask))(mask)
    np.testing.assert_allclose(found, reference(Q, K, V, mask=MASK), rtol=1e-4, atol=1e-5)


# -- numbers at their ends


@pytest.mark.parametrize("how", [{}, STEPWISE], ids=["kernel", "stepwise"])
@pytest.mark.parametrize("kind", ["mask", "bias"])
def test_a_query_that_sees_no_key(kind, how):
    seen = MASK.at[:, :, 2].set(False)

    def loss(query, key, value, bias):
        options = {"mask": seen} if kind == "mask" else {"bias": bias}
        y = nnx.dot_product_attention(query, key, value, **options, **how)
        return (y**2).sum(), y

    bias = jnp.where(seen, 0.0, -jnp.inf)
    run = jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3), has_aux=True))
    gradients, y = run(Q, K, V, bias)
    np.testing.assert_allclose(y[:, 2], jnp.broadcast_to(V.mean(1), (2, 4, 3)), rtol=1e-4)
    rest = jnp.array([0, 1, 3, 4])
    np.testing.assert_allclose(y[:, rest], reference(Q, K, V, mask=MASK)[:, rest], rtol=1e-4)
    assert all(jnp.isfinite(gradient).all() for gradient in gradients)
    assert kind == "bias" or not gradients[0][:, 2].any()


@pytest.mark.parametrize("how", [{}, STEPWISE], ids=["kernel", "stepwise"])
def test_float64_has_the_digits_of_float64(how):
    with jax.enable_x64(True):
        random = np.random.default_rng(0)
        q, k, v = (jnp.asarray(random.normal(size=x.shape)) for x in (Q, K, V))
        bias, mask = jnp.asarray(random.normal(size=BIAS.shape)), jnp.asarray(MASK)
        for options in ({}, {"bias": bias, "mask": mask}):
            run = jax.jit(lambda *x, **options: nnx.dot_product_attention(*x, **options, **how))
            found = run(q, k, v, **options)
            assert found.dtype == jnp.float64
            np.testing.assert_allclose(found, reference(q, k, v, **options), rtol=1e-13, atol=1e-14)


def test_rates_of_dropout_may_be_traced():
    key, x = jax.random.key(1), jax.random.normal(jax.random.key(0), (2, 5, 8))

    def attend(layer, rate):
        layer.dropout_rate = rate
        mixed = nnx.dot_product_attention(Q, K, V, dropout_rate=rate, dropout_rng=key)
        return mixed, layer(x, rngs=key)

    compiled = nnx.jit(attend)
    for rate in (0.0, 0.5, 1.0):
        found, expected = (
            call(
                nnx.MultiHeadAttention(
                    2,
                    8,
                    dropout_rate=jnp.array(0.5),
                    deterministic=False,
                    decode=False,
                    rngs=nnx.Rngs(0),
                ),
                given,
            )
            for call, given in ((compiled, jnp.float32(rate)), (attend, rate))
        )
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, expected
        )
