"""Programs are compared as users compile them, with all optimizations, and on the CPU."""

import os
from collections.abc import Iterator

import jax
import pytest


@pytest.fixture(autouse=True, scope="module")
def all_optimizations() -> Iterator[None]:
    if jax.default_backend() != "cpu":  # other kernels sum in other orders
        if "cpu" not in os.environ["JAX_PLATFORMS"]:
            pytest.skip("bits are compared on the CPU: JAX_PLATFORMS=cuda,cpu")
        jax.config.update("jax_default_device", jax.devices("cpu")[0])
    jax.clear_caches()  # of programs that other tests had compiled with few of them
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_default_device", None)
    jax.clear_caches()
    jax.config.update("jax_disable_most_optimizations", True)


collect_ignore = ["golden.py"]  # which needs PyTorch, to write what tests read
