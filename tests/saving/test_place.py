"""Saved leaves become the kinds of values that they replace."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import weft as nnx
from tests.devices import make_mesh
from weft import train
from weft._saving.facts import fact_of
from weft._saving.place import place


def placed(new, old):
    value = np.array(new) if hasattr(new, "dtype") else new
    return place(value, fact_of(("a",), new), old, fact_of(("a",), old))


@pytest.mark.parametrize(
    ("new", "old", "kind"),
    [
        (np.ones(2), np.zeros(2), np.ndarray),
        (np.float32(1), np.float32(0), np.float32),
        (jnp.ones(2), jnp.zeros(2), jax.Array),
        (jnp.ones(2), np.zeros(2, np.float32), np.ndarray),
        (jnp.ones(2), jax.ShapeDtypeStruct((2,), jnp.float32), jax.Array),
        (3, 5, int),
        (3, jnp.asarray(5), int),
        (jnp.asarray(3), 5, jax.Array),
        # converted
        (3, 5.0, float),
        (3, jnp.zeros(()), jax.Array),
        (3, np.zeros((), np.int8), np.ndarray),
        (jnp.zeros(()), 5, int),
        (np.ones(2), jnp.zeros(2, jnp.bfloat16), jax.Array),
    ],
)
def test_kinds(new, old, kind):
    found = placed(new, old)
    assert isinstance(found, kind)
    assert (np.asarray(found, float) == np.asarray(new, float)).all()
    if hasattr(found, "dtype") and hasattr(old, "dtype"):
        assert found.dtype == old.dtype


def test_weak_types_and_devices():
    assert placed(jnp.asarray(0.5), jnp.zeros(())).weak_type
    assert not placed(jnp.zeros(()), jnp.asarray(0.5)).weak_type
    last = jax.devices()[-1]
    found = placed(jnp.asarray(0.5), jax.device_put(jnp.zeros(()), last))
    assert found.devices() == {last} and found.committed
    assert not placed(jnp.ones(2), jnp.zeros(2)).committed
    assert not placed(jnp.asarray(3), 5).committed


def test_dtypes_that_jax_does_not_have_here():
    wide = np.ones(2)
    with pytest.raises(
        nnx.StructureError, match=r"a was saved as float64\[2\], which JAX does not"
    ):
        placed(wide, jax.ShapeDtypeStruct((2,), np.float64))


@pytest.mark.parametrize("kind", ["file", "steps"])
def test_a_sharding_that_cannot_be_is_told_and_nothing_written(tmp_path, kind):
    sharding = NamedSharding(make_mesh((3,), ("x",)), PartitionSpec("x"))
    abstract = jax.ShapeDtypeStruct((4,), "float32", sharding=sharding)
    saved = {"a": nnx.Param(jnp.arange(4.0)), "b": nnx.Variable(1)}
    target = {"a": nnx.Param(abstract), "b": nnx.Variable(0)}
    with train.Checkpoints(tmp_path / "steps") as checkpoints:
        nnx.save(tmp_path / "file", x=saved)
        checkpoints.save(1, x=saved)
        with pytest.raises(nnx.StructureError, match=r"shardings that .*\n  x\.a, float32\[4\]: "):
            if kind == "file":
                nnx.restore(tmp_path / "file", x=target)
            else:
                checkpoints.restore(x=target)
        assert target["b"].value == 0 and checkpoints.steps == [1]  # which is not damaged
