"""The choice of computation dtypes against the peer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from weft.nn import dtypes

flax_nnx = pytest.importorskip("flax.nnx", reason="flax is not installed")

ARGS = [
    (jnp.ones(1),),
    (jnp.ones(1), jnp.ones(1, jnp.bfloat16)),
    (jnp.ones(1, jnp.float16), None, jnp.ones(1, jnp.bfloat16)),
    (jnp.ones(1, jnp.bfloat16), 2.0),
    (jnp.ones(1, jnp.bfloat16), 2, True),
    (jnp.ones(1, jnp.int8),),
    (jnp.ones(1, jnp.int8), jnp.ones(1, jnp.float16)),
    (jnp.ones(1, jnp.uint32), 1.5),
    (np.ones(1), np.ones(1, np.int64)),
    (True,),
]


@pytest.mark.parametrize("inexact", [True, False])
@pytest.mark.parametrize("dtype", [None, jnp.bfloat16, jnp.complex64])
@pytest.mark.parametrize("args", ARGS)
def test_same_dtypes(args, dtype, inexact):
    with jax.numpy_dtype_promotion("standard"):
        found = dtypes.promote_dtype(args, dtype=dtype, inexact=inexact)
        expected = flax_nnx.nn.dtypes.promote_dtype(args, dtype=dtype, inexact=inexact)
    assert type(found) is type(expected)
    for ours, theirs in zip(found, expected, strict=True):
        if theirs is None:
            assert ours is None
        else:
            assert (ours.dtype, ours.weak_type) == (theirs.dtype, theirs.weak_type)
