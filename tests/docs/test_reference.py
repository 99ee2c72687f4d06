"""The reference: every public name has an entry, a sentence and a group of its own."""

import importlib
import importlib.util
import sys
from pathlib import Path

import pytest

import weft
from tests import test_docstrings
from weft import train

pytest.importorskip("flax", reason="flax is not installed")  # which `nnx.bridge` is for

FILE = Path(__file__).parents[2] / "docs" / "_ext" / "reference.py"


@pytest.fixture(scope="module")
def reference():
    spec = importlib.util.spec_from_file_location("reference", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault("reference", module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def entries(reference):
    return [entry for page in reference.pages() for entry in reference.entries_of(page)]


def test_every_public_name_has_an_entry(reference, entries):
    names = {entry.name for entry in entries}
    values = {id(entry.value) for entry in entries}
    modules = {*reference.PAGES, *reference.all_modules(), "weft.nn"}
    for package in (weft, train):
        for name in package.__all__:
            value = getattr(package, name)
            full = f"{package.__name__}.{name}"
            found = full in names or id(value) in values
            assert found or getattr(value, "__name__", "") in modules, full
    missing = [n for n, v in test_docstrings.PUBLIC.items() if id(v) not in values]
    assert missing == []


def test_no_name_has_two_entries(entries):
    names = [entry.name for entry in entries]
    assert len(names) == len({*names})


def test_what_is_no_class_and_no_function_is_explained(reference, entries):
    for entry in entries:
        assert reference.meaning(entry).strip(), entry.name
    unknown = {*reference.MEANINGS} - {entry.name for entry in entries}
    assert not unknown


def test_layers_are_in_families(reference):
    (layers,) = [page for page in reference.pages() if page.title == "Layers"]
    assert [entry.name for entry in layers.sections["Further"]] == ["weft.Initializer"]


def test_pages_are_written(reference, tmp_path):
    stale = tmp_path / "stale.rst"
    stale.touch()
    reference.write(tmp_path)
    assert not stale.exists()
    text = (tmp_path / "transforms.rst").read_text(encoding="utf-8")
    assert ".. autofunction:: weft.jit\n" in text
    assert ":py:obj:`nnx.jit <weft.jit>`\n     - Compiles a function" in text
    index = (tmp_path / "index.rst").read_text(encoding="utf-8")
    assert "\n   transforms\n" in index


def test_docstrings_become_markup(reference):
    marked = reference.marked("A *term*, `code`s, *args and |x|, a_.")
    assert marked == "A *term*, ``code``\\ s, \\*args and \\|x\\|, a\\_."


def test_how_to_read_the_source_is_left_out(reference):
    text = "What it is.\n\nReading order: a, b.\n\nMore."
    assert reference.introduction(text) == "What it is.\n\nMore."


def test_code_is_linked_where_it_is_a_name(reference):
    names = {"weft.jit", "weft.train.Run"}
    assert reference.target("nnx.jit(f)", names, False) == "weft.jit"
    assert reference.target("train.Run", names, False) == "weft.train.Run"
    assert reference.target("jit", names, True) == "weft.jit"
    assert reference.target("jit", names, False) is None
    assert reference.target("nnx.jot", names, False) is None


def test_signatures_can_be_read(reference):
    def sign(value):
        return reference.signature(None, "class", "", value, None, "", "")[0]

    linear = sign(weft.Linear)
    assert linear.startswith("(in_features, out_features, *, use_bias=True, dtype=None")
    assert "kernel_init=lecun_normal()" in linear and "kernel_metadata={}" in linear
    assert sign(weft.jit).startswith("(fun=..., *, in_shardings=None")
    assert sign(weft.scan).endswith("graph=None, graph_updates=None)")
    assert reference.signature(None, "exception", "", weft.WeftError, None, "", "") is None
