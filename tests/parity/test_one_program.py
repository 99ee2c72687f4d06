"""Initializers, compiled as one program each, against JAX's, called as they are: the same bits."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.devices import devices, make_mesh
from weft.nn import initializers

KERNEL, LARGE = (64, 192), (512, 1025)
FULL = [((3, 3, 7, 13), jnp.float32), (LARGE, jnp.float32)]
HALF = [(KERNEL, jnp.bfloat16), (KERNEL, jnp.float16)]
CASES = [
    ("normal", (0.02,), {}, FULL + HALF),
    ("truncated_normal", (0.3,), {"lower": -1.0, "upper": 0.7}, FULL[:1]),
    ("uniform", (0.07,), {}, FULL[:1] + HALF),
    ("lecun_normal", (), {}, FULL + HALF),
    ("variance_scaling", (1.3, "fan_in", "normal"), {"out_axis": 0}, FULL),
    ("variance_scaling", (0.7, "fan_avg", "uniform"), {}, FULL[1:]),
    ("constant", (0.1,), {}, FULL[:1] + HALF),
    # JAX has no QR decomposition of 16-bit floats.
    ("orthogonal", (1.7,), {}, [(KERNEL, jnp.float32)]),
    ("delta_orthogonal", (1.7,), {}, [((3, 4, 7), jnp.float32)]),
]
CONTEXTS = {
    "float64": lambda: jax.enable_x64(True),
    "rbg": contextlib.nullcontext,
    "not partitionable": lambda: jax.threefry_partitionable(False),
    "not compiled": lambda: jax.disable_jit(),
    "looking for NaN": lambda: jax.debug_nans(True),
    "another device": lambda: jax.default_device(devices(2)[1]),
    "mesh": lambda: jax.set_mesh(mesh(jax.sharding.AxisType.Auto)),
    "explicit mesh": lambda: jax.set_mesh(mesh(jax.sharding.AxisType.Explicit)),
}


def mesh(kind):
    return make_mesh((2,), ("x",), axis_types=(kind,))


def both(name, args, kwargs):
    return [getattr(of, name)(*args, **kwargs) for of in (initializers, jax.nn.initializers)]


def assert_same(found, expected):
    for what in ("shape", "dtype", "weak_type", "sharding", "committed"):
        assert getattr(found, what) == getattr(expected, what), what
    np.testing.assert_array_equal(
        *(np.asarray(x).reshape(-1).view(np.uint8) for x in (found, expected))
    )


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "calls"), CASES, ids=[f"{case[0]}{case[1]}" for case in CASES]
)
def test_same_bits(name, args, kwargs, calls):
    ours, theirs = both(name, args, kwargs)
    key = jax.random.key(0)
    for shape, dtype in calls:
        assert_same(ours(key, shape, dtype), theirs(key, shape, dtype))


@pytest.mark.parametrize("context", CONTEXTS)
def test_same_in_other_contexts(context):
    for case in [("normal", (0.02,), {}), ("lecun_normal", (), {})]:
        ours, theirs = both(*case)
        ours(jax.random.key(0), KERNEL)  # a program that must not be taken
        key = jax.random.key(0, impl="rbg" if context == "rbg" else None)
        with CONTEXTS[context]():
            assert_same(ours(key, KERNEL), theirs(key, KERNEL))
