"""Replacing files as a whole: the former one stays until the new one is complete."""

import errno
import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors

import weft as nnx
from weft._saving import replacing as module
from weft._saving.replacing import replacing

KILLS = 30


@pytest.fixture
def file(tmp_path):
    nnx.save(tmp_path / "a", x=nnx.Param(jnp.ones(2)))
    return tmp_path / "a"


def test_killed_while_saving_leaves_a_whole_file(tmp_path):
    program = Path(__file__).with_name("saver.py")
    run = subprocess.run(
        [sys.executable, str(program), str(tmp_path / "a"), str(KILLS), "0"],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    trials, left = map(int, run.stdout.split())
    assert trials == KILLS and left  # some are killed in the midst of it


# -- what fails


def failed(file, code):
    """Tries to save; checks that the former file, the model and the folder are as they were."""
    before = file.read_bytes()
    model = nnx.Param(jnp.zeros(50_000))
    with pytest.raises(OSError, match=os.strerror(code)) as caught:
        nnx.save(file, x=model)
    assert (caught.value.errno, caught.value.filename) == (code, str(file))
    assert str(caught.value).endswith(f": {str(file)!r}")
    assert file.read_bytes() == before and os.listdir(file.parent) == [file.name]
    assert (model == 0).all()
    return model


def test_a_file_that_may_not_be_so_long(file):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        model = failed(file, errno.EFBIG)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    nnx.save(file, x=model)
    assert len(nnx.load(file)["x"]) == 50_000


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_is_full_or_broken(file, monkeypatch, code):
    def full(descriptor):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        failed(file, code)

    def broken(specs, name, metadata):
        Path(name).write_bytes(b"half")
        raise safetensors.SafetensorError(f"I/O error: something (os error {code})")

    with monkeypatch.context() as patch:
        patch.setattr(safetensors, "serialize_file", broken)
        model = failed(file, code)
    nnx.save(file, x=model)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(file):
    file.parent.chmod(0o500)
    try:
        failed(file, errno.EACCES)
    finally:
        file.parent.chmod(0o700)
    nnx.save(file, x=nnx.Param(1.0))


def test_a_folder_that_refuses(file, monkeypatch):
    def refuse(self, *args, **options):
        raise PermissionError(errno.EROFS, os.strerror(errno.EROFS), str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    failed(file, errno.EROFS)
    assert not module._in_use


@pytest.mark.parametrize("name", ["no/a", "."])
def test_places_that_no_file_can_have(tmp_path, name):
    with pytest.raises(OSError, match=r"No such file|Is a directory") as caught:
        nnx.save(tmp_path / name, x=nnx.Param(1.0))
    assert str(caught.value).endswith(f": {str((tmp_path / name).resolve())!r}")


# -- what is left behind


def test_leftovers_of_dead_processes_are_removed(file):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host = module._host()
    day = 25 * 3600

    def make(name, age=0):
        folder = file.with_name(name)
        folder.mkdir()
        (folder / "data").write_bytes(b"half")
        os.utime(folder, (time.time() - age,) * 2)
        return folder

    gone = [
        make(f".a.{host}.{dead.pid}.0.part"),
        make(f".a.{host}.{os.getpid()}.999999.part"),  # another process had our number before
        make(f".a.elsewhere.{os.getpid()}.0.part", day),
    ]
    kept = [
        make(f".a.{host}.{os.getppid()}.0.part", day),
        make(f".a.elsewhere.{dead.pid}.0.part"),
        make(f".b.{host}.{dead.pid}.0.part"),
        make(f".a.{host}.{'9' * 30}.0.part"),
    ]
    nnx.save(file, x=nnx.Param(1.0))
    assert not any(folder.exists() for folder in gone)
    assert all(folder.exists() for folder in kept)


def test_several_threads_write_one_file(tmp_path):
    def save(i):
        for _ in range(10):
            nnx.save(tmp_path / "a", x=nnx.Variable(np.full(1000, i)))

    threads = [threading.Thread(target=save, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    array = nnx.load(tmp_path / "a")["x"]
    assert (array == array[0]).all() and os.listdir(tmp_path) == ["a"]


# -- what the file is like


def test_permissions_are_those_of_any_new_file(file):
    (file.parent / "plain").touch()
    assert file.stat().st_mode == (file.parent / "plain").stat().st_mode


def test_a_file_keeps_its_permissions(file):
    file.chmod(0o600)
    nnx.save(file, x=nnx.Param(3.0))
    assert file.stat().st_mode & 0o777 == 0o600 and nnx.load(file)["x"] == 3.0


def test_a_file_that_may_not_be_written_stays(file, monkeypatch):
    file.chmod(0o400)
    access = os.access if os.geteuid() else lambda file, mode: mode != os.W_OK  # root may all
    monkeypatch.setattr(os, "access", access)
    failed(file, errno.EACCES)


def test_a_link_stays_one(file):
    link = file.with_name("link")
    link.symlink_to(file)
    nnx.save(link, x=nnx.Param(3.0))
    assert link.is_symlink() and nnx.load(file)["x"] == 3.0


def test_interrupted(file):
    before = file.read_bytes()
    with pytest.raises(KeyboardInterrupt), replacing(file) as part:
        part.write_bytes(b"half")
        raise KeyboardInterrupt
    assert file.read_bytes() == before and os.listdir(file.parent) == ["a"]
