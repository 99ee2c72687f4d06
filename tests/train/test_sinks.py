"""CSV, TensorBoard and pictures: made anew from what was logged before, to no step twice."""

import csv
import struct
import sys
import types

import pytest

from weft import train

ROWS = [(10, {"loss": 0.1}), (20, {"loss": 1 / 3, "val/acc": 0.5}), (30, {"loss": float("nan")})]


def run_of(folder, rows=()):
    history = train.History()
    history.rows = list(rows)
    return types.SimpleNamespace(folder=folder, step=0, steps=30, history=history)


def read_csv(file):
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def read_events(folder):
    """(step, name, value) of all event files, which are records of length, crc, bytes, crc."""
    from tensorboardX.proto import event_pb2

    found = []
    for file in sorted(folder.iterdir()):
        data, at = file.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            event = event_pb2.Event.FromString(data[at + 12 : at + 12 + length])
            found += [(event.step, v.tag, v.simple_value) for v in event.summary.value]
            at += length + 16
    return found


def send(sink, rows):
    for step, row in rows:
        sink(step, row)


def test_csv_of_a_run(tmp_path):
    sink = train.CSV()
    sink.start(run_of(tmp_path))
    send(sink, ROWS)
    found = read_csv(tmp_path / "metrics.csv")
    sink.close()
    assert [row["step"] for row in found] == ["10", "20", "30"]
    assert [row["val/acc"] for row in found] == ["", "0.5", ""]
    assert float(found[1]["loss"]).hex() == (1 / 3).hex()
    assert found[2]["loss"] == "nan"


@pytest.mark.parametrize("end", ["", "4", "40,0.2,", "40,0.2,\n50,0.1,\n"])
def test_csv_of_a_run_that_goes_on_has_no_step_twice_or_torn(tmp_path, end):
    text = "step,loss,val/acc\n10,0.1,\n20,0.3333333333333333,0.5\n30,nan,\n"
    (tmp_path / "metrics.csv").write_text(text + end)
    sink = train.CSV()
    sink.start(run_of(tmp_path, ROWS))
    assert (tmp_path / "metrics.csv").read_text() == text
    sink(40, {"loss": 0.25})
    assert (tmp_path / "metrics.csv").read_text() == text + "40,0.25,\n"
    sink.close()


def test_csv_after_a_full_disk_has_every_row(tmp_path):
    sink = train.CSV(tmp_path / "a.csv")
    sink(1, {"loss": 1.0})

    class Full:
        def writerow(self, row):
            sink._stream.write("2,")
            raise OSError("disk full")

        fieldnames = ("step", "loss")

    sink._writer = Full()
    with pytest.raises(OSError, match="disk full"):
        sink(2, {"loss": 2.0})
    sink(3, {"loss": 3.0})
    sink.close()
    assert (tmp_path / "a.csv").read_text() == "step,loss\n1,1.0\n2,2.0\n3,3.0\n"


def test_tensorboard_of_a_run(tmp_path):
    sink = train.TensorBoard()
    sink.start(run_of(tmp_path))
    send(sink, ROWS[:2])
    sink.close()
    assert read_events(tmp_path / "tensorboard") == [
        (10, "loss", pytest.approx(0.1)),
        (20, "loss", pytest.approx(1 / 3)),
        (20, "val/acc", 0.5),
    ]


def test_tensorboard_of_a_run_that_goes_on_has_every_step_once(tmp_path):
    first = train.TensorBoard()
    first.start(run_of(tmp_path))
    send(first, ROWS[:2])  # what is not written yet is lost
    (tmp_path / "tensorboard" / "events.of.others").write_bytes(b"")
    second = train.TensorBoard()
    second.start(run_of(tmp_path, ROWS[:2]))
    second(30, {"loss": 0.5})
    second.close()
    found = [(step, name) for step, name, _ in read_events(tmp_path / "tensorboard")]
    assert found == [(10, "loss"), (20, "loss"), (20, "val/acc"), (30, "loss")]
    assert (tmp_path / "tensorboard" / "events.of.others").exists()
    first.close()


def test_plot_of_a_run_that_goes_on(tmp_path):
    sink = train.Plot()
    sink.start(run_of(tmp_path, ROWS[:1]))
    sink(20, ROWS[1][1])
    sink.close()
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert sink._rows["loss"] == {10: 0.1, 20: 1 / 3}


def test_plot_is_drawn_now_and_then(tmp_path, monkeypatch):
    now = [1.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    sink = train.Plot(tmp_path / "a.png", seconds=60)
    drawn = []
    monkeypatch.setattr(sink, "_draw", lambda: drawn.append(now[0]))
    for step in range(100):
        now[0] += 2.0
        sink(step, {"loss": 1.0})
    assert drawn == [63.0, 123.0, 183.0]


def test_plot_of_nothing_makes_no_file(tmp_path):
    train.Plot(tmp_path / "a.png").close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("sink", [train.CSV, train.TensorBoard, train.Plot])
def test_without_a_place_it_is_an_error(sink):
    with pytest.raises(ValueError, match=rf"a run without a folder.*`train.{sink.__name__}\('"):
        sink().start(run_of(None))
    with pytest.raises(ValueError, match=rf"train.{sink.__name__} needs a f.* outside of a run"):
        alone = sink()
        alone(1, {"loss": 1.0})
        alone.close()


@pytest.mark.parametrize(
    "sink, module, extra",
    [(train.TensorBoard, "tensorboardX", "tensorboard"), (train.Plot, "matplotlib.figure", "plot")],
)
def test_what_is_not_installed_is_named(sink, module, extra, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"pip install weft\[{extra}\]"):
        sink(tmp_path / "x").start(run_of(tmp_path))


SINKS = {"metrics.csv": train.CSV, "tensorboard": train.TensorBoard, "curves.png": train.Plot}


@pytest.mark.parametrize("name", SINKS)
def test_a_sink_of_two_runs_writes_into_the_folder_of_each(name, tmp_path):
    sink = SINKS[name]()
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        sink.start(run_of(folder))
        sink(10, {"loss": float(len(folder.name))})
        sink.close()
    first, second = ({x.name for x in (tmp_path / folder).iterdir()} for folder in "ab")
    assert first == second == {name}


@pytest.mark.parametrize("name", SINKS)
def test_a_sink_of_two_runs_at_a_time_is_an_error(name, tmp_path):
    sink, first = SINKS[name](), run_of(tmp_path)
    sink.start(first)
    with pytest.raises(ValueError, match=r"is shown another run, .*`sinks=\[train\.\w+\(\)\]`"):
        sink.start(run_of(tmp_path))
    sink.start(first)  # that goes on
    sink.close()
    sink.start(run_of(tmp_path))
    sink.close()


def test_csv_has_a_column_of_steps(tmp_path):
    sink = train.CSV(tmp_path / "x.csv")
    with pytest.raises(ValueError, match="'step' cannot be logged"):
        sink(1, {"step": 2.0})
    assert not list(tmp_path.iterdir())
