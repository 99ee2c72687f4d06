"""Sinks that fail do not stop a run."""

import warnings

import pytest

from weft.train.outlets import Outlets


class Sink:
    def __init__(self, failing=()):
        self.calls, self.failing = [], failing

    def note(self, name, *arguments):
        self.calls.append((name, *arguments))
        if name in self.failing:
            raise self.failing[name]

    def start(self, run):
        self.note("start", run)

    def tick(self, step):
        self.note("tick", step)

    def __call__(self, step, row):
        self.note("row", step, row)

    def close(self):
        self.note("close")


CALLS = [
    ("start", "run"),
    ("tick", 1),
    ("row", 1, {"a": 2}),
    ("tick", 2),
    ("row", 2, {}),
    ("close",),
]


def use(outlets):
    outlets.start("run")
    outlets.tick(1)
    outlets.send(1, {"a": 2})
    outlets.tick(2)
    outlets.send(2, {})
    outlets.close()


def test_sinks_are_told_of_everything():
    first, rows = Sink(), []
    use(Outlets([first, lambda step, row: rows.append(step)]))
    assert first.calls == CALLS
    assert rows == [1, 2]


@pytest.mark.parametrize("name", ["tick", "row", "close"])
def test_one_that_fails_warns_once_and_the_others_go_on(name):
    bad, good = Sink({name: RuntimeError("no network")}), Sink()
    outlets = Outlets([bad, good])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        use(outlets)
    (warning,) = caught
    assert str(warning.message) == (
        "the sink Sink failed, and the run goes on without it: RuntimeError: no network"
    )
    assert bad.calls == good.calls == CALLS


def test_a_full_disk_at_the_start_warns():
    with pytest.warns(RuntimeWarning, match="the sink Sink failed.*OSError: disk full"):
        use(Outlets([Sink({"start": OSError("disk full")})]))


def test_what_is_wrong_with_a_sink_from_the_start_is_an_error():
    with pytest.raises(ImportError, match="needs x"):
        Outlets([Sink({"start": ImportError("needs x")})]).start("run")


def test_a_sink_keeps_its_own_row():
    seen = []
    outlets = Outlets([lambda step, row: row.clear(), lambda step, row: seen.append(row)])
    outlets.send(1, {"a": 1})
    assert seen == [{"a": 1}]


@pytest.mark.parametrize("sink", [3, Sink])
def test_what_is_no_sink_is_an_error(sink):
    with pytest.raises(TypeError, match=r"a sink is any f\(step, row\), such as `train.CSV\(\)`"):
        Outlets([sink])
