"""A run that is killed again and again logs what one logs that never was.

`long_run.py` is killed WEFT_KILLS times, by SIGKILL and SIGTERM in turn.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from weft import train

KILLS = int(os.environ.get("WEFT_KILLS", "4"))
STEPS = 100 * (KILLS + 1)
PROGRAM = [sys.executable, str(Path(__file__).with_name("long_run.py"))]


def rows(folder):
    found = train.History(folder / "history.jsonl").rows
    return [(step, {name: value.hex() for name, value in row.items()}) for step, row in found]


def files(folder):
    """What is in the files of the sinks; event files hold times, so they are read."""
    from tensorboardX.proto import event_pb2

    (events,) = (folder / "tensorboard").iterdir()
    data, at, scalars = events.read_bytes(), 0, []
    while at < len(data):
        length = int.from_bytes(data[at : at + 8], "little")
        event = event_pb2.Event.FromString(data[at + 12 : at + 12 + length])
        scalars += [(event.step, v.tag, v.simple_value) for v in event.summary.value]
        at += length + 16
    return (folder / "metrics.csv").read_text(), scalars


def finish(folder, *options):
    done = subprocess.run(
        [*PROGRAM, str(folder), str(STEPS), *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


def kill(folder, number, after, rng):
    """Kills the program a moment after a step; returns its exit status and the steps it made."""
    command = [*PROGRAM, str(folder), str(STEPS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        steps = 0
        for line in process.stdout:
            steps = int(line)
            if steps >= after:
                break
        time.sleep(rng.random() * 0.02)
        process.send_signal(number)
        process.stdout.read()
    return process.returncode


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    finish(folder)
    return folder


@pytest.mark.timeout(120 + 10 * KILLS)
def test_killed_and_resumed_it_logs_the_same(uninterrupted, tmp_path):
    rng = random.Random(0)
    for i in range(KILLS):
        number = (signal.SIGKILL, signal.SIGTERM)[i % 2]
        status = kill(tmp_path, number, rng.randrange(100 * i + 30, 100 * i + 90), rng)
        assert status == (143 if number == signal.SIGTERM else -number)
    *_, last = finish(tmp_path)
    assert last == "traces 1"  # also a resumed step is compiled once
    assert rows(tmp_path) == rows(uninterrupted)
    assert files(tmp_path) == files(uninterrupted)


def test_several_steps_in_a_call_log_the_same(uninterrupted, tmp_path):
    finish(tmp_path, "10")
    assert rows(tmp_path) == rows(uninterrupted)


def test_a_second_process_in_the_folder_is_refused(tmp_path):
    command = [*PROGRAM, str(tmp_path), "100000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        first.stdout.readline()
        second = subprocess.run([*PROGRAM, str(tmp_path), "9"], capture_output=True, check=False)
        first.send_signal(signal.SIGTERM)
        first.stdout.read()
    assert first.returncode == 143
    assert second.returncode == 1
    assert f"is in use by process {first.pid} on".encode() in second.stderr
