"""Arrays by name, of files and of mappings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

import weft as nnx
from weft.tools.weights.source import open_source

from .models import array


def test_a_file_and_a_folder(tmp_path):
    arrays = {"h.0.a/b": array(2, 3), "x": array(2).astype(jnp.bfloat16)}
    safetensors.numpy.save_file(arrays, tmp_path / "model.safetensors")
    for place in (tmp_path, str(tmp_path / "model.safetensors"), nnx.load(tmp_path)):
        source = open_source(place)
        assert source.where == str(tmp_path / "model.safetensors")
        assert {name: str(aval) for name, aval in source.avals.items()} == {
            "h.0.a/b": "float32[2, 3]",
            "x": "bfloat16[2]",
        }
        read = source.read("h.0.a/b")
        assert (read == arrays["h.0.a/b"]).all() and read.flags.writeable


def test_what_is_no_array_is_left_out(tmp_path):
    nnx.save(tmp_path / "a.safetensors", model=nnx.Dropout(0.5, rngs=nnx.Rngs(0)), n=nnx.Param(3))
    assert list(open_source(tmp_path / "a.safetensors").avals) == ["model.rngs.count"]


def test_a_mapping():
    arrays = {"a": {0: jnp.ones((2, 3)), "b": nnx.Param(jnp.zeros(2))}, "c.d": np.float32(1)}
    source = open_source(arrays)
    assert {name: aval.shape for name, aval in source.avals.items()} == {
        "a.0": (2, 3),
        "a.b": (2,),
        "c.d": (),
    }
    assert isinstance(source.read("a.0"), np.ndarray)


def test_others_are_refused():
    with pytest.raises(TypeError, match=r"found a int: of a model of PyTorch give `model.state_"):
        open_source(3)
    with pytest.raises(TypeError, match=r"found a list at 'a.b': `jnp.asarray\(x\)`"):
        open_source({"a": {"b": [1, 2]}})
    with pytest.raises(TypeError, match="found a PRNG key at 'a': "):
        open_source({"a": jax.random.key(0)})
    for suffix, remedy in ((".npz", "np.load"), (".msgpack", "flax.serialization.msgpack_restore")):
        with pytest.raises(TypeError, match=f"a{suffix} is no file of saf.* by name, `{remedy}"):
            open_source(f"a{suffix}")


def test_a_file_of_numpy(tmp_path):
    np.savez(tmp_path / "a.npz", x=array(2))
    with np.load(tmp_path / "a.npz") as opened:
        assert (open_source(opened).read("x") == array(2)).all()


def test_folders_without_a_file_of_safetensors(tmp_path):
    with pytest.raises(nnx.CheckpointError, match=r"without files of safet.*/model.safetensors'`"):
        open_source(tmp_path)
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(nnx.CheckpointError, match=r"name the file, `'.*/pytorch_model.bin'`"):
        open_source(tmp_path)
