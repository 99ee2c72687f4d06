"""Signals that end a run: noted, told, and given back."""

import contextlib
import signal
import socket
import subprocess
import sys
import threading

import pytest

from weft import train

SIGNALS = [signal.SIGTERM, signal.SIGINT]


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_is_noted_and_ends_with_its_status(number):
    before = [signal.getsignal(each) for each in SIGNALS]
    with train.StopSignals() as signals:
        assert not signals.poll(1)
        signals.leave()
        signal.raise_signal(number)
        assert signals.number is number and signals.poll(2)
        assert all(signal.getsignal(each) is signal.SIG_DFL for each in SIGNALS)
    assert [signal.getsignal(each) for each in SIGNALS] == before
    with pytest.raises(SystemExit) as exit:
        signals.leave()
    assert exit.value.code == 128 + number


def test_at_a_prompt_it_is_an_interrupt(monkeypatch):
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    with train.StopSignals() as signals:
        signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        signals.leave()


def test_a_handler_of_the_user_is_given_back():
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        with train.StopSignals():
            signal.raise_signal(signal.SIGTERM)
        assert heard == []
        signal.raise_signal(signal.SIGTERM)
        assert heard == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_what_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with train.StopSignals() as signals:
            signal.raise_signal(signal.SIGTERM)
            assert signals.number is None
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_in_another_thread_nothing_is_heard():
    before = [signal.getsignal(each) for each in SIGNALS]
    seen = []

    def in_thread():
        with train.StopSignals():
            seen.extend(signal.getsignal(each) for each in SIGNALS)

    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join()
    assert seen == before


def test_one_that_nothing_comes_of_is_told():
    with train.StopSignals() as signals:
        signals.pass_over(1)
        signal.raise_signal(signal.SIGINT)
    with pytest.warns(RuntimeWarning, match="SIGINT came in step 2, of .* and the program goes on"):
        signals.pass_over(2)


FORK = """
import os, signal, time
from weft import train
with train.StopSignals() as signals:
    child = os.fork()
    if not child:
        time.sleep(100)
        os._exit(0)
    time.sleep(0.2)
    os.kill(child, signal.SIGINT)  # as a terminal tells all
    time.sleep(0.2)
    alive = os.waitpid(child, os.WNOHANG) == (0, 0)
    os.kill(child, signal.SIGTERM)
    _, status = os.waitpid(child, 0)
    signal.raise_signal(signal.SIGTERM)
    print(alive, os.WTERMSIG(status), signals.number.name)
"""


def test_a_process_that_was_forked_can_be_terminated():
    run = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, timeout=100)
    assert run.stdout.split() == ["True", "15", "SIGTERM"], run.stderr


TWICE = """
import sys, time
from weft import train
with train.StopSignals():
    print("ready", flush=True)
    while True:
        try:
            time.sleep(100)
        finally:
            print("slept", flush=True)
"""


@pytest.mark.parametrize("number", SIGNALS)
def test_a_second_one_ends_the_process_at_once(number):
    command = [sys.executable, "-c", TWICE]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        while process.poll() is None:  # the first until it is noted, then the second
            process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.1)
        assert process.stdout.read() == ""
    assert process.returncode == -number


ONE_OF_TWO = """
import os, signal, sys, time
import jax
rank, port = int(sys.argv[1]), sys.argv[2]
jax.distributed.initialize(f"127.0.0.1:{port}", 2, rank, heartbeat_timeout_seconds=10)
from weft import train
with train.StopSignals() as signals:
    for step in range(1, 1000):
        time.sleep(0.01)
        if rank == 0 and step == 20:
            os.kill(os.getpid(), signal.SIGTERM)
        if signals.poll(step):
            break
print("stops at", step, flush=True)
signals.leave()
"""


def test_two_processes_stop_at_the_same_step_where_one_hears():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", ONE_OF_TWO, str(rank), str(port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    shown = [process.communicate(timeout=100) for process in processes]
    assert [process.returncode for process in processes] == [143, 143], shown
    lines = [output.splitlines()[-1] for output, _ in shown]
    assert lines[0] == lines[1] and lines[0].startswith("stops at ")
