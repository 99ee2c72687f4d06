"""stacks.py runs as it stands."""

from tests.examples.programs import is_picture, run


def test_stacks_runs(monkeypatch, capsys, tmp_path):
    options = ("--depth", 3, "--steps", 2, "--out", tmp_path)
    shown = run(monkeypatch, capsys, "stacks", *options).splitlines()
    assert shown[0].startswith("compiled 3 blocks in ")
    assert shown[1].startswith("step    2  loss ")
    assert shown[2].startswith("all layers: ") and shown[2].endswith("%")
    without = shown[3].partition(": ")[2].split(", ")
    assert len(without) == 3 and all(x.endswith("%") for x in without)
    assert shown[4].startswith("without the last one: ") and shown[4].endswith("%")
    assert is_picture(tmp_path / "stacks.png")
