"""Interrupts: a signal at any moment of a donating loop leaves a usable model.

The number of interrupts of each kind is WEFT_INTERRUPTS.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from weft._lift.jit.interrupts import HeldInterrupts

INTERRUPTS = int(os.environ.get("WEFT_INTERRUPTS", "16"))
PROGRAM = Path(__file__).with_name("interrupted.py")


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGALRM"])
def test_interrupts_never_lose_a_model(name: str) -> None:
    run = subprocess.run(
        [sys.executable, str(PROGRAM), name, str(INTERRUPTS), "0"],
        capture_output=True,
        text=True,
        timeout=110 + INTERRUPTS,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout.split()[-2:] == [str(INTERRUPTS), "0"]


@pytest.fixture
def heard() -> Iterator[list[int]]:
    """The interrupts that come through to the handler of the process."""
    numbers: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: numbers.append(number))
    yield numbers
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_that_is_held_comes_through_once(heard: list[int]) -> None:
    interrupts = HeldInterrupts()
    interrupts.hold()
    interrupts.hold()
    assert interrupts.held
    for _ in range(2):
        signal.raise_signal(signal.SIGINT)
    assert heard == []
    interrupts.release()
    assert heard == [signal.SIGINT]
    assert not interrupts.held
    signal.raise_signal(signal.SIGINT)
    assert heard == [signal.SIGINT] * 2


def test_other_threads_hold_nothing(heard: list[int]) -> None:
    interrupts = HeldInterrupts()
    handler = signal.getsignal(signal.SIGINT)
    interrupts_of_main = HeldInterrupts()
    interrupts_of_main.hold()

    def in_thread() -> None:
        interrupts.hold()
        interrupts_of_main.release()

    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join()
    assert not interrupts.held
    assert interrupts_of_main.held
    interrupts_of_main.release()
    assert signal.getsignal(signal.SIGINT) is handler


def test_what_ignores_interrupts_is_left_alone(heard: list[int]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    interrupts = HeldInterrupts()
    interrupts.hold()
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    interrupts.release()
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def test_signals_that_came_together_are_all_let_through() -> None:
    came: list[int] = []

    def handle(number: int, frame: object) -> None:
        came.append(number)
        raise TimeoutError(number)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        interrupts = HeldInterrupts()
        interrupts.hold()
        for number in numbers:
            signal.raise_signal(number)
        assert came == []
        with pytest.raises(TimeoutError):
            interrupts.release()
        assert sorted(came) == sorted(numbers)
        assert not interrupts.held
        assert all(signal.getsignal(number) is handle for number in numbers)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
