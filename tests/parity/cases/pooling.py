"""Pooling functions."""

import jax.numpy as jnp

from tests.parity.cases import Case, Function

CASES = [
    *(
        Case(
            f"{name} {window} {padding}",
            Function(name, window_shape=window, **more),
            (shape,),
            dtype,
            tolerance=2e-2 if (name, dtype) == ("avg_pool", jnp.bfloat16) else 0.0,
        )
        for name in ("avg_pool", "max_pool", "min_pool")
        for window, shape in (((3, 2), (2, 7, 6, 3)), ((3,), (2, 7, 3)), ((2, 2), (5, 6, 3)))
        for padding, more, dtype in (
            ("", {}, jnp.float32),
            ("SAME", {"strides": (2,) * len(window), "padding": "SAME"}, jnp.float32),
            ("pairs", {"padding": ((1, 0),) * len(window)}, jnp.bfloat16),
        )
    ),
    *(
        Case(
            f"avg_pool without padding counted {dtype.__name__} {len(shape)}",
            Function("avg_pool", window_shape=(3, 2), padding="SAME", count_include_pad=False),
            (shape,),
            dtype,
            tolerance=2e-3 if dtype == jnp.float16 else 0.0,
        )
        for dtype in (jnp.float32, jnp.float16)
        for shape in ((2, 7, 6, 3), (7, 6, 3), (2, 2, 7, 6, 3))
    ),
]
