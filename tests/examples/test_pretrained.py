"""examples/pretrained reads what transformers wrote, and says the same, where it is not installed.

The files of tests/data/pretrained are written by tests/parity/golden.py; more is compared in
tests/parity/test_transformers.py.
"""

import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

import weft as nnx
from tests.examples.programs import load

ROOT = Path(__file__).parents[2]
EXAMPLE, DATA = ROOT / "examples" / "pretrained", ROOT / "tests" / "data" / "pretrained"


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLE))
    return load("pretrained/__main__")


def test_each_model_is_short():
    for name in ("gpt2", "llama", "vit"):
        assert len((EXAMPLE / f"{name}.py").read_text(encoding="utf-8").splitlines()) < 120


@pytest.mark.parametrize("name", ["gpt2", "llama", "vit"])
def test_models_of_transformers(name, example, tmp_path):
    expected = safetensors.numpy.load_file(DATA / f"{name}.safetensors")
    model, config, report = example.load(DATA / name)
    assert report.fits
    inputs = expected["inputs"]
    inputs = np.moveaxis(inputs, 1, -1) if name == "vit" else inputs
    logits = model(jnp.asarray(inputs))
    np.testing.assert_allclose(logits, expected["logits"], rtol=1e-4, atol=1e-4)
    if name != "vit":
        new, _ = example.generate(model, jnp.asarray(inputs), expected["new"].shape[1])
        assert (new == expected["new"]).all() and len(np.unique(new)) > 2

    example.save(model, config, tmp_path)
    first, again = (nnx.load(folder) for folder in (DATA / name, tmp_path))
    assert first.keys() == again.keys() and first.meta == again.meta == {"format": "pt"}
    assert all((first[key] == again[key]).all() for key in first)


def test_a_prompt_that_is_too_long(example):
    model, *_ = example.load(DATA / "gpt2")
    with pytest.raises(ValueError, match="the model knows 24 positions, found 25"):
        example.generate(model, jnp.ones((1, 5), int), 20)


def test_other_rotations_are_refused(example):
    with pytest.raises(ValueError, match="rope_type is 'default' or 'llama3' here, found 'yarn'"):
        example.llama.make_rope({"rope_parameters": {"rope_type": "yarn"}}, 4)


def test_it_runs_without_a_folder_and_with_one(tmp_path):
    command = [sys.executable, str(EXAMPLE), "--out", str(tmp_path), "--count", "5"]
    for more, lines in (
        ([], ["20 of 20 arrays came back", "safetensors: 30 matched\n"]),
        ([str(DATA / "llama"), "--tokens", "4", "5", "--dtype", "bfloat16"], ["[4, 5] → ["]),
    ):
        done = subprocess.run(
            [*command, *more],
            env={k: v for k, v in os.environ.items() if k != "XLA_FLAGS"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert all(line in done.stdout for line in lines)
        assert (tmp_path / "pretrained.png").read_bytes().startswith(b"\x89PNG")
        (tmp_path / "pretrained.png").unlink()
    assert (tmp_path / "vit" / "config.json").is_file()
