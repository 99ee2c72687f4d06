"""The program of the guide to training is short, stands in the README, and survives a kill."""

import re
import signal
import subprocess
import sys
from pathlib import Path

from weft import train

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "guides" / "training.md").read_text(encoding="utf-8")
PROGRAM = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1]


def start(folder):
    command = [sys.executable, "-c", PROGRAM]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)


def rows(folder):
    return train.History(folder / "runs" / "sine" / "history.jsonl").rows


def test_is_short_and_stands_in_the_readme():
    assert len(PROGRAM.splitlines()) < 40
    assert f"```python\n{PROGRAM}```" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_goes_on_after_a_kill(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
    for folder, kills in ((whole, []), (parts, [signal.SIGTERM, signal.SIGKILL])):
        for number in kills:
            with start(folder) as process:
                process.stdout.readline()
                process.send_signal(number)
                process.stdout.read()
            assert process.returncode in (-number, 143)
        with start(folder) as process:
            process.stdout.read()
        assert process.returncode == 0
    assert rows(parts) == rows(whole)
    assert rows(whole)[-1][0] == 400
