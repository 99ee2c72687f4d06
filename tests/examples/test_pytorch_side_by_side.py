"""pytorch_side_by_side.py: both libraries compute the same losses."""

import re

import pytest

from tests.examples.programs import is_picture, run


def test_losses_are_the_same(monkeypatch, capsys, tmp_path):
    pytest.importorskip("torch", reason="needs PyTorch: `uv run --group torch`")
    options = ("--steps", 20, "--out", tmp_path)
    shown = run(monkeypatch, capsys, "pytorch_side_by_side", *options)
    for name in ("sine", "digits"):
        found = re.search(rf"{name}: .* at first (\S+), last (\S+)", shown).groups()
        assert [float(x) for x in found] == pytest.approx([1, 1], abs=1e-3)
    assert is_picture(tmp_path / "curves.png")
