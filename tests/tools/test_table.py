"""Tables as text."""

import pytest

from weft.tools.table import draw, draw_plainly

OPTIONS = {"table_options": {}, "column_options": {}, "console_options": {}}
ROWS = [["a", "1\n22"], ["", "Total"]]


def test_a_plain_table():
    assert draw_plainly("Title", ["name", "size"], ROWS, "Caption") == (
        "     Title\n"
        "+------+-------+\n"
        "| name | size  |\n"
        "+======+=======+\n"
        "| a    | 1     |\n"
        "|      | 22    |\n"
        "+------+-------+\n"
        "|      | Total |\n"
        "+------+-------+\n"
        "    Caption\n"
    )


def test_rows_that_are_empty_have_one_line():
    table = draw_plainly("", ["a"], [[""]], "")
    assert table.splitlines()[4] == "|   |"


def test_rich_draws_the_same_content():
    pytest.importorskip("rich", reason="rich is not installed")
    table = draw("Title", ["name", "size"], ROWS, "Caption", **OPTIONS)
    assert [line for line in table.splitlines() if "22" in line] == ["│      │ 22    │"]
    assert table.splitlines()[0].strip() == "Title" and "Caption" in table


def test_options_of_rich():
    pytest.importorskip("rich", reason="rich is not installed")
    options = {
        "table_options": {"title": "Mine"},
        "column_options": {"justify": "right"},
        "console_options": {"width": 30},
    }
    table = draw("Title", ["name", "size"], ROWS, "Caption", **options)
    assert "Mine" in table and "Title" not in table and "│    a │" in table
    assert "[bold]" in draw("T", ["a"], [["[bold]"]], "", **OPTIONS)  # cells are no markup
