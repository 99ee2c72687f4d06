"""The bar: a line that moves in a terminal, plain lines elsewhere, nothing where nobody reads."""

import io
import os
import pty
import re
import subprocess
import sys
import types

import pytest

from weft import train

SHORT = """
import sys, time
from weft import train
run = train.Run(None, state={}, data=[1.0], steps=40, log_every=10)
for x in run:
    time.sleep(0.01)
    run.log({"loss": x / run.step})
    if run.every(20):
        run.log({"acc": 0.5}, prefix="val/")
print("end")
"""
LINE = r"step (\d+)/40  loss [\d.e-]+(  val/acc 0.5)?  [\d.]+ steps/s(  eta 0:00:\d\d)?"


def environment(**changes):
    kept = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS", "TERM")}
    return kept | {"TERM": "xterm-256color"} | changes


def in_terminal(columns=100, **changes):
    """What a program writes to a terminal."""
    ours, theirs = pty.openpty()
    import fcntl
    import struct
    import termios

    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    command = [sys.executable, "-c", SHORT]
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environment(**changes)) as p:
        os.close(theirs)
        text = b""
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:
                break
            if not part:
                break
            text += part
    os.close(ours)
    assert p.returncode == 0, text.decode()
    return text.decode()


def assert_plain(text):
    assert "\x1b" not in text
    *lines, last = text.replace("\r\n", "\n").splitlines()
    assert last == "end"
    steps = [int(re.fullmatch(LINE, line)[1]) for line in lines]
    assert steps == [10, 20, 30, 40]


def test_into_a_file():
    command = [sys.executable, "-c", SHORT]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stderr == ""
    assert_plain(done.stdout)


def test_into_a_file_where_colours_are_forced():
    command = [sys.executable, "-c", SHORT]
    forced = environment(FORCE_COLOR="1")
    done = subprocess.run(command, env=forced, capture_output=True, text=True, check=False)
    assert_plain(done.stdout)


@pytest.mark.parametrize("changes", [{"NO_COLOR": "1"}, {"columns": 20}, {"TERM": "dumb"}])
def test_in_a_terminal_that_gets_plain_lines(changes):
    assert_plain(in_terminal(**changes))


def test_in_a_terminal():
    shown = in_terminal()
    assert "40/40" in shown and "\x1b[" in shown and "━" in shown
    assert re.search(r"loss 0\.0\d+.*steps/s", shown)
    assert re.search(r"step 20/40  loss [\d.]+  val/acc 0.5", shown)
    assert shown.rstrip().endswith("end")


@pytest.mark.parametrize("closed", ["1>&-", "| true", "| head -1"])
def test_into_what_is_closed_ends_cleanly(closed, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(SHORT.replace('print("end")', 'sys.stderr.write(f"end {run.step}")'))
    command = f"set -o pipefail; {sys.executable} {program} {closed}"
    done = subprocess.run(
        ["bash", "-c", command], env=environment(), capture_output=True, text=True, check=False
    )
    assert done.stderr == "end 40"
    assert done.returncode == 0


def test_a_stream_that_fails_is_left_alone():
    class Failing(io.StringIO):
        def write(self, text):
            raise OSError("disk full")

    bar = train.Bar(Failing())
    bar.start(types.SimpleNamespace(step=0, steps=2))
    bar(1, {"loss": 1.0})
    bar(2, {"loss": 1.0})
    bar.close()


def test_without_standard_output(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    assert list(train.bar([1, 2])) == [1, 2]


def test_without_rich_lines_are_plain(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    stream = io.StringIO()
    stream.isatty = lambda: True
    bar = train.Bar(stream)
    bar.start(types.SimpleNamespace(step=0, steps=None))
    bar(3, {"loss": 0.12345})
    assert stream.getvalue() == "step 3  loss 0.1235\n"


def test_lines_without_news_come_now_and_then(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    stream = io.StringIO()
    bar = train.Bar(stream)
    bar.start(types.SimpleNamespace(step=0, steps=7200))
    for step in range(1, 26):
        now[0] += 1.0
        bar.tick(step)
    assert stream.getvalue().splitlines() == [
        "step 10/7200  1.0 steps/s  eta 1:59:50",
        "step 20/7200  1.0 steps/s  eta 1:59:40",
    ]


def test_slow_steps_are_told_in_seconds(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    stream = io.StringIO()
    bar = train.Bar(stream)
    bar.start(types.SimpleNamespace(step=0, steps=10))
    for step in (1, 2, 3):
        now[0] += 25.0
        bar.tick(step)
    assert stream.getvalue().splitlines()[-1] == "step 3/10  25.0 s/step  eta 0:02:55"


def test_bar_goes_through_an_iterable(capsys):
    assert list(train.bar("abc")) == ["a", "b", "c"]
    assert capsys.readouterr().out.startswith("step 3/3")


def test_bar_takes_so_many_of_an_endless_one(capsys):
    def endless():
        while True:
            yield 1

    assert list(train.bar(endless(), 5)) == [1] * 5
    assert capsys.readouterr().out.startswith("step 5/5")


def test_bar_that_is_broken_off(capsys):
    for item in train.bar(iter(range(9))):
        if item == 2:
            break
    assert capsys.readouterr().out.startswith("step 2")


def test_bar_of_no_steps_takes_nothing(capsys):
    items = iter([1, 2, 3])
    assert list(train.bar(items, 0)) == [] and list(train.bar(items, 2)) == [1, 2]
    assert list(items) == [3]
    assert capsys.readouterr().out.startswith("step 0/0\n")


@pytest.mark.parametrize("steps", [-1, 1.5, "x"])
def test_bar_of_no_whole_number_is_an_error(steps):
    with pytest.raises(ValueError, match="steps must be a whole number from 0 on, or None for all"):
        list(train.bar([1, 2], steps))
