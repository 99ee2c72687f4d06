"""Chapters as notebooks: the same programs, without what they print. `.ci/run` executes them."""

import importlib.util
import json
import re
import warnings
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
spec = importlib.util.spec_from_file_location("notebooks", DOCS / "notebooks.py")
notebooks = importlib.util.module_from_spec(spec)
spec.loader.exec_module(notebooks)

BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
MISSING = "it is not installed: it is in the group `docs`"
chapters = pytest.mark.parametrize("chapter", notebooks.CHAPTERS)


def programs(text):
    return [code.replace("print(model)", "nnx.display(model)") for code in BLOCK.findall(text)]


@chapters
def test_source_has_the_programs_without_their_output(chapter):
    page = (DOCS / "learn" / f"{chapter}.md").read_text(encoding="utf-8")
    source = notebooks.source(chapter)
    assert programs(page) == BLOCK.findall(source)
    assert "```text" in page and "```text" not in source
    assert ".md)" in page and ".md)" not in source


def test_links_to_other_sites_stay(monkeypatch, tmp_path):
    (tmp_path / "learn").mkdir()
    text = "[a](https://a.org) and [b](b.md#c)\n"
    (tmp_path / "learn" / "x.md").write_text(text, encoding="utf-8")
    monkeypatch.setattr(notebooks, "HERE", tmp_path)
    assert notebooks.source("x") == "[a](https://a.org) and b\n"


@chapters
def test_notebook_has_a_cell_for_each_program_and_shows_a_model(chapter):
    pytest.importorskip("jupytext", reason=MISSING)
    code = [text for kind, text in notebooks.cells(notebooks.made(chapter)) if kind == "code"]
    shown = [text for text in code if text.startswith("nnx.display(")]
    programs = [block.rstrip("\n") for block in BLOCK.findall(notebooks.source(chapter))]
    assert [text for text in code if text not in shown] == [
        text for text in programs if text not in shown
    ]
    if name := notebooks.CHAPTERS[chapter]:
        assert shown == [f"nnx.display({name})"]
        before = code[: code.index(shown[0])]
        assert re.search(rf"^{name} = ", before[-1], re.MULTILINE)
        assert not re.search(rf"^{name} = ", "\n".join(before[:-1]), re.MULTILINE)
    assert "nnx.display(" in "".join(code)


@pytest.fixture
def quiet():
    """The packages that execute notebooks warn on their own, of what is no fault of a notebook."""
    pytest.importorskip("nbclient", reason=MISSING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def test_executed_notebook_has_what_its_cells_show(quiet, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(notebooks, "FOLDER", tmp_path / "notebooks")
    notebooks.write("variables", execute=True)
    assert [path.name for path in tmp_path.iterdir()] == ["notebooks"]
    (file,) = (tmp_path / "notebooks").iterdir()
    cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
    outputs = {"".join(cell["source"]): cell.get("outputs") for cell in cells}
    streams = [out for found in outputs.values() for out in found or () if "name" in out]
    assert streams and {out["name"] for out in streams} == {"stdout"}  # and no warnings
    assert "shape (2, 4), found (3, 4)" in "".join(streams[-1]["text"])
    shown = outputs["nnx.display(model)"]
    if importlib.util.find_spec("treescope") is None:
        assert "Sequential(" in "".join(shown[0]["text"])
    else:
        assert shown and all("text/html" in out["data"] for out in shown)
    at = file.stat().st_mtime_ns
    notebooks.write("variables")  # as Sphinx does: what was executed stays
    assert file.stat().st_mtime_ns == at


def test_notebook_that_fails_is_none(quiet, tmp_path, monkeypatch):
    from nbclient.exceptions import CellExecutionError

    monkeypatch.setattr(notebooks, "HERE", tmp_path)
    monkeypatch.setattr(notebooks, "FOLDER", tmp_path / "notebooks")
    monkeypatch.setitem(notebooks.CHAPTERS, "wrong", None)
    (tmp_path / "learn").mkdir()
    page = "# Title\n\n```python\nassert 1 == 2\n```\n"
    (tmp_path / "learn" / "wrong.md").write_text(page, encoding="utf-8")
    with pytest.raises(CellExecutionError, match="assert 1 == 2"):
        notebooks.write("wrong", execute=True)
    assert not (tmp_path / "notebooks").exists()


def test_link_stands_below_the_title():
    content = ["# 1. Models\n\nA model is\n"]
    notebooks.link(None, "learn/objects", content)
    assert content[0].startswith("# 1. Models\n\nThis chapter is also a notebook: {download}`obj")
    assert content[0].endswith("objects.ipynb>`.\n\nA model is\n")
    for other in ("learn/scan", "guides/objects"):
        notebooks.link(None, other, content := ["# Title\n"])
        assert content == ["# Title\n"]
