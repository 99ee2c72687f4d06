import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx

X = jax.random.normal(jax.random.key(0), (2, 5, 4))
QKV = jax.random.normal(jax.random.key(1), (3, 2, 5, 3, 4))


def test_pairs_are_rotated():
    y = nnx.RoPE(theta=100.0)(X)
    angles = np.arange(5)[:, None] * 100.0 ** (-np.array([0, 2]) / 4)
    rotated = (np.asarray(X[..., :2]) + 1j * np.asarray(X[..., 2:])) * np.exp(1j * angles)
    np.testing.assert_allclose(y[..., :2], rotated.real, atol=1e-5)
    np.testing.assert_allclose(y[..., 2:], rotated.imag, atol=1e-5)


def test_products_depend_on_distance_only():
    rope = nnx.RoPE()

    def product(i, j):
        return jnp.vdot(rope(X[0, :1], jnp.array([i])), rope(X[1, :1], jnp.array([j])))

    np.testing.assert_allclose(product(2, 5), product(12, 15), rtol=1e-4)
    assert abs(product(2, 5) - product(2, 6)) > 1e-3


def test_a_table_holds_the_same():
    rope, table = nnx.RoPE(), nnx.RoPE(embedding_size=4, max_seq_len=7)
    assert table.cached_sin.shape == table.cached_cos.shape == (7, 2)
    np.testing.assert_allclose(table(X), rope(X), atol=1e-6)
    positions = jnp.array([[6, 0, 3, 3, 1], [1, 2, 3, 4, 5]])
    np.testing.assert_allclose(table(X, positions), rope(X, positions), atol=1e-6)
    compiled = jax.jit(lambda x, p: table(x, p))
    np.testing.assert_allclose(compiled(X, positions), rope(X, positions), atol=1e-6)


def test_positions():
    rope = nnx.RoPE()
    np.testing.assert_allclose(rope(X, jnp.arange(5)), rope(X), atol=1e-6)
    apart = jnp.array([[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]])
    np.testing.assert_allclose(rope(X, apart)[1], rope(X, jnp.arange(5, 10))[1], atol=1e-6)


def test_low_precision_is_rotated_in_float32():
    assert nnx.RoPE()(X.astype(jnp.bfloat16)).dtype == jnp.float32


def test_traced_positions_outside_the_table_give_nan():
    table = nnx.RoPE(embedding_size=4, max_seq_len=3)
    y = jax.jit(lambda p: table(X, p))(jnp.array([0, 1, 2, 3, -1]))
    np.testing.assert_array_equal(jnp.isnan(y).all((0, 2)), [False, False, False, True, True])


def test_attention_with_rope():
    q, k, v = QKV
    rope = nnx.RoPE()
    turn = lambda x, p=None: jnp.swapaxes(rope(jnp.swapaxes(x, -2, -3), p), -2, -3)  # noqa: E731
    attend = functools.partial(nnx.dot_product_attention_with_rope, rope=rope)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    close(
        attend(q, k, v, is_causal=True),
        nnx.dot_product_attention(turn(q), turn(k), v, is_causal=True),
    )
    # Only distances count.
    close(attend(q, k, v, input_positions=jnp.arange(7, 12)), attend(q, k, v))
    # As in a cache: the queries stand at their positions, key i at position i.
    last = attend(q[:, 3:], k, v, input_positions=jnp.array([3, 4]))
    close(last, attend(q, k, v)[:, 3:])
    several = jnp.array([[3, 4], [0, 1]])
    close(attend(q[:, 3:], k, v, input_positions=several)[0], last[0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nnx.RoPE(embedding_size=4), "both embedding_size and max_seq_len, .* or neither"),
        (lambda: nnx.RoPE(embedding_size=5, max_seq_len=3), "must be even, found 5"),
        (lambda: nnx.RoPE()(X[..., :3]), "must be even, found 3"),
        (lambda: nnx.RoPE()(X[0, 0]), r"\(..., length, features\), found shape \(4,\)"),
        (
            lambda: nnx.RoPE(embedding_size=4, max_seq_len=3)(X),
            r"max_seq_len=3, positions 0 to 2, found positions 0 to 4: .*max_seq_len=5",
        ),
        (
            lambda: nnx.RoPE(embedding_size=4, max_seq_len=9)(X, jnp.arange(-1, 4)),
            "found positions -1 to 3",
        ),
        (
            lambda: nnx.RoPE(embedding_size=6, max_seq_len=9)(X),
            r"a table for embedding_size=6, found 4 features: make `nnx.RoPE\(embed",
        ),
        (
            lambda: nnx.RoPE()(X, jnp.arange(4)),
            r"input_positions of shape \(5,\), or one that broadcasts to \(2, 5\), found \(4,\)",
        ),
        (lambda: nnx.RoPE()(X, jnp.zeros((3, 5))), r"found \(3, 5\)"),
        (lambda: nnx.RoPE()(X, jnp.zeros((2, 1))), r"found \(2, 1\)"),
    ],
)
def test_mistakes(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("table", [{}, {"embedding_size": 4, "max_seq_len": 300}])
def test_float64_has_the_digits_of_float64(table):
    with jax.enable_x64(True):
        x = np.random.default_rng(0).normal(size=(300, 4))
        rope = nnx.RoPE(**table)
        found = rope(jnp.asarray(x))
        angles = np.arange(300)[:, None] / 10000.0 ** (np.arange(2) / 2)
        turned = (x[:, :2] + 1j * x[:, 2:]) * np.exp(1j * angles)
        assert found.dtype == jnp.float64
        np.testing.assert_allclose(found, np.hstack([turned.real, turned.imag]), atol=1e-13)
        assert rope(jnp.asarray(x, jnp.float32)).dtype == jnp.float32


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_attention_with_rope_stays_in_its_dtype(dtype):
    q, k, v = jax.random.normal(jax.random.key(0), (3, 1, 5, 2, 4)).astype(dtype)
    y = nnx.dot_product_attention_with_rope(q, k, v, rope=nnx.RoPE())
    assert y.dtype == dtype
