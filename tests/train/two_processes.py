"""One process of several that save, or restore and compare: see `main` for the arguments.

What is saved is a function of nothing, so that whoever restores it knows what it is to be.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import weft as nnx
from weft.train.checkpoints import Checkpoints

SPECS = {
    "rows": PartitionSpec("x"),
    "columns": PartitionSpec(None, "x"),
    "both": PartitionSpec(),
}


def make(spec: str, scale: int) -> dict[str, nnx.Variable]:
    """Arrays, keys and numbers, all of them zero if the scale is."""
    count = jax.device_count()
    mesh = jax.make_mesh((count,), ("x",), axis_types=(AxisType.Auto,))

    def spread(array: np.ndarray, spec: PartitionSpec) -> jax.Array:
        place = NamedSharding(mesh, spec)
        return jax.make_array_from_callback(array.shape, place, lambda index: array[index])

    numbers = np.arange(64.0, dtype=np.float32).reshape(8, 8) * scale
    data = np.arange(16, dtype=np.uint32).reshape(8, 2) * scale
    keys = jax.random.wrap_key_data(spread(data, PartitionSpec("x")))
    values = {
        "numbers": spread(numbers, SPECS[spec]),
        "low": spread(numbers.astype(jnp.bfloat16), SPECS[spec]),
        "few": spread((numbers % 7).astype(jnp.int4), SPECS[spec]),
        "keys": keys,
        "local": jnp.arange(3) * scale,
        "host": np.arange(3) * scale,
        "number": scale / 3,
        "whole": spread(np.asarray(0.5 * scale), PartitionSpec()),
    }
    return {name: nnx.Variable(value) for name, value in values.items()}


def assert_same(actual: dict[str, nnx.Variable], expected: dict[str, nnx.Variable]) -> None:
    for name, variable in expected.items():
        new, old = actual[name].get_raw_value(), variable.get_raw_value()
        assert type(new) is type(old), name
        if not isinstance(old, jax.Array):
            assert np.all(new == old), name
            continue
        assert new.dtype == old.dtype and new.sharding == old.sharding, (name, new.sharding)
        if name == "keys":
            new, old = jax.random.key_data(new), jax.random.key_data(old)
        for a, b in zip(new.addressable_shards, old.addressable_shards, strict=True):
            np.testing.assert_array_equal(np.asarray(a.data), np.asarray(b.data), err_msg=name)


def main(action: str, folder: str, spec: str, rank: str = "0", port: str = "") -> None:
    """Saves steps 1 and 2, or restores the newest, or finds it damaged and takes the one before."""
    if port:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(f"127.0.0.1:{port}", 2, int(rank), heartbeat_timeout_seconds=10)
        assert jax.process_count() == 2 and jax.device_count() == 4
    with Checkpoints(folder) as checkpoints:
        if action == "save":
            for step in 1, 2:
                checkpoints.save(step, meta=step, state=make(spec, step))
            assert checkpoints.steps == [1, 2]
        else:
            state = make(spec, 0)
            step = checkpoints.restore(state=state)
            assert step == (1 if action == "fall back" else 2)
            assert_same(state, make(spec, step))
    print("done", rank)


if __name__ == "__main__":
    main(*sys.argv[1:])
