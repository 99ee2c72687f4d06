"""Several devices for tests that need them; on a machine that has fewer, these tests skip."""

import math

import jax
import pytest


def devices(count: int) -> list[jax.Device]:
    """The first `count` devices."""
    if jax.device_count() < count:
        pytest.skip(f"needs {count} devices, here is {jax.device_count()}")
    return jax.devices()[:count]


def make_mesh(
    shape: tuple[int, ...], names: tuple[str, ...], *args, **options
) -> jax.sharding.Mesh:
    """`jax.make_mesh` over the first devices."""
    return jax.make_mesh(shape, names, *args, devices=devices(math.prod(shape)), **options)
