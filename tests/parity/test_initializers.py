"""Initializers against the peer: same key, same bits, eager and compiled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from weft.nn import initializers

flax_initializers = pytest.importorskip("flax.nnx", reason="flax is not installed").initializers

MATRIX, KERNEL = (4, 6), (3, 4, 6)
LARGE = (64, 192)  # compiled with its draw, a scale would be rounded otherwise in some elements
CASES = [
    ("constant", (2.5,), {}, MATRIX),
    ("delta_orthogonal", (), {}, KERNEL),
    ("glorot_normal", (), {}, KERNEL),
    ("glorot_uniform", (), {"in_axis": 0, "out_axis": (1, 2)}, KERNEL),
    ("he_normal", (), {"batch_axis": 0}, KERNEL),
    ("he_uniform", (), {}, MATRIX),
    ("kaiming_normal", (), {}, MATRIX),
    ("kaiming_uniform", (-1, -2), {}, MATRIX),
    ("lecun_normal", (), {}, MATRIX),
    ("lecun_uniform", (), {}, MATRIX),
    ("normal", (0.5,), {}, MATRIX),
    ("normal", (0.02,), {}, LARGE),
    ("orthogonal", (), {"scale": 2.0, "column_axis": 0}, MATRIX),
    ("truncated_normal", (1.0,), {"lower": -1.0}, MATRIX),
    ("uniform", (), {}, MATRIX),
    ("variance_scaling", (1.0, "fan_avg", "uniform"), {}, MATRIX),
    ("variance_scaling", (1.0, "fan_in", "normal"), {}, LARGE),
    ("xavier_normal", (), {}, MATRIX),
    ("xavier_uniform", (), {}, MATRIX),
    ("zeros_init", (), {}, MATRIX),
    ("ones_init", (), {}, MATRIX),
]


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "shape"), CASES, ids=[f"{case[0]}{case[1]}" for case in CASES]
)
def test_same_bits(name, args, kwargs, shape):
    ours = getattr(initializers, name)(*args, **kwargs)
    theirs = getattr(flax_initializers, name)(*args, **kwargs)
    key = jax.random.key(0)
    found, expected = ours(key, shape), theirs(key, shape)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    # JAX has no QR decomposition of 16-bit floats.
    lower = () if "orthogonal" in name else (jnp.bfloat16, jnp.float16)
    for dtype in (jnp.float32, *lower):  # the same program gives the same bits, compiled too
        program, peer_program = (
            jax.make_jaxpr(lambda key, init=init: init(key, shape, dtype))(key)  # noqa: B023
            for init in (ours, theirs)
        )
        assert str(program) == str(peer_program)
