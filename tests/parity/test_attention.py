"""Attention in low precision against the peer: what strict dtype promotion does not allow.

JAX's attention function, which both libraries call, multiplies float32 with bfloat16 in its
gradients. Under strict promotion Weft computes step by step instead, and the peer raises.
"""

import jax
import jax.numpy as jnp
import pytest

import weft
from tests.parity.cases import Case, Function, Layer
from tests.parity.test_layers import run

flax_nnx = pytest.importorskip("flax.nnx", reason="flax is not installed")

HEADS = ((2, 5, 4, 3), (2, 6, 2, 3), (2, 6, 2, 3))
CASES = [
    Case("function", Function("dot_product_attention", is_causal=True), HEADS, jnp.bfloat16),
    Case("function in bfloat16", Function("dot_product_attention", dtype=jnp.bfloat16), HEADS),
    Case(
        "layer in bfloat16",
        Layer("MultiHeadAttention", 4, 8, normalize_qk=True, decode=False, dtype=jnp.bfloat16),
        ((2, 5, 8),),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_same_bits_where_dtypes_mix(case: Case) -> None:
    with jax.numpy_dtype_promotion("standard"):
        expected, found = run(flax_nnx, case), run(weft, case)
    assert {path: value.tobytes() for path, value in found.items()} == {
        path: value.tobytes() for path, value in expected.items()
    }
