"""The command: it shows changes, makes them with --write, and leaves what it cannot read."""

import io
import json
import os
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
        "1 files to be changed, by `--write`; 1 with places to look at; 0 failed\n"
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


def test_lines_are_those_of_the_file_as_it_is_then(tmp_path, capsys):
    source = "from flax import nnx, struct\n\nimport flax\nx = 1\nm = flax.nnx.merge(a, b)\n"
    (tmp_path / "a.py").write_text(source)
    assert main([str(tmp_path)]) == 0
    assert "a.py:5: nnx.merge" in capsys.readouterr().out
    assert main([str(tmp_path), "--write"]) == 0
    assert "a.py:6: nnx.merge" in capsys.readouterr().out
    assert (tmp_path / "a.py").read_text().splitlines()[5] == "m = weft.merge(a, b)"


def test_what_cannot_be_read_is_said_and_the_rest_is_done(folder, capsys):
    (folder / "0.py").write_text("import flax\nif:\n")
    assert main([str(folder), str(folder / "no.py"), "--write"]) == 1
    out, err = capsys.readouterr()
    assert f"{folder / '0.py'}: line 2: " in err and "no.py: [Errno 2] No such file" in err
    assert out.endswith("1 files changed; 1 with places to look at; 2 failed\n")
    assert (folder / "0.py").read_text() == "import flax\nif:\n"


BAD = {
    "codec.py": (b"# coding: nonsense\nimport flax", "unknown encoding: nonsense"),
    "text.py": (b"import flax\nx = '\xff'", "'utf-8' codec can't decode byte 0xff"),
    "null.py": (b"import flax\n\0\n", "source code string cannot contain null bytes"),
    "long.py": (b"import flax\nx = " + b"+".join([b"1"] * 3000), "maximum recursion depth"),
    "cells.ipynb": (b'{"flax": 1}', "no notebook with cells: "),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files(name, tmp_path, capsys):
    content, said = BAD[name]
    (tmp_path / name).write_bytes(content)
    assert main([str(tmp_path), "--write"]) == 1
    assert f"{tmp_path / name}: {said}" in capsys.readouterr().err
    assert (tmp_path / name).read_bytes() == content


def test_a_file_that_does_not_name_flax_is_not_looked_at(tmp_path):
    (tmp_path / "old.py").write_text("print 'of Python 2'\n")
    assert main([str(tmp_path)]) == 0


@pytest.mark.parametrize(
    "place", [".venv/x.py", ".git/x.py", "env/lib/x.py", "lib/site-packages/flax/x.py"]
)
def test_what_is_not_the_project_s_stays(place, folder):
    file = folder / place
    file.parent.mkdir(parents=True)
    file.write_text(SOURCE)
    (folder / "env").mkdir(exist_ok=True)
    (folder / "env" / "pyvenv.cfg").touch()
    assert main([str(folder), "--write"]) == 0
    assert file.read_text() == SOURCE and (folder / "a.py").read_text() != SOURCE
    assert main([str(file), "--write"]) == 0  # but if it is named
    assert file.read_text() != SOURCE


def test_stubs_and_notebooks(tmp_path, capsys):
    (tmp_path / "a.pyi").write_text("from flax import nnx\n")
    cells = [{"cell_type": "code", "source": ["from flax import nnx\n", "nnx.merge(a, b)"]}]
    (tmp_path / "b.ipynb").write_text(json.dumps({"cells": cells}))
    assert main([str(tmp_path), "--write"]) == 0
    assert (tmp_path / "a.pyi").read_text() == "import weft as nnx\n"
    assert "import weft as nnx" in (tmp_path / "b.ipynb").read_text()
    assert f"{tmp_path / 'b.ipynb'}:cell 1:2: nnx.merge: " in capsys.readouterr().out


@pytest.mark.skipif(os.name != "posix", reason="modes and links are those of POSIX")
def test_modes_and_links(folder, capsys):
    (folder / "a.py").chmod(0o755)
    (folder / "link.py").symlink_to("a.py")
    (folder / ".#b.py").symlink_to("nowhere")  # as editors make them
    assert main([str(folder), "--write"]) == 0
    assert (folder / "a.py").stat().st_mode & 0o777 == 0o755
    assert (folder / "link.py").is_symlink() and (folder / "link.py").read_text() != SOURCE
    (folder / "a.py").write_text(SOURCE)
    (folder / "a.py").chmod(0o444)
    assert main([str(folder / "a.py"), "--write"]) == 1
    assert "a.py: [Errno 13] the file is read-only" in capsys.readouterr().err
    assert (folder / "a.py").read_text() == SOURCE


def test_a_write_that_fails_leaves_the_file(folder, monkeypatch, capsys):
    def fail(*names):
        raise OSError(28, "No space left on device")

    (folder / "inner" / "b.py").write_text(SOURCE)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        assert main([str(folder), "--write"]) == 1
    assert "a.py: [Errno 28] No space left" in capsys.readouterr().err
    assert (folder / "a.py").read_text() == (folder / "inner" / "b.py").read_text() == SOURCE
    assert {file.name for file in folder.rglob("*")} == {"a.py", "inner", "b.py"}


def test_differences_of_other_encodings_and_ends(tmp_path, capsys, monkeypatch):
    source = "# coding: latin-1\r\nfrom flax import nnx\r\ns = '\xe9\x0c'"
    (tmp_path / "a.py").write_bytes(source.encode("latin-1"))
    assert main([str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert (
        "-from flax import nnx\n+import weft as nnx\n s = '\xe9\x0c'\n\\ No newline at end" in out
    )
    console = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", console)
    assert main([str(tmp_path)]) == 0
    console.flush()
    assert rb" s = '\xe9" in console.buffer.getvalue()


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
