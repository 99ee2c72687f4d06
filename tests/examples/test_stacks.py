"""stacks.py runs as it stands."""

from tests.examples.programs import run


def test_stacks_runs(monkeypatch, capsys):
    shown = run(monkeypatch, capsys, "stacks", "--depth", 3, "--steps", 2).splitlines()
    assert shown[0].startswith("compiled 3 blocks in ")
    assert shown[1].startswith("step    2  loss ")
    norms = shown[2].partition(": ")[2].split(", ")
    assert len(norms) == 3 and all(4 < float(norm) < 12 for norm in norms)
    assert shown[-1].startswith("without the last one: ") and shown[-1].endswith("%")
