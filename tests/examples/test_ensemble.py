"""ensemble.py: models trained at once are those trained one after the other."""

import re

import pytest

from tests.examples.programs import is_picture, run


def test_models_at_once_end_where_they_do_alone(monkeypatch, capsys, tmp_path):
    options = ("--models", 3, "--steps", 5, "--out", tmp_path)
    shown = run(monkeypatch, capsys, "ensemble", *options)
    first, second = map(float, re.search(r"mean loss (\S+) and (\S+);", shown).groups())
    assert first == pytest.approx(second, abs=2e-5)
    assert shown.startswith("3 models, 5 steps: ") and is_picture(tmp_path / "ensemble.png")
