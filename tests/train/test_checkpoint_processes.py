"""Checkpoints of several processes, and of processes that are killed.

How many are killed is WEFT_KILLS.
"""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.train import two_processes

HERE = Path(__file__).parent


def damage(step):
    files = [file for file in (step / "arrays").rglob("*") if file.is_file()]
    file = max(files, key=lambda file: file.stat().st_size)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


# -- several processes


def run_two(tmp_path, action, spec):
    """Runs two processes of two devices each; returns what each wrote to standard error."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = "--xla_force_host_platform_device_count=2"
    arguments = [sys.executable, str(HERE / "two_processes.py"), action, str(tmp_path), spec]
    processes = [
        subprocess.Popen(
            [*arguments, str(rank), str(port)],
            env={**os.environ, "XLA_FLAGS": flags},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    told = []
    for rank, process in enumerate(processes):
        out, err = process.communicate(timeout=100)
        assert process.returncode == 0, err[-4000:]
        assert f"done {rank}" in out
        told.append(err)
    return told


def run_one(tmp_path, action, spec, capsys):
    two_processes.main(action, str(tmp_path), spec)
    assert "done 0" in capsys.readouterr().out


@pytest.mark.parametrize("spec, other", [("rows", "columns"), ("columns", "both")])
def test_two_processes_save_and_one_restores(tmp_path, capsys, spec, other):
    run_two(tmp_path, "save", spec)
    assert sorted(os.listdir(tmp_path)) == ["0000000001", "0000000002"]
    run_one(tmp_path, "restore", other, capsys)


def test_one_process_saves_and_two_restore(tmp_path, capsys):
    run_one(tmp_path, "save", "columns", capsys)
    run_two(tmp_path, "restore", "rows")
    damage(tmp_path / "0000000002")  # found by one of them, and told to the other
    told = run_two(tmp_path, "fall back", "rows")
    found = [re.search(r"process \d cannot read its part of it", text) for text in told]
    assert sum(map(bool, found)) <= 1
    assert all("0000000002 is damaged" in text for text in told)


def test_what_fails_in_one_process_both_are_told(tmp_path, capsys):
    run_two(tmp_path, "fail", "rows")
    assert sorted(os.listdir(tmp_path)) == ["0000000001", "0000000002"]
    run_one(tmp_path, "restore", "columns", capsys)


# -- processes that are killed

KILLS = int(os.environ.get("WEFT_KILLS", "25"))


@pytest.mark.timeout(300)
def test_killed_while_saving_and_removing(tmp_path):
    arguments = [str(HERE / "step_saver.py"), str(tmp_path), str(KILLS), "0"]
    run = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=290, check=False
    )
    assert run.returncode == 0, run.stderr[-3000:]
    trials, left, newest = map(int, run.stdout.split())
    assert trials == KILLS and left and newest  # some are killed in the midst of it
