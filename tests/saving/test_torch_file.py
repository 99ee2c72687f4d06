"""Files of PyTorch: read by PyTorch's reader of plain weights, or not at all."""

import pickle
import sys
import types

import numpy as np
import pytest

import weft as nnx


class Malicious:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return (open, (str(self.canary), "w"))


@pytest.fixture(params=["model.pt", "pytorch_model.bin", "model.pth", "model.ckpt"])
def file(request, tmp_path):
    file = tmp_path / request.param
    file.write_bytes(pickle.dumps({"weight": Malicious(tmp_path / "canary")}))
    return file


class Tensor:
    """What is asked of a tensor."""

    def __init__(self, array):
        self.array, self.dtype = array, f"torch.{array.dtype}"

    def detach(self):
        return self

    def numpy(self):
        return self.array


def torch_of(version, load):
    module = types.ModuleType("torch")
    module.__version__, module.load = version, load
    return module


@pytest.mark.parametrize("version", [None, "2.9.1", "1.13"])
def test_without_a_pytorch_that_is_safe_nothing_is_opened(file, version, monkeypatch):
    found = None if version is None else torch_of(version, lambda *a, **k: pytest.fail("opened"))
    monkeypatch.setitem(sys.modules, "torch", found)
    text = "none is installed" if version is None else f"found {version}"
    for read in (nnx.load, lambda file: nnx.restore(file, model=nnx.Rngs(0))):
        with pytest.raises(
            nnx.CheckpointError, match=f"is a pickle.*PyTorch 2.10 or newer.*{text}"
        ):
            read(file)
    assert not (file.parent / "canary").exists()


def test_a_safetensors_file_is_one_by_any_name(file):
    nnx.save(file, x=nnx.Param(np.ones(2)))
    restored = nnx.Param(np.zeros(2))
    nnx.restore(file, x=restored)
    assert (restored == 1).all() and list(nnx.load(file)) == ["x"]


def test_only_plain_weights_are_asked_for(file, monkeypatch):
    asked = []

    def load(name, **options):
        asked.append((name, options))
        weights = {"layers.0.weight": Tensor(np.ones((2, 3))), "steps": [Tensor(np.array(3))]}
        return weights | {"epoch": 7}

    monkeypatch.setitem(sys.modules, "torch", torch_of("2.13.0+cpu", load))
    saved = nnx.load(file)
    assert asked == [(file, {"map_location": "cpu", "weights_only": True})]
    assert {name: saved[name].shape for name in saved} == {"layers.0.weight": (2, 3), "steps.0": ()}


def test_more_than_weights_is_refused(file, monkeypatch):
    def load(name, **options):
        raise pickle.UnpicklingError("Weights only load failed")

    monkeypatch.setitem(sys.modules, "torch", torch_of("2.13.0", load))
    with pytest.raises(
        nnx.CheckpointError, match=r"more than plain weights.*Weights only load failed"
    ):
        nnx.load(file)
    assert not (file.parent / "canary").exists()


def test_a_pickle_under_another_name_is_no_safetensors_file(file):
    other = file.rename(file.with_name("model.safetensors"))
    with pytest.raises(nnx.CheckpointError):
        nnx.load(other)
    assert not (file.parent / "canary").exists()


def test_files_of_the_real_one_are_read(tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    weights = {"a.weight": torch.ones(2, 3), "b": torch.zeros(2, dtype=torch.bfloat16)}
    torch.save(weights, tmp_path / "model.pt")
    saved = nnx.load(tmp_path / "model.pt")
    assert {name: str(saved[name].dtype) for name in saved} == {
        "a.weight": "float32",
        "b": "bfloat16",
    }
    torch.save({"a": Malicious(tmp_path / "canary")}, tmp_path / "bad.pt")
    with pytest.raises(nnx.CheckpointError, match="more than plain weights"):
        nnx.load(tmp_path / "bad.pt")
    assert not (tmp_path / "canary").exists()
