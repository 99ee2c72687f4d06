"""What a run logged, in memory and in its file."""

import json
import os

import pytest

from weft import train
from weft._core.errors import StructureError


def filled(file, count=3):
    history = train.History(file)
    for step in range(1, count + 1):
        history.append(step, {"loss": 1 / (step + 6)})
    return history


def test_rows_come_back_to_the_bit(tmp_path):
    filled(tmp_path / "h").close()
    found = train.History(tmp_path / "h")
    assert {step: loss.hex() for step, loss in found["loss"].items()} == {
        step: (1 / (step + 6)).hex() for step in (1, 2, 3)
    }


def test_a_row_is_in_the_file_at_once(tmp_path):
    history = filled(tmp_path / "h")
    assert len((tmp_path / "h").read_text().splitlines()) == 3
    history.close()


def test_infinities_and_nan_come_back(tmp_path):
    history = train.History(tmp_path / "h")
    history.append(1, {"a": float("inf"), "b": float("nan")})
    history.close()
    ((_, row),) = train.History(tmp_path / "h").rows
    assert row["a"] == float("inf") and row["b"] != row["b"]


def test_a_torn_last_line_is_left_out_and_repaired(tmp_path):
    filled(tmp_path / "h").close()
    text = (tmp_path / "h").read_bytes()
    for end in range(len(text) - len(text.splitlines()[-1]), len(text) - 1):
        (tmp_path / "h").write_bytes(text[:end])
        history = train.History(tmp_path / "h")
        assert [step for step, _ in history.rows] == [1, 2]
        history.append(3, {"loss": 1 / 9})
        history.close()
        found = train.History(tmp_path / "h")
        assert [step for step, _ in found.rows] == [1, 2, 3]


def test_a_bad_line_elsewhere_is_an_error(tmp_path):
    (tmp_path / "h").write_text('{"step": 1, "time": 0}\nnonsense\n{"step": 2, "time": 0}\n')
    with pytest.raises(StructureError, match=r"h, line 2: expected.*b'nonsense': mend or delete"):
        train.History(tmp_path / "h")


@pytest.mark.parametrize(
    "line",
    ["[1]", "{}", "3", '{"step": "x", "time": 0}', '{"step": 1, "time": 0, "a": "b"}', "\ufffd"],
)
def test_lines_that_are_no_rows(tmp_path, line):
    (tmp_path / "h").write_text(f'{line}\n{{"step": 2, "time": 0}}\n')
    with pytest.raises(StructureError, match="h, line 1: expected a JSON object with step, time"):
        train.History(tmp_path / "h")


def test_names_that_rows_have_of_their_own(tmp_path):
    history = train.History(tmp_path / "h")
    for name in ("step", "time"):
        with pytest.raises(ValueError, match=f"'{name}' cannot be logged: .*another name"):
            history.append(1, {name: 2.0})
    assert history.rows == [] and not os.listdir(tmp_path)


def test_rows_of_steps_that_are_over(tmp_path):
    history = filled(tmp_path / "h")
    with pytest.raises(ValueError, match=r"found one of 2 after 3; `history\.cut\(2\)` forgets"):
        history.append(2, {"loss": 1.0})
    history.append(3, {"val/loss": 1.0})
    history.close()
    assert len(train.History(tmp_path / "h").rows) == 4


def test_cut_forgets_later_rows_in_the_file_too(tmp_path):
    history = filled(tmp_path / "h")
    history.cut(1)
    history.append(2, {"loss": 5.0})
    history.close()
    assert train.History(tmp_path / "h")["loss"] == {1: 1 / 7, 2: 5.0}


def test_cut_of_nothing_makes_no_file(tmp_path):
    train.History(tmp_path / "h").cut(0)
    assert not os.listdir(tmp_path)


def test_what_is_added_after_leaving_the_file_is_in_memory_alone(tmp_path):
    history = filled(tmp_path / "h")
    before = (tmp_path / "h").read_bytes()
    history.leave_file()
    history.append(9, {"loss": 5.0})
    history.cut(8)
    history.append(9, {"loss": 6.0})
    assert history["loss"][9] == 6.0
    assert (tmp_path / "h").read_bytes() == before


def test_names_in_the_order_in_which_they_came():
    history = train.History()
    history.append(1, {"b": 1.0})
    history.append(2, {"a": 1.0, "b": 2.0})
    assert history.names == ["b", "a"]
    assert history["nothing"] == {}


def test_a_row_that_could_not_be_written_is_there_after_the_next(tmp_path, monkeypatch):
    history = filled(tmp_path / "h")

    def fail(*_):
        history._stream.write('{"half')
        history._stream.flush()
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(history, "_line", fail)
        with pytest.raises(OSError, match="disk full"):
            history.append(4, {"loss": 4.0})
    history.sync()
    history.append(5, {"loss": 5.0})
    history.close()
    lines = [json.loads(line) for line in (tmp_path / "h").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "values, mode, min_delta, expected",
    [
        ([3, 2, 1], "min", 0, False),
        ([3, 2, 2, 2], "min", 0, True),
        ([1, 2, 3], "min", 0, True),
        ([1, 2, 3], "max", 0, False),
        ([1.0, 1.05, 1.0999], "max", 0.1, True),
        ([1.0, 1.05, 1.2], "max", 0.1, False),
        ([float("nan")] * 2, "max", 0, True),
        ([1, float("nan"), 2], "max", 0, False),
        ([], "max", 0, False),
    ],
)
def test_is_stale(values, mode, min_delta, expected):
    assert train.is_stale(values, patience=2, mode=mode, min_delta=min_delta) is expected


def test_another_mode_is_an_error():
    with pytest.raises(ValueError, match="mode must be 'min' or 'max', found 'best'"):
        train.is_stale([], patience=1, mode="best")


def test_values_by_step_are_no_steps():
    history = filled(None)
    assert not train.is_stale(history["loss"], patience=2, mode="min")
    assert train.is_stale(history["loss"], patience=2, mode="max")


@pytest.mark.parametrize("patience", [0, -1, 1.5])
def test_a_patience_that_is_none(patience):
    with pytest.raises(ValueError, match="patience must be a whole number from 1 on; found"):
        train.is_stale([1.0], patience=patience, mode="min")
