"""Chapters as notebooks: the same programs, without what they print. `.ci/run` executes them."""

import importlib.util
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
spec = importlib.util.spec_from_file_location("notebooks", DOCS / "notebooks.py")
notebooks = importlib.util.module_from_spec(spec)
spec.loader.exec_module(notebooks)

BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
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
def test_notebook_has_a_cell_for_each_program(chapter):
    pytest.importorskip("jupytext", reason="jupytext is not installed: it is in the group `docs`")
    code = [text for kind, text in notebooks.cells(notebooks.made(chapter)) if kind == "code"]
    assert code == [block.rstrip("\n") for block in BLOCK.findall(notebooks.source(chapter))]


def test_link_stands_below_the_title():
    content = ["# 1. Models\n\nA model is\n"]
    notebooks.link(None, "learn/objects", content)
    assert content[0].startswith("# 1. Models\n\nThis chapter is also a notebook: {download}`obj")
    assert content[0].endswith("objects.ipynb>`.\n\nA model is\n")
    for other in ("learn/scan", "guides/objects"):
        notebooks.link(None, other, content := ["# Title\n"])
        assert content == ["# Title\n"]
