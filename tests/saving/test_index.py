"""Several files and their index: read as one, and refused where the index leads elsewhere."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx
from weft._saving.index import INDEX


@pytest.fixture
def folder(tmp_path):
    model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    nnx.save(tmp_path / "model-1.safetensors", kernel=model.kernel)
    nnx.save(tmp_path / "model-2.safetensors", bias=model.bias)
    write_index(tmp_path, kernel="model-1.safetensors", bias="model-2.safetensors")
    return tmp_path


def write_index(folder, **weight_map):
    index = {"metadata": {"total_size": 36}, "weight_map": weight_map}
    (folder / f"model{INDEX}").write_text(json.dumps(index))


def test_they_are_read_as_one_by_index_or_folder(folder):
    model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    for name in (folder, folder / f"model{INDEX}"):
        saved = nnx.load(name)
        assert set(saved) == {"bias", "kernel"} and saved.meta == {"total_size": 36}
        np.testing.assert_array_equal(saved["kernel"], model.kernel)
    other = nnx.Linear(2, 3, rngs=nnx.Rngs(1))
    nnx.restore(folder, kernel=other.kernel, bias=other.bias)
    assert bool(jnp.all(other.kernel[...] == model.kernel[...]))


@pytest.mark.parametrize(
    ("shard", "message"),
    [
        ("../model-1.safetensors", "not in its own folder"),
        ("/etc/passwd", "not in its own folder"),
        ("..\\model-1.safetensors", "not in its own folder"),
        ("sub/model-1.safetensors", "not in its own folder"),
        ("..", "not in its own folder"),
        ("", "not in its own folder"),
        ("model-1.safetensors\0", "not in its own folder"),
        ("link.safetensors", "a link: copy what it leads to"),
        ("model-3.safetensors", "not there: download all shards"),
    ],
)
def test_an_index_that_leads_elsewhere_is_refused_before_anything_is_opened(
    folder, shard, message, monkeypatch
):
    (folder / "link.safetensors").symlink_to(folder / "model-2.safetensors")
    write_index(folder, kernel="model-1.safetensors", bias=shard)
    monkeypatch.setattr("weft._saving.index.TensorFile", lambda file: pytest.fail(f"{file} open"))
    with pytest.raises(nnx.CheckpointError, match=message):
        nnx.load(folder / f"model{INDEX}")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"weight_map": [1]}', '{"weight_map": {"a": 1}}']
)
def test_what_is_no_index_is_refused(folder, text):
    (folder / f"model{INDEX}").write_text(text)
    with pytest.raises(nnx.CheckpointError, match="is no index of safetensors files"):
        nnx.load(folder)


def test_an_index_without_end_is_refused(folder, monkeypatch):
    monkeypatch.setattr("weft._saving.index.LIMIT_INDEX", 10)
    with pytest.raises(nnx.CheckpointError, match="more than 10 bytes"):
        nnx.load(folder)


def test_an_array_that_is_not_where_the_index_says_is_named(folder):
    write_index(folder, kernel="model-2.safetensors")
    with pytest.raises(
        nnx.CheckpointError, match=r"'kernel' in model-2\.safetensors, where it is not"
    ):
        nnx.load(folder)


def test_a_folder_of_several_files_without_index_asks_which(folder):
    (folder / f"model{INDEX}").unlink()
    with pytest.raises(nnx.CheckpointError, match="a folder with 2 files of safetensors: name one"):
        nnx.load(folder)
    (folder / "model-2.safetensors").unlink()
    assert set(nnx.load(folder)) == {"kernel"}
