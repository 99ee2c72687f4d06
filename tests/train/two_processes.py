"""One process of several that save, or restore and compare: see `main` for the arguments.

What is saved is a function of nothing, so that whoever restores it knows what it is to be.
"""

import errno
import os
import re
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import weft as nnx
from weft._saving import steps, storage
from weft._saving.shards import Held
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


def no_space(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def no_space_at_the_end(*given: Any) -> Callable[[], None]:
    end = begin_saving(*given)
    return lambda: no_space(end())


begin_saving = storage.begin_saving


FAULTS: dict[str, tuple[object, str, Callable[..., object], int]] = {
    # by what happens: what fails, and in which process
    "the folder": (steps, "begin", no_space, 0),
    "a shard": (storage, "begin_saving", no_space_at_the_end, 1),
    "nothing": (Held, "checks", lambda held: [], 1),
}
FOUND = {
    ("the folder", 0): (OSError, "No space left on device: '{folder}'"),
    ("the folder", 1): (OSError, "the first process could not write into {folder}: see its error"),
    ("a shard", 0): (RuntimeError, "process 1 could not save: OSError: .* No space left on device"),
    ("a shard", 1): (OSError, "No space left on device: '{folder}/0000000001'"),
    ("nothing", 0): (RuntimeError, "no process has written all of state.*"),
    ("nothing", 1): (RuntimeError, "{folder}/0000000001 was not saved: see the error of the first"),
}


def fail_and_save(checkpoints: Checkpoints, folder: str, spec: str, rank: int) -> None:
    """Saves while something fails in one process: both learn of it, and the next one is saved."""
    for what, (owner, name, fault, where) in FAULTS.items():
        kept = getattr(owner, name)
        kind, text = FOUND[what, rank]
        if rank == where:
            setattr(owner, name, fault)
        try:
            checkpoints.save(1, state=make(spec, 1))
            checkpoints.wait()
        except kind as error:
            assert re.search(text.format(folder=re.escape(folder)), str(error)), str(error)
        else:
            raise AssertionError(f"{what} failed, and nothing was said in process {rank}")
        finally:
            setattr(owner, name, kept)
        assert checkpoints.steps == [], what


def main(action: str, folder: str, spec: str, rank: str = "0", port: str = "") -> None:
    """Saves steps 1 and 2, perhaps after some that fail; or restores the newest that is sound."""
    if port:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(f"127.0.0.1:{port}", 2, int(rank), heartbeat_timeout_seconds=10)
        assert jax.process_count() == 2 and jax.device_count() == 4
    with Checkpoints(folder) as checkpoints:
        if action == "fail":
            fail_and_save(checkpoints, folder, spec, int(rank))
        if action in ("save", "fail"):
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
