"""The examples run as they stand; digits.py goes on after a kill to the very same numbers."""

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx

ROOT = Path(__file__).parents[1]
DIGITS = [sys.executable, str(ROOT / "examples" / "digits.py")]
EPOCHS = 30  # short ones; enough that a kill finds the run still going
FAST = ["--limit", "240", "--epochs", str(EPOCHS), "--seed", "3"]


def digits(out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}  # one device, as users
    return subprocess.run(
        [*DIGITS, *FAST, "--out", str(out), *options],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def kill_after_epoch(out: Path, epoch: int) -> None:
    """Starts a run and kills it with no chance to clean up, in the midst of a later epoch."""
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    command = [*DIGITS, *FAST, "--out", str(out)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.startswith(f"epoch {epoch:>2}/"):
                break
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL


def numbers(out: Path) -> list[dict[str, str]]:
    """The history, exactly."""
    history = nnx.load(out / "checkpoint.safetensors").meta["history"]
    return [{name: value.hex() for name, value in record.items()} for record in history]


def arrays(out: Path) -> dict:
    saved = nnx.load(out / "checkpoint.safetensors")
    is_key = lambda x: jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)  # noqa: E731
    return {
        name: np.asarray(jax.random.key_data(x) if is_key(x) else x).tobytes()
        for name, x in saved.items()
    }


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("uninterrupted")
    done = digits(out)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line[:11] for line in lines[:-1]] == [f"epoch {i:>2}/30" for i in range(1, EPOCHS + 1)]
    assert lines[-1].startswith("test accuracy ")
    assert "\x1b" not in done.stdout
    return out


def test_digits_learns_and_leaves_its_files(uninterrupted):
    assert sorted(os.listdir(uninterrupted)) == ["checkpoint.safetensors", "digits.png"]
    assert (uninterrupted / "digits.png").read_bytes().startswith(b"\x89PNG")
    history = nnx.load(uninterrupted / "checkpoint.safetensors").meta["history"]
    assert len(history) == EPOCHS
    assert history[-1]["train_loss"] < history[0]["train_loss"]


def test_digits_killed_and_resumed_ends_on_the_same_numbers(uninterrupted, tmp_path):
    kill_after_epoch(tmp_path, 2)
    assert 2 <= len(numbers(tmp_path)) < EPOCHS
    done = digits(tmp_path, "--resume")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("resumed after epoch ")
    assert numbers(tmp_path) == numbers(uninterrupted)
    assert arrays(tmp_path) == arrays(uninterrupted)
    assert sorted(os.listdir(tmp_path)) == ["checkpoint.safetensors", "digits.png"]


# -- in this process, for what is not about the process


@pytest.fixture(scope="module")
def module():
    spec = importlib.util.spec_from_file_location("digits", DIGITS[1])
    module = importlib.util.module_from_spec(spec)
    sys.modules["digits"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["digits"]


def run_main(module, monkeypatch, out: Path, *options: str) -> None:
    monkeypatch.setattr(sys, "argv", ["digits.py", *FAST, "--out", str(out), *options])
    module.main()


def test_digits_refuses_a_checkpoint_of_other_options(uninterrupted, module, monkeypatch):
    before = arrays(uninterrupted)
    with pytest.raises(SystemExit, match=r"is of a run with \{'epochs': 30\}: give the same"):
        run_main(module, monkeypatch, uninterrupted, "--resume", "--epochs", "9")
    assert arrays(uninterrupted) == before


def test_digits_refuses_too_few_digits(module, monkeypatch, tmp_path):
    with pytest.raises(SystemExit, match="--limit 20 leaves less than one batch to train on"):
        run_main(module, monkeypatch, tmp_path, "--limit", "20")


def test_digits_refuses_no_epochs(module, monkeypatch, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run_main(module, monkeypatch, tmp_path, "--epochs", "0")
    assert "--epochs must be at least 1, found 0" in capsys.readouterr().err


def test_digits_of_training_and_testing_are_apart(module):
    (images, labels), (test_images, test_labels) = module.load_digits()
    assert len(labels) + len(test_labels) == 1797 and len(test_labels) == 360
    assert images.shape[1:] == test_images.shape[1:] == (8, 8, 1)
    assert (images.min(), images.max(), images.dtype) == (0, 1, np.float32)
    config = module.Config()
    first = [labels for _, labels in module.batches(images, labels, config, epoch=0)]
    again = [labels for _, labels in module.batches(images, labels, config, epoch=0)]
    other = [labels for _, labels in module.batches(images, labels, config, epoch=1)]
    assert len(first) == 1437 // 64
    np.testing.assert_array_equal(first, again)
    assert (np.stack(first) != np.stack(other)).any()


def test_digits_shows_a_bar_in_a_terminal(module, monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    metrics = nnx.MultiMetric(loss=nnx.metrics.Average(), accuracy=nnx.metrics.Average())
    metrics.update(values=jnp.array(0.25))
    record = {f"{part}_{name}": 0.5 for part in ("train", "test") for name in ("loss", "accuracy")}
    with module.Display(epochs=2, steps=10) as display:
        display.step(0, 5, metrics)
        display.epoch(0, record)
    shown = capsys.readouterr().out
    assert "epoch 1 loss 0.2500 accuracy 25.00%" in shown
    assert "epoch  1/2  train loss 0.5000 accuracy  50.00%" in shown


# -- stacks.py


def test_stacks_runs(monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location("stacks", ROOT / "examples" / "stacks.py")
    stacks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(stacks)
    monkeypatch.setattr(sys, "argv", ["stacks.py", "--depth", "3", "--steps", "2"])
    stacks.main()
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("compiled 3 blocks in ")
    assert shown[1].startswith("step    2  loss ")
    norms = shown[2].partition(": ")[2].split(", ")
    assert len(norms) == 3 and all(4 < float(norm) < 12 for norm in norms)
    assert shown[-1].startswith("without the last one: ") and shown[-1].endswith("%")
