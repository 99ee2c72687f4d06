"""The devices that some tests need; on a machine that has others, they skip."""

import math
from typing import Any

import jax
import pytest


def devices(count: int) -> list[jax.Device]:
    """The first `count` devices."""
    if jax.device_count() < count:
        pytest.skip(f"needs {count} devices, here is {jax.device_count()}")
    return jax.devices()[:count]


def on_cpu(array: Any) -> Any:
    """The array, if NumPy can read it where it is."""
    if jax.default_backend() != "cpu":
        pytest.skip("needs arrays in the memory of the CPU")
    return array


def make_mesh(
    shape: tuple[int, ...], names: tuple[str, ...], *args, **options
) -> jax.sharding.Mesh:
    """`jax.make_mesh` over the first devices."""
    return jax.make_mesh(shape, names, *args, devices=devices(math.prod(shape)), **options)
