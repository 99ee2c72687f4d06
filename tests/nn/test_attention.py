import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx

X = jax.random.normal(jax.random.key(0), (2, 5, 8))
close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)


def mha(*args, **kwargs):
    kwargs = {"decode": False, "rngs": nnx.Rngs(0), **kwargs}
    return nnx.MultiHeadAttention(*(args or (4, 8)), **kwargs)


def with_rope(**kwargs):
    rope = nnx.RoPE(**kwargs)
    return functools.partial(nnx.dot_product_attention_with_rope, rope=rope)


@pytest.mark.parametrize(
    ("kv_heads", "qk_norm", "masked", "rope", "use_bias"),
    list(itertools.product((None, 2), (False, True), (False, True), (False, True), (False, True))),
)
def test_decoding_equals_the_causal_forward_pass(kv_heads, qk_norm, masked, rope, use_bias):
    options = {"attention_fn": with_rope()} if rope else {}
    layer = mha(
        qkv_features=32,  # normalising heads of two features would be ill-conditioned
        num_kv_heads=kv_heads,
        normalize_qk=qk_norm,
        use_bias=use_bias,
        bias_init=nnx.initializers.normal(),
        **options,
    )
    mask = None
    if masked:  # padding in the middle, other for each example
        mask = jnp.array([[1, 1, 0, 1, 1], [1, 0, 1, 1, 1]])[:, None, None]
    whole = layer(X, is_causal=True, mask=mask)
    for lengths in ((1, 1, 1, 1, 1), (3, 1, 1)):
        layer.init_cache(X.shape)
        parts = np.split(X, np.cumsum(lengths)[:-1], axis=1)
        steps = [
            layer(jnp.asarray(part), decode=True, mask=mask, is_causal=i % 2 == 0)
            for i, part in enumerate(parts)
        ]
        close(jnp.concatenate(steps, axis=1), whole)


def test_decoding_in_low_precision_with_a_table_under_jit():
    layer = mha(dtype=jnp.bfloat16, attention_fn=with_rope(embedding_size=2, max_seq_len=5))
    whole = layer(X, is_causal=True)
    layer.init_cache(X.shape, jnp.bfloat16)
    step = nnx.jit(lambda layer, x: layer(x, decode=True))
    steps = jnp.concatenate([step(layer, X[:, i : i + 1]) for i in range(5)], axis=1)
    assert steps.dtype == jnp.bfloat16
    np.testing.assert_allclose(steps.astype(jnp.float32), whole.astype(jnp.float32), atol=0.05)
    assert int(layer.cache_index[...]) == 5


def test_the_table_of_a_rope_is_a_part_of_the_layer():
    layer = mha(attention_fn=with_rope(embedding_size=2, max_seq_len=5))
    found = nnx.to_flat_state(nnx.state(layer)).paths
    paths = [path for path in found if "attention_parts" in path]
    assert paths == [("attention_parts", 0, "cached_cos"), ("attention_parts", 0, "cached_sin")]
    twin = nnx.clone(layer)
    assert twin.attention_fn.keywords["rope"] is twin.attention_parts[0]
    assert not hasattr(mha(), "attention_parts")


def test_decoding_with_its_own_mask_rows():
    causal = nnx.make_causal_mask(X[..., 0], dtype=bool)
    layer = mha()
    whole = layer(X, mask=causal)
    layer.init_cache(X.shape)
    for i in range(5):
        close(
            layer(X[:, i : i + 1], decode=True, mask=causal[:, :, i : i + 1]), whole[:, i : i + 1]
        )


def test_init_cache_empties_it():
    layer = mha()
    layer.init_cache(X.shape)
    first = layer(X[:, :1], decode=True)
    layer.init_cache(X.shape)
    close(layer(X[:, :1], decode=True), first)


def test_cross_attention():
    layer = mha(in_kv_features=3, out_features=5)
    kv = jnp.ones((2, 6, 3))
    assert layer(X, kv).shape == (2, 5, 5)
    close(layer(X, kv), layer(X, kv, kv))
    assert not np.allclose(layer(X, kv, 2 * kv), layer(X, kv))


def test_a_mask_reaches_every_attention_function():
    mask = jnp.array([1, 1, 0, 1, 1])[None, None, None]
    for options in (
        {},
        {"dropout_rate": 0.5, "deterministic": True},
        {"attention_fn": with_rope()},
    ):
        layer = mha(**options)
        changed = X.at[:, 2].set(9.0)
        kept = jnp.array([0, 1, 3, 4])
        close(layer(X, mask=mask)[:, kept], layer(changed, X, mask=mask)[:, kept])
        close(layer(X, changed, mask=mask), layer(X, mask=mask))


def test_the_attention_function_gets_all_options():
    found = {}

    def attention_fn(query, key, value, **options):
        found.update(options)
        return value

    layer = mha(attention_fn=attention_fn, dtype=jnp.float32, precision="highest")
    layer(X, mask=jnp.ones((5, 5)), is_causal=True)
    assert found.pop("mask").shape == (5, 5)
    assert found == {
        "dropout_rng": None,
        "dropout_rate": 0.0,
        "broadcast_dropout": True,
        "deterministic": True,
        "dtype": jnp.float32,
        "precision": "highest",
        "module": None,
        "is_causal": True,
    }
    layer(X, input_positions=jnp.arange(5))
    assert found["input_positions"].shape == (5,)


def test_positions_given_at_the_call():
    layer = mha(attention_fn=with_rope())
    close(layer(X, input_positions=jnp.arange(3, 8)), layer(X))
    stretched = layer(X, input_positions=2 * jnp.arange(5))
    assert not np.allclose(stretched, layer(X))


def test_dropout():
    layer = mha(dropout_rate=0.5)
    assert layer.rngs is not None
    assert not np.allclose(layer(X, deterministic=False), layer(X, deterministic=False))
    close(layer(X, deterministic=True), mha(dropout_rate=0.5, deterministic=True)(X))
    bare = mha(dropout_rate=0.5, deterministic=False, keep_rngs=False)
    assert bare.rngs is None
    close(bare(X, rngs=nnx.Rngs(3)), bare(X, rngs=nnx.Rngs(3)))
    assert mha().rngs is None  # without dropout no random state


def test_sown_weights():
    layer = mha()
    layer(X, sow_weights=True, is_causal=True)
    (weights,) = nnx.pop(layer, nnx.Intermediate)["attention_weights"].get_value()
    assert weights.shape == (2, 4, 5, 5)
    np.testing.assert_array_equal(weights[..., 0, 1:], 0)


def test_views():
    layer = mha(decode=None, dropout_rate=0.5)
    view = nnx.view(layer, decode=True, deterministic=True, batch_size=2, max_length=5)
    close(view(X[:, :1]), layer(X[:, :1], decode=False, deterministic=True))
    assert layer.decode is None and layer.cached_key is None
    assert view.cached_key.shape == (2, 5, 4, 2)
    several = nnx.view(layer, batch_size=(2, 3), max_length=5)
    assert several.cached_key.shape == (2, 3, 5, 4, 2)


def test_layers_that_differ_in_their_initializer_have_one_graphdef():
    a, b = mha(), mha(kernel_init=nnx.initializers.normal())
    assert nnx.graphdef(a) == nnx.graphdef(b)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: mha(3, 8),
            r"cannot split qkv_features=8 into num_heads=3 heads .* such as `qkv_features=9`",
        ),
        (
            lambda: mha(4, 8, num_kv_heads=3),
            r"cannot share num_kv_heads=3 key heads .* num_heads=4 .* a number that divides 4",
        ),
        (
            lambda: mha()(X[..., :3]),
            r"in_features=8, but inputs_q of shape \(2, 5, 3\) has 3 .*`in_features=3`",
        ),
        (lambda: mha()(X, X[..., :3]), "for in_kv_features=8, but inputs_k of shape"),
        (lambda: mha()(X, X, X[..., :3]), "for in_kv_features=8, but inputs_v of shape"),
        (lambda: mha()(X, inputs_v=X), r"inputs_v without inputs_k: .* `layer\(q, kv\)`"),
        (lambda: mha(decode=None)(X), "MultiHeadAttention does not know its `decode`"),
        (lambda: mha(dropout_rate=0.1)(X), "MultiHeadAttention does not know its `deterministic`"),
        (
            lambda: mha(dropout_rate=0.1, keep_rngs=False)(X, deterministic=False),
            r"from the stream 'dropout', .* `nnx.MultiHeadAttention\(4, 8, dropout_rate=0.1, rngs=",
        ),
        (
            lambda: mha()(X[:, :1], decode=True),
            r"no cache to decode with: call `layer.init_cache\(\(\*batch, max_length, 8\)\)` first",
        ),
        (
            lambda: mha().init_cache((8,)),
            r"expects the shape \(batch..., max_length, in_features\)",
        ),
        (lambda: mha().set_view(batch_size=2), "needs both batch_size and max_length, found"),
        (lambda: cached(X[:1]), r"for this batch, `layer.init_cache\(\(1, 5, 8\)\)`"),
        (lambda: cached(jnp.concatenate([X, X], 1)), "the cache is full: 10 more"),
        (lambda: cached(X[:, :1], mask=jnp.ones((5, 5))), "while decoding, a mask must broadcast"),
    ],
)
def test_mistakes(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def cached(x, **options):
    layer = mha()
    layer.init_cache(X.shape)
    return layer(x, decode=True, **options)


def test_the_cache_stays_as_it_is_when_it_is_full():
    layer = mha()
    layer.init_cache(X.shape)
    layer(X, decode=True)
    with pytest.raises(ValueError, match=r"1 more .* after 5 of max_length=5"):
        layer(X[:, :1], decode=True)
    assert int(layer.cache_index[...]) == 5
