"""Marks name entries that there are, for names that there are."""

from pathlib import Path

import pytest

from weft.migrate import marks

PAGE = (Path(__file__).parents[2] / "docs" / "differences.md").read_text(encoding="utf-8")


def test_entries_are_those_of_the_page():
    entries = {line.split(" | ")[0].removeprefix("| ") for line in PAGE.splitlines()}
    assert {*marks.ENTRIES.values(), marks.HIJAX} <= entries
    assert "## Left out" in PAGE


@pytest.mark.parametrize("name", marks.ENTRIES)
def test_names_of_entries_are_weft_s(name):
    assert marks.text_of(name) == marks.differs(marks.ENTRIES[name])


def test_names():
    assert marks.text_of("Linear") is None and marks.text_of("nn.linear.Linear") is None
    assert marks.text_of("statelib") is None and marks.text_of("training.metrics.Average") is None
    assert marks.text_of("Nothing_of_the_kind") == marks.LEFT_OUT
    assert marks.text_of("graphlib.static_cache") == marks.LEFT_OUT
