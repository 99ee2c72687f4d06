"""language_model.py: it learns, writes with its cache what it would without, and takes adapters."""

import re
from zlib import crc32

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx
from tests.examples.programs import is_picture, load, run

SMALL = ("--width", 32, "--depth", 2, "--length", 32, "--write", 20)


@pytest.fixture(scope="module")
def module():
    return load("language_model")


@pytest.fixture
def folders(tmp_path):
    """Texts to learn from, of which some are held out, and others without any Python."""
    (tmp_path / "text").mkdir()
    for i in range(60):
        (tmp_path / "text" / f"{i}.py").write_text(f"def f{i}(x):\n    return x + {i}\n" * 20)
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "a.txt").write_text("to be or not to be, " * 300)
    return tmp_path


def test_it_learns_writes_and_takes_adapters(monkeypatch, capsys, folders):
    out = folders / "out"
    options = (*SMALL, "--steps", 100, "--text", folders / "text", "--out", out)
    shown = run(monkeypatch, capsys, "language_model", *options)
    bits = {name: float(value) for name, value in re.findall(r"^  (\S.*?) +([\d.]+)$", shown, re.M)}
    assert list(bits) == ["this model", "xz -9e", "bigrams"]
    assert bits["this model"] < bits["bigrams"]
    assert is_picture(out / "bits.png") and (out / "sample.txt").read_text().startswith("def ")

    again = run(monkeypatch, capsys, "language_model", *options, "--lora", folders / "more")
    assert f"this model  {bits['this model']:.3f}" in again  # it went on where it had ended
    _, learnt, before = (
        float(x) for x in re.findall(r"(?:this model  |seen them, )([\d.]+)", again)
    )
    assert learnt < before / 2
    assert is_picture(out / "lora" / "bits.png")


def test_adapters_alone_are_trained(module, folders):
    learner = module.train.Learner(
        nnx.lora(
            module.ByteGPT(32, 2, rngs=nnx.Rngs(0)),
            nnx.PathContains("blocks"),
            rank=2,
            rngs=nnx.Rngs(1),
        ),
        module.rule(10, 1e-2),
        wrt=nnx.LoRAParam,
    )
    before = nnx.pure(nnx.clone(nnx.state(learner.model)))
    for seed in range(2):
        window = np.random.default_rng(seed).integers(0, 256, (2, 9)).astype(np.uint8)
        module.train_step(learner, window)
    after = nnx.pure(nnx.state(learner.model))
    for path, old in nnx.to_flat_state(before):
        new = dict(nnx.to_flat_state(after))[path]
        assert ("lora_b" in path[-1]) <= bool((new != old).any()), path
        assert ("lora" in path[-1]) or bool((new == old).all()), path


def test_what_is_written_by_the_cache_is_what_the_model_would_write(module):
    model = module.ByteGPT(32, 2, rngs=nnx.Rngs(0))
    text = np.frombuffer(b"def f(x): return", np.uint8)
    whole = model(text[None])
    decoder = nnx.view(model, decode=True, batch_size=1, max_length=len(text))
    padded = np.concatenate([np.zeros(module.ORDERS, np.uint8), text])
    parts = [
        decoder(text[None, i : i + 1], padded[None, i : i + module.ORDERS])
        for i in range(len(text))
    ]
    np.testing.assert_allclose(jnp.concatenate(parts, 1), whole, atol=1e-4)


def test_the_table_is_there_once(module):
    model = module.ByteGPT(32, 2, rngs=nnx.Rngs(0))
    assert model.head is model.embed
    names = ["/".join(map(str, path)) for path, _ in nnx.to_flat_state(nnx.state(model))]
    assert [name for name in names if name.startswith(("embed", "head"))] == ["embed/embedding"]
    assert jax.tree.leaves(model.embed.embedding)[0].shape == (256, 32)


def test_a_single_file_is_parted(module, tmp_path):
    """Also one that would be held out as a whole."""
    for name in (
        "0.py",
        next(f"{i}.py" for i in range(999) if crc32(f"{i}.py".encode()) % 50 == 0),
    ):
        (tmp_path / name).write_text("x" * 100)
        learnt, held_out = module.read_text(tmp_path)
        assert (len(learnt), len(held_out)) == (90, 10)
        (tmp_path / name).unlink()


def test_too_little_text(module, tmp_path):
    with pytest.raises(
        SystemExit, match=r"nowhere is no folder: give one with files such as \*.py"
    ):
        module.read_text(tmp_path / "nowhere")
    with pytest.raises(SystemExit, match="5 bytes of text are too few: there must be 33"):
        module.windows(np.zeros(5, np.uint8), 32, 32)
