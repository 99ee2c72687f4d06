"""digits.py runs as it stands, and goes on after kills to the very same numbers.

It is killed WEFT_EXAMPLE_KILLS times.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

import weft as nnx
from tests.examples.programs import EXAMPLES, load
from weft import train

DIGITS = [sys.executable, str(EXAMPLES / "digits.py")]
KILLS = int(os.environ.get("WEFT_EXAMPLE_KILLS", "2"))
EPOCHS = 15 * (KILLS + 1)  # short ones; enough that a kill finds the run still going
FAST = ["--limit", "240", "--epochs", str(EPOCHS), "--seed", "3"]
FILES = ["checkpoints", "confusion.png", "curves.png", "history.jsonl", "lock", "metrics.csv"]


def start(out: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*DIGITS, *FAST, "--out", str(out), *options],
        env={k: v for k, v in os.environ.items() if k != "XLA_FLAGS"},  # one device, as users
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(out: Path, *options: str) -> str:
    with start(out, *options) as process:
        shown, errors = process.communicate()
    assert process.returncode == 0, errors
    return shown


def kill(out: Path, number: int, lines: int, seconds: float) -> int:
    """Starts a run and kills it a moment after so many lines."""
    with start(out) as process:
        for _ in range(lines):
            assert process.stdout.readline().startswith("step ")
        time.sleep(seconds)
        process.send_signal(number)
        process.communicate()
    return process.returncode


def numbers(out: Path) -> list[tuple[int, dict[str, str]]]:
    """What was logged, exactly."""
    rows = train.History(out / "history.jsonl").rows
    return [(step, {name: value.hex() for name, value in row.items()}) for step, row in rows]


@pytest.fixture(scope="module")
def module():
    return load("digits")


def arrays(module, out: Path) -> list[bytes]:
    """What is in the last checkpoint, exactly."""
    rngs = nnx.Rngs(9)
    model = module.Reader(rngs=rngs)
    tx = optax.adamw(optax.constant_schedule(0.1))
    state = {"model": model, "optimizer": nnx.Optimizer(model, tx, wrt=nnx.Param), "rngs": rngs}
    train.Checkpoints(out / "checkpoints").restore(**state)
    leaves = jax.tree.leaves(nnx.as_pure(nnx.state(state)))
    is_key = lambda x: jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)  # noqa: E731
    return [np.asarray(jax.random.key_data(x) if is_key(x) else x).tobytes() for x in leaves]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("uninterrupted")
    shown = finish(out)
    assert "\x1b" not in shown
    *lines, last = shown.splitlines()
    begin = [f"step {3 * i}/{3 * EPOCHS}  accuracy " for i in range(1, EPOCHS + 1)]
    assert [line[: len(text)] for line, text in zip(lines, begin, strict=True)] == begin
    assert last.endswith(f" wrong; see {out}")
    return out


def test_digits_learns_and_leaves_its_files(uninterrupted):
    assert sorted(os.listdir(uninterrupted)) == FILES
    for name in ("confusion.png", "curves.png"):
        assert (uninterrupted / name).read_bytes().startswith(b"\x89PNG")
    history = train.History(uninterrupted / "history.jsonl")
    assert history.names == ["accuracy", "loss", "test/accuracy", "test/loss"]
    losses = list(history["loss"].values())
    assert len(losses) == EPOCHS and losses[-1] < losses[0] / 2


@pytest.mark.timeout(120 + 20 * KILLS)
def test_digits_killed_and_resumed_ends_on_the_same_numbers(uninterrupted, module, tmp_path):
    rng = random.Random(0)
    for i in range(KILLS):
        number = (signal.SIGKILL, signal.SIGTERM)[i % 2]
        status = kill(tmp_path, number, rng.randrange(2, 8), rng.random() * 0.1)
        assert status == (143 if number == signal.SIGTERM else -number)
    assert 2 <= len(numbers(tmp_path)) < EPOCHS
    finish(tmp_path)
    assert numbers(tmp_path) == numbers(uninterrupted)
    assert arrays(module, tmp_path) == arrays(module, uninterrupted)
    assert sorted(os.listdir(tmp_path)) == FILES


def test_digits_that_has_ended_says_the_same_again(uninterrupted):
    before = numbers(uninterrupted)
    (line,) = finish(uninterrupted).splitlines()
    assert line.endswith(f" wrong; see {uninterrupted}")
    assert numbers(uninterrupted) == before


# -- in this process, for what is not about the process


def test_digits_refuses_a_folder_of_other_options(uninterrupted, module):
    before = arrays(module, uninterrupted)
    with pytest.raises(ValueError, match=rf"other facts:\n  epochs: then {EPOCHS}, now 9\ngive"):
        module.learn(seed=3, epochs=9, limit=240, out=uninterrupted)
    assert arrays(module, uninterrupted) == before


def test_digits_refuses_too_few_digits(module, tmp_path):
    with pytest.raises(ValueError, match="no batch of 64 in 16 examples"):
        module.learn(seed=0, epochs=1, limit=20, out=tmp_path)


def test_digits_of_training_and_testing_are_apart(module):
    (images, labels), (test_images, test_labels) = module.load_digits()
    assert len(labels) + len(test_labels) == 1797 and len(test_labels) == 360
    assert images.shape[1:] == test_images.shape[1:] == (8, 8, 1)
    assert (images.min(), images.max(), images.dtype) == (0, 1, np.float32)
