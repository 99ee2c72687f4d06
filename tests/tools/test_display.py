"""Showing objects in notebooks and terminals."""

import importlib.util
import sys
import types

import pytest

import weft as nnx


@pytest.fixture
def model():
    return nnx.Dict(layer=nnx.Linear(2, 3, use_bias=False, rngs=nnx.Rngs(0)), rate=0.5)


def notebook(monkeypatch, shell):
    ipython = types.ModuleType("IPython")
    ipython.get_ipython = lambda: shell
    monkeypatch.setitem(sys.modules, "IPython", ipython)


def without(monkeypatch, *missing):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name in missing else find(name, *rest),
    )


def test_outside_notebooks_the_repr_is_printed(capsys, model):
    nnx.display(model, nnx.Param(1.0))
    assert capsys.readouterr().out == f"{model!r}\nParam(1.0)\n"


def test_terminals_get_colours_where_rich_is(capsys, monkeypatch):
    pytest.importorskip("rich", reason="rich is not installed")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("FORCE_COLOR", "1")
    nnx.display(nnx.Param(1.0))
    text = capsys.readouterr().out
    assert "\x1b[" in text and "Param" in text
    without(monkeypatch, "rich")
    nnx.display(nnx.Param(1.0))
    assert capsys.readouterr().out == "Param(1.0)\n"


def test_notebooks_get_treescope(capsys, monkeypatch, model):
    treescope = pytest.importorskip("treescope", reason="treescope is not installed")
    shown = []
    monkeypatch.setattr(treescope, "display", shown.append)
    notebook(monkeypatch, object())
    nnx.display(model, 3)
    assert shown == [model, 3]
    without(monkeypatch, "treescope")
    nnx.display(3)
    assert capsys.readouterr().out == "3\n"


def test_ipython_in_a_terminal_is_no_notebook(capsys, monkeypatch):
    notebook(monkeypatch, type("TerminalInteractiveShell", (), {})())
    nnx.display(3)
    notebook(monkeypatch, None)
    nnx.display(4)
    assert capsys.readouterr().out == "3\n4\n"
