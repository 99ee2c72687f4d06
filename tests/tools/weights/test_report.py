"""The table of what goes where."""

from weft.tools.weights.report import (
    Suggestions,
    WeightReport,
    WeightRow,
    faults,
    joined,
    merged,
)


def rows(*numbers, kind="matched"):
    return [
        WeightRow(kind, f"h.{i}.w", f"blocks[{i}].kernel", "3, 2", "float32", "as is")
        for i in numbers
    ]


def test_the_table_shows_faults_first_and_equal_blocks_as_one():
    missing = WeightRow("missing", "", "head.bias", "2", "float32", "expected as 'head.bias'")
    report = WeightReport("a.safetensors", [*rows(0, 1, 2), missing])
    assert str(report).splitlines() == [
        "a.safetensors: 3 matched, 1 missing",
        "         source      target                 shape  dtype",
        "missing              head.bias              2      float32  expected as 'head.bias'",
        "matched  h.{0..2}.w  blocks[{0..2}].kernel  3, 2   float32  as is",
    ]
    assert repr(report) == str(report) and not report.fits
    assert report.missing == (missing,) and len(report.matched) == 3


def test_kinds():
    kinds = ("matched", "ignored", "missing", "unexpected", "mis-shaped", "wrong")
    report = WeightReport("a", [row for kind in kinds for row in rows(0, kind=kind)])
    found = (report.matched, report.ignored, report.missing)
    found += (report.unexpected, report.misshaped, report.wrong)
    assert [x[0].kind for x in found] == list(kinds)
    assert WeightReport("a", rows(0, kind="ignored")).fits
    assert str(WeightReport("a", [])) == "a: nothing"


def test_numbers_that_do_not_follow():
    (row,) = merged(rows(0, 2, 7))
    assert row.source == "h.{0,2,7}.w" and row.target == "blocks[{0,2,7}].kernel"
    notes = [WeightRow("missing", "", f"a[{i}]", "", "", f"expected as 'h.{i}.w'") for i in (1, 2)]
    assert [row.note for row in merged(notes)] == ["expected as 'h.{1..2}.w'"]
    (row,) = merged([WeightRow("ignored", "layer4.w", "", "", "", "")])
    assert row.source == "layer4.w"


def test_joined():
    assert joined(["a.q.kernel", "a.k.kernel"]) == "a.{q, k}.kernel"
    assert joined(["a.b"]) == "a.b"
    assert joined(["a.b", "c.d"]) == "a.b, c.d"
    assert joined(["a.b", "c"]) == "a.b, c"


def test_faults_end_somewhere():
    many = [WeightRow("unexpected", f"x{chr(97 + i % 26)}{i}y", "", "", "", "") for i in range(40)]
    lines = faults(many).splitlines()
    assert len(lines) == 31 and lines[0] == "  unexpected: xa0y" and lines[-1] == "  and 10 more"
    assert faults(rows(1)) == "  matched: h.1.w → blocks[1].kernel float32[3, 2]: as is"


def test_suggestions():
    near = Suggestions(["attn.weight", "attn.bias"])
    assert near.near("atn.weight") == "did you mean 'attn.weight'?"
    assert near.near("zzz") == ""
    blocks = Suggestions([f"h.{i}.{x}" for i in (0, 1, 2) for x in ("attn", "attm")])
    assert blocks.near("x.h.1.attn") == "did you mean 'h.1.attn' or 'h.1.attm'?"
    assert Suggestions(["attn.weight"]).near("attn.weight") == ""
    for _ in range(30):
        last = near.near("atn.weight")
    assert last == ""
