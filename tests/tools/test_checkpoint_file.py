"""The file of a checkpoint: no damage unseen, the former one kept until the new one is whole."""

import json
import os
import random
import signal
import struct
import subprocess
import sys
import zlib

import jax.numpy as jnp
import pytest

import weft as nnx
from weft.tools import checkpoint
from weft.tools.checkpoint import CheckpointError


@pytest.fixture
def file(tmp_path):
    return tmp_path / "run.weft"


def test_no_such_file(file):
    with pytest.raises(FileNotFoundError):
        checkpoint.load(file)


# -- damage


@pytest.fixture
def small(file):
    checkpoint.save(file, {"a": nnx.Param(jnp.arange(3.0)), "b": nnx.Param(jnp.ones(2))}, {"n": 1})
    return file


def test_no_flipped_bit_goes_unseen(small):
    good = small.read_bytes()
    for bit in range(8 * len(good)):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        small.write_bytes(bad)
        with pytest.raises(CheckpointError, match="damaged") as caught:
            checkpoint.load(small)
        assert str(small) in str(caught.value)


def test_truncated_lengthened_and_empty_files(small):
    good = small.read_bytes()
    for bad in (*(good[:n] for n in range(0, len(good), 7)), good + b"\0", bytes(len(good)), b"PK"):
        small.write_bytes(bad)
        with pytest.raises(CheckpointError, match="damaged"):
            checkpoint.load(small)


def test_damage_names_the_array(small):
    good = bytearray(small.read_bytes())
    good[-1] ^= 1
    small.write_bytes(good)
    with pytest.raises(CheckpointError, match="the bytes of b do not have the checksum"):
        checkpoint.load(small)


def rewritten(file, change):
    """Rewrites the manifest with a good checksum, as someone malicious would."""
    data = file.read_bytes()
    magic, version, length, _ = struct.unpack("<8sIQI", data[:24])
    manifest = json.loads(data[24 : 24 + length])
    change(manifest)
    text = json.dumps(manifest).encode()
    header = struct.pack("<8sIQI", magic, version, len(text), zlib.crc32(text))
    file.write_bytes(header + text + data[24 + length :])


@pytest.mark.parametrize(
    "entry",
    [
        {"shape": [2**62]},
        {"shape": [-3]},
        {"start": 2**40},
        {"start": 4},
        {"dtype": "object"},
        {"dtype": "nonsense"},
        {"crc32": None},
        {"path": None},
        {"key": "nonsense"},
    ],
    ids=str,
)
def test_manifests_that_make_no_sense(small, entry):
    rewritten(small, lambda manifest: manifest["entries"][0].update(entry))
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.load(small)


def test_manifest_without_entries(small):
    rewritten(small, lambda manifest: manifest.pop("entries"))
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.load(small)


def test_format_of_the_future(small):
    data = bytearray(small.read_bytes())
    data[8] = 9
    small.write_bytes(data)
    with pytest.raises(CheckpointError, match="format version 9, and this Weft reads version 1"):
        checkpoint.load(small)


# -- saving


def test_failed_save_leaves_the_former_file(small, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    good = small.read_bytes()
    with pytest.raises(OSError, match="No space left") as caught:
        checkpoint.save(small, {"a": nnx.Param(jnp.zeros(5))})
    assert caught.value.filename == str(small)
    assert small.read_bytes() == good
    assert os.listdir(small.parent) == [small.name]


def test_folder_that_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        checkpoint.save(tmp_path / "no" / "run.weft", {"a": nnx.Param(1.0)})


def test_leftovers_of_dead_processes_are_removed(file):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    leftover, living = (
        file.with_name(f".{file.name}.{process}.part") for process in (dead.pid, os.getppid())
    )
    for part in (leftover, living):
        part.write_bytes(b"half")
    checkpoint.save(file, {"a": nnx.Param(1.0)})
    assert not leftover.exists() and living.exists()


SAVE_LOOP = """
import sys, numpy as np, weft as nnx
from weft.tools import checkpoint
for i in range(10**9):
    checkpoint.save(sys.argv[1], {"a": nnx.Variable(np.full(200_000, i))}, i)
    print(i, flush=True)
"""


def test_killed_while_saving_leaves_a_whole_file(file):
    chance = random.Random(0)
    loop = [sys.executable, "-c", SAVE_LOOP, str(file)]
    for _ in range(3):
        with subprocess.Popen(loop, stdout=subprocess.PIPE, text=True) as process:
            for _ in range(chance.randrange(3, 40)):
                acknowledged = int(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
        loaded = checkpoint.load(file)
        assert loaded.data >= acknowledged
        assert (loaded.entries[("a",)].value == loaded.data).all()
