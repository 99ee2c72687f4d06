"""Copies: other buffers, the same arrays."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from tests.devices import devices, make_mesh
from weft._graph.copies import copy_arrays


def sharded() -> jax.Array:
    return jax.device_put(
        jnp.arange(4.0), NamedSharding(make_mesh((4,), ("x",)), PartitionSpec("x"))
    )


ARRAYS: dict[str, Callable[[], jax.Array]] = {
    "float32": lambda: jnp.ones((2, 3)),
    "bfloat16": lambda: jnp.ones(2, jnp.bfloat16),
    "weak type": lambda: jnp.asarray(1.0),
    "key": lambda: jax.random.key(0),
    "rbg key": lambda: jax.random.key(0, impl="rbg"),
    "second device": lambda: jax.device_put(jnp.ones(2), devices(2)[1]),
    "sharded": sharded,
}


@pytest.mark.parametrize("kind", ARRAYS)
@pytest.mark.parametrize("number", [1, 16, 35])
def test_arrays(kind: str, number: int) -> None:
    array = ARRAYS[kind]()
    copies = copy_arrays([array] * number)
    for copy in copies:
        assert copy.aval == array.aval
        assert copy.sharding == array.sharding and copy.committed == array.committed
    is_key = jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key)
    arrays = [jax.random.key_data(x) if is_key else x for x in (array, *copies)]
    for copy in arrays[1:]:
        np.testing.assert_array_equal(copy, arrays[0])
    pointers = {x.addressable_shards[0].data.unsafe_buffer_pointer() for x in arrays}
    assert len(pointers) == number + 1


def test_other_leaves() -> None:
    held = np.ones(2)
    shape = jax.ShapeDtypeStruct((2,), jnp.float32)
    copied, number, none, text, abstract = copy_arrays([held, 2.0, None, "text", shape])
    assert copied is not held and (copied == held).all()
    assert (number, none, text) == (2.0, None, "text")
    assert abstract is shape


def test_in_a_trace() -> None:
    doubled = jax.jit(lambda x: copy_arrays({"a": x})["a"] * 2)(jnp.ones(2))
    np.testing.assert_array_equal(doubled, [2.0, 2.0])
