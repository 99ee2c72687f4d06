"""The lock of a folder: one run at a time, and none left behind."""

import json
import os
import re
import signal
import socket
import subprocess
import sys

import pytest

from weft import train
from weft.train.lock import Lock

HOLD = """
import sys, time, pathlib
from weft.train.lock import Lock
lock = Lock(pathlib.Path(sys.argv[1]))
lock.take()
print("held", flush=True)
time.sleep(100)
"""


def message(pid):
    return rf"is in use by process {pid} on {re.escape(socket.gethostname())}: end that run, or"


def test_a_second_one_is_refused_and_told_by_whom(tmp_path):
    first, second = Lock(tmp_path / "lock"), Lock(tmp_path / "lock")
    first.take()
    first.take()
    with pytest.raises(train.FolderInUseError, match=message(os.getpid())):
        second.take()
    first.release()
    first.release()
    second.take()
    second.release()
    assert (tmp_path / "lock").read_text() == ""


def test_one_that_was_killed_keeps_nobody_out(tmp_path):
    file = tmp_path / "lock"
    command = [sys.executable, "-c", HOLD, str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(train.FolderInUseError, match=message(process.pid)):
            Lock(file).take()
        process.send_signal(signal.SIGKILL)
    assert json.loads(file.read_text())["pid"] == process.pid
    lock = Lock(file)
    lock.take()
    assert json.loads(file.read_text())["pid"] == os.getpid()
    lock.release()


def test_one_of_another_machine_is_taken_over_with_a_warning(tmp_path):
    (tmp_path / "lock").write_text(json.dumps({"pid": 7, "host": "elsewhere"}))
    lock = Lock(tmp_path / "lock")
    with pytest.warns(UserWarning, match="left by process 7 on elsewhere, which is taken to be"):
        lock.take()
    lock.release()


FORK = """
import os, sys, time, pathlib
from weft.train.lock import Lock
lock = Lock(pathlib.Path(sys.argv[1]))
lock.take()
child = os.fork()
if not child:
    lock.release()  # is not its own
    print(os.getpid(), flush=True)
time.sleep(100)
"""


def test_what_it_has_forked_keeps_nobody_out(tmp_path):
    file = tmp_path / "lock"
    command = [sys.executable, "-c", FORK, str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        child = int(process.stdout.readline())
        try:
            with pytest.raises(train.FolderInUseError, match=message(process.pid)):
                Lock(file).take()
            process.send_signal(signal.SIGKILL)
            process.wait()
            lock = Lock(file)
            lock.take()
            lock.release()
        finally:
            os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize("text", ['{"pid": 1}', '{"host": "elsewhere"}'])
def test_one_that_says_half_is_taken_over_with_a_warning(tmp_path, text):
    (tmp_path / "lock").write_text(text)
    lock = Lock(tmp_path / "lock")
    with pytest.warns(UserWarning, match=r"left by process (1|unknown) on (an unk|elsewhere)"):
        lock.take()
    lock.release()


@pytest.mark.parametrize("text", ["", "{", "nonsense", "3", "[1]", "null", "\xff"])
def test_one_without_contents_is_taken_over(tmp_path, text):
    (tmp_path / "lock").write_text(text, encoding="latin-1")
    lock = Lock(tmp_path / "lock")
    lock.take()
    lock.release()
