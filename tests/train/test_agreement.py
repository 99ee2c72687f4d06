"""Two processes that train together: they begin with the same, or not at all, and end together."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from weft import train
from weft.train.agreement import agreement

PROGRAM = Path(__file__).with_name("run_of_two.py")
HEARTBEAT = 10


def run_two(folder, what=("", "")):
    """Runs both to their end; returns their statuses, what they print, what they complain of."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = "--xla_force_host_platform_device_count=2"
    processes = [
        subprocess.Popen(
            [sys.executable, str(PROGRAM), str(folder), str(rank), str(port), what[rank]],
            env={**os.environ, "XLA_FLAGS": flags},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        for killed, other in (processes, processes[::-1]):
            if what[processes.index(killed)].startswith(f"{int(signal.SIGKILL)}:"):
                killed.wait(100)
                other.wait(HEARTBEAT + 10)
        shown = [process.communicate(timeout=100) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], shown


def lines_of(output):
    """The lines that are not gloo's, whose threads write into each other's."""
    gloo = re.compile(r"\[Gloo\]|is connected to \d+ peer ranks")
    return [line for line in output.splitlines() if line and not gloo.search(line)]


def history_of(output):
    (line,) = [line for line in output.splitlines() if line.startswith("history ")]
    return json.loads(line.removeprefix("history "))


def rows(folder):
    found = train.History(folder / "history.jsonl").rows
    return [(step, {name: value.hex() for name, value in row.items()}) for step, row in found]


def steps_in(folder):
    return train.Checkpoints(folder / "checkpoints", keep=100).steps


SAME = "the processes of the run disagree:\n  "
CASES = {
    "width": "model.first.bias: process 0 has float32[16] on 4 devices by P(), process 1 has "
    "float32[5] on 4 devices by P()",
    "seed": "model.dropout.rngs.key: process 0 has values of checksum ",
    "place": "model.dropout.rngs.count: process 0 has uint32[] on 4 devices by P(), process 1 has "
    "uint32[] on 1 devices",
    "order": "data: seed: process 0 has 2, process 1 has 3",
    "position": "data: position: process 0 has 0, process 1 has 1",
    "facts": "facts: rate: process 0 has 0.1, process 1 has 0.5",
    "steps": "steps: process 0 has 40, process 1 has 50",
}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The folder of a run, and what was printed, also of those that were tried before it."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    names = ",".join([*CASES, "lock"])
    statuses, shown = run_two(folder, (names, names))
    assert statuses == [0, 0], shown
    return folder, [out for out, _ in shown], [err for _, err in shown]


def test_processes_that_disagree_raise_before_the_first_step(uninterrupted):
    _, outs, _ = uninterrupted
    for out in outs:
        tried = [json.loads(line) for line in out.splitlines() if line.startswith('["')]
        errors = {what: (kind, text) for what, kind, text in tried}
        for what, line in CASES.items():
            kind, text = errors[what]
            assert kind == "StructureError" and text.startswith(SAME), (what, text)
            assert line in text and "\nbegin each with the same state" in text, (what, text)
        assert len(errors) == len(CASES) + 1
    first, second = [json.loads(out[out.index('["lock"') :].splitlines()[0]) for out in outs]
    assert first[1] == "FolderInUseError"
    assert second[1] == "RuntimeError"
    assert second[2].startswith("process 0 could not begin the run: FolderInUseError: ")


def test_the_first_alone_shows_and_both_know_the_history(uninterrupted):
    folder, outs, errs = uninterrupted
    assert sum(line.startswith("step ") for line in outs[0].splitlines()) == 8
    assert all(line.startswith(("history ", "[")) for line in lines_of(outs[1])), outs[1]
    assert errs[1].count("Warning") == 0, errs[1]
    assert history_of(outs[0]) == history_of(outs[1])
    assert steps_in(folder)[-3:] == [20, 30, 40]


@pytest.mark.parametrize("rank", [0, 1])
def test_one_is_killed_and_the_other_ends(uninterrupted, tmp_path, rank):
    what = ["", ""]
    what[rank] = f"{int(signal.SIGKILL)}:26"
    statuses, shown = run_two(tmp_path, what)
    assert statuses[rank] == -signal.SIGKILL
    assert statuses[1 - rank] != 0, shown
    assert max(steps_in(tmp_path)) <= 25
    resume(tmp_path, uninterrupted)


def test_one_is_told_to_stop_and_both_save_the_same_step(uninterrupted, tmp_path):
    statuses, shown = run_two(tmp_path, ("", f"{int(signal.SIGTERM)}:17"))
    assert statuses == [143, 143], shown
    newest = max(steps_in(tmp_path))
    assert 17 <= newest < 40
    resume(tmp_path, uninterrupted)


def resume(folder, uninterrupted):
    """Goes on to the end, which is that of a run that was never interrupted."""
    statuses, shown = run_two(folder)
    assert statuses == [0, 0], shown
    assert rows(folder) == rows(uninterrupted[0])
    assert history_of(shown[0][0]) == history_of(shown[1][0]) == history_of(uninterrupted[1][0])
    assert steps_in(folder)[-1] == steps_in(uninterrupted[0])[-1]


def test_alone_nothing_is_noted():
    with agreement(lambda: 1 / 0):
        pass
