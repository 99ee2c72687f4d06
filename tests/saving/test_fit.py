"""Which saved leaf goes where, and what does not fit."""

from weft._saving.facts import Fact
from weft._saving.fit import match


def facts(*names, dtype="float32"):
    return {(*name,): Fact((*name,), dtype, (2,)) for name in names}


def matched(saved, wanted, saved_shared=None, wanted_shared=None, **options):
    options = {"strict": True, "cast": False} | options
    return match(saved, saved_shared or {}, wanted, wanted_shared or {}, **options)


def test_each_path_has_its_own():
    assert matched(facts("a", "b"), facts("b", "a")) == ({("a",): ("a",), ("b",): ("b",)}, [])


def test_what_is_missing_and_unexpected():
    found, faults = matched(facts("a"), facts("b"))
    assert not found and faults == [
        "missing: b (float32[2]) was not saved",
        "unexpected: a (float32[2]) is not in the objects",
    ]
    assert matched(facts("a"), facts("b"), strict=False) == ({}, [])
    assert matched(facts("a", "b"), facts("b"), left_out={"a"}) == ({("b",): ("b",)}, [])


def test_dtypes():
    half = facts("a", dtype="float16")
    (fault,) = matched(facts("a"), half)[1]
    assert fault == "a: saved float32[2], wanted float16[2] (`cast=True` converts it)"
    assert matched(facts("a"), half, cast=True) == ({("a",): ("a",)}, [])
    (fault,) = matched(facts("a", dtype="complex64"), facts("a"), cast=True)[1]
    assert fault == "a: saved complex64[2], wanted float32[2]"


def test_paths_that_were_shared():
    shared = {("b",): ("a",)}
    assert matched(facts("ax"), facts("bx"), saved_shared=shared) == ({("b", "x"): ("a", "x")}, [])
    assert matched(facts("bx"), facts("ax"), wanted_shared=shared) == ({("a", "x"): ("b", "x")}, [])
    found, faults = matched(facts("ax"), facts("ax", "bx"), saved_shared=shared)
    assert faults == ["shared: b.x was saved as one with a.x, and is one of its own in the objects"]
    found, faults = matched(facts("ax", "bx"), facts("ax"), wanted_shared=shared)
    assert faults == ["shared: b.x was saved as one of its own, and is one with a.x in the objects"]
    found, faults = matched(facts("ax"), facts("ax", "bx"), saved_shared=shared, strict=False)
    assert found == {("a", "x"): ("a", "x"), ("b", "x"): ("a", "x")} and not faults
