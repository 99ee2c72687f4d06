"""The table of examples: every program has its row, its command and its picture."""

import re

from tests.examples.programs import EXAMPLES, is_picture

ROWS = [
    row
    for row in (EXAMPLES / "README.md").read_text(encoding="utf-8").splitlines()
    if row.startswith("| [")
]


def test_every_program_has_a_row():
    programs = {path.name for path in EXAMPLES.iterdir() if path.suffix == ".py"}
    programs |= {path.parent.name for path in EXAMPLES.glob("*/__main__.py")}
    assert {re.match(r"\| \[(.*?)\]", row)[1] for row in ROWS} == programs


def test_commands_and_pictures_are_there():
    for row in ROWS:
        name, file = re.match(r"\| \[(.*?)\]\((.*?)\)", row).groups()
        assert (EXAMPLES / file).is_file()
        assert re.search(r"`uv run (--group \w+ )?examples/(.*?)`", row)[2] == name
        (picture,) = re.findall(r"!\[.*?\]\((.*?)\)", row)
        assert is_picture(EXAMPLES / picture)


def test_every_picture_is_shown():
    shown = {re.search(r"\((pictures/.*?)\)", row)[1] for row in ROWS}
    found = {path.relative_to(EXAMPLES).as_posix() for path in (EXAMPLES / "pictures").iterdir()}
    assert found == shown
