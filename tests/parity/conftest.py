"""Programs are compared as users compile them: with all optimizations."""

from collections.abc import Iterator

import jax
import pytest


@pytest.fixture(autouse=True, scope="module")
def all_optimizations() -> Iterator[None]:
    jax.clear_caches()  # of programs that other tests had compiled with few of them
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.clear_caches()
    jax.config.update("jax_disable_most_optimizations", True)
