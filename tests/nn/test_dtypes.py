import jax
import jax.numpy as jnp
import numpy as np
import pytest

from weft.nn.dtypes import canonicalize_dtype, inexact_dtype, promote_dtype, scale_for_squares

f32, bf16, i32 = jnp.float32, jnp.bfloat16, jnp.int32


@pytest.mark.parametrize(
    ("args", "options", "expected"),
    [
        ((jnp.ones(1, bf16),), {}, bf16),
        ((jnp.ones(1, bf16), None), {}, bf16),
        ((jnp.ones(1, bf16), 2.0), {}, bf16),
        ((jnp.ones(1, i32),), {}, f32),
        ((True,), {}, f32),
        ((jnp.ones(1, i32),), {"inexact": False}, i32),
        ((jnp.ones(1, jnp.complex64),), {}, jnp.complex64),
        ((np.ones(1),), {}, f32),
        ((jnp.ones(1, f32),), {"dtype": bf16}, bf16),
        ((jnp.ones(1, f32),), {"dtype": i32, "inexact": False}, i32),
        ((), {"dtype": "bfloat16"}, bf16),
    ],
)
def test_canonicalize_dtype(args, options, expected):
    assert np.dtype(canonicalize_dtype(*args, **options)) == np.dtype(expected)


def test_mixed_dtypes_promote_as_jax_is_set():
    mixed = jnp.ones(1, bf16), jnp.ones(1, f32)
    with pytest.raises(ValueError, match="no available implicit dtype promotion path"):
        canonicalize_dtype(*mixed)  # the tests run with strict promotion
    with jax.numpy_dtype_promotion("standard"):
        assert canonicalize_dtype(*mixed) == f32


def test_promote_dtype_keeps_none_and_order():
    x, nothing, y = promote_dtype((jnp.ones(2, i32), None, 1.5), dtype=bf16)
    assert nothing is None
    assert x.dtype == y.dtype == bf16
    assert (x.shape, y.shape) == ((2,), ())


def test_integer_dtype_is_refused():
    with pytest.raises(
        ValueError, match=r"expected a floating point .* found int32: pass `dtype=jnp"
    ):
        promote_dtype((jnp.ones(1),), dtype=i32)


def test_no_array_and_no_dtype_is_refused():
    with pytest.raises(ValueError, match="found no array to take a dtype from: pass at least one"):
        canonicalize_dtype(None)


@pytest.mark.parametrize("x64", [False, True])
def test_integers_become_the_floats_of_jax(x64):
    with jax.enable_x64(x64):
        for name in ("bool", "int8", "uint16", "int32", "uint32", "int64", "bfloat16", "complex64"):
            x = jnp.ones(1, jax.dtypes.canonicalize_dtype(name))
            assert inexact_dtype(x.dtype) == jnp.tanh(x).dtype, name


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_squares_of_large_numbers(dtype):
    with jax.enable_x64(True):
        info = jnp.finfo(dtype)
        columns = [
            [0.0, 1.0],
            [1e-30, 1e14],
            [float(info.max), 1.0],
            [2.0 ** (info.maxexp // 2), 0],
        ]
        x = jnp.asarray(columns, dtype).T
        factor = scale_for_squares(x, (0,))
        assert factor.dtype == x.dtype
        np.testing.assert_array_equal(factor[0, :2], [1, 1])
        length = jnp.sqrt(jnp.sum((x * factor) ** 2, 0)) / factor[0]
        np.testing.assert_allclose(
            length.astype(float), x.max(0).astype(float), rtol=2 * float(info.eps)
        )
