"""The command: it shows changes, makes them with --write, and leaves what it cannot read."""

import subprocess
import sys

import pytest

from weft.migrate.__main__ import main

SOURCE = "from flax import nnx\n\nmodel = nnx.merge(graphdef, state)\nother = nnx.merge(a, b)\n"
SAID = '3: nnx.merge: differs: see "`merge`" in docs/differences.md (and in line 4)'


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.py").write_text(SOURCE)
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "b.py").write_text("x = 1\n")
    return tmp_path


def test_it_shows_and_changes_nothing(folder, capsys):
    assert main([str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "-from flax import nnx\n+import weft as nnx\n" in shown
    assert f"{folder / 'a.py'}:{SAID}\n" in shown
    assert shown.endswith(
        "1 files to be changed, by `--write`; 1 with places to look at; 0 not readable\n"
    )
    assert (folder / "a.py").read_text() == SOURCE


def test_it_writes(folder, capsys):
    assert main([str(folder / "a.py"), str(folder / "inner"), "--write"]) == 0
    assert (folder / "a.py").read_text() == SOURCE.replace(
        "from flax import nnx", "import weft as nnx"
    )
    assert "---" not in capsys.readouterr().out
    assert main([str(folder), "--write"]) == 0
    assert capsys.readouterr().out.startswith("0 files changed; 0 with places")


def test_what_cannot_be_read_is_said_and_the_rest_is_done(folder, capsys):
    (folder / "0.py").write_text("if:\n")
    assert main([str(folder), str(folder / "no.py"), "--write"]) == 1
    out, err = capsys.readouterr()
    assert f"{folder / '0.py'}: line 1: " in err and "no.py: [Errno 2] No such file" in err
    assert out.endswith("1 files changed; 1 with places to look at; 2 not readable\n")
    assert (folder / "0.py").read_text() == "if:\n"


def test_as_a_command(folder):
    command = [sys.executable, "-m", "weft.migrate", str(folder)]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "+import weft as nnx" in found.stdout and found.stderr == ""


def test_without_libcst(folder):
    code = "import sys; sys.modules['libcst'] = None; import weft.migrate"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert "weft.migrate needs libcst, " in found.stderr
    assert "`pip install 'weft[migrate]'`" in found.stderr
