"""Patterns of names and paths."""

import pytest

import weft as nnx
from weft.tools.weights.rules import check_invertible, covers, parse_path, parse_rules


def rule(source, target):
    (made,) = parse_rules([(source, target)])
    return made


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("", ()),
        ("blocks[3].mlp.kernel", ("blocks", 3, "mlp", "kernel")),
        ("blocks.3.kernel", ("blocks", 3, "kernel")),
        ("[0]['a.b']", (0, "a.b")),
    ],
)
def test_paths(text, path):
    assert parse_path(text) == path


@pytest.mark.parametrize("text", [".a", "a[b]", "a..b", "a]"])
def test_what_is_no_path(text):
    with pytest.raises(ValueError, match=r"is no path: write it as `blocks\[3\].attention.kernel`"):
        parse_path(text)


def test_variables_and_the_rest():
    (pattern,) = rule("h.{i}.ln_{n}", "blocks[{i}].norm{n}").sources
    assert pattern.match("h.10.ln_f2") == ((("i", "10"), ("n", "f2")), "")
    assert pattern.match("h.1.ln_1.weight.x") == ((("i", "1"), ("n", "1")), "weight.x")
    for name in ("h.x.ln_1", "h.1.ln_", "h.1.lnx", "a.h.1.ln_1"):
        assert pattern.match(name) is None
    assert pattern.fill((("i", "2"), ("n", "1"))) == "h.2.ln_1"


def test_a_variable_that_is_there_twice_is_the_same():
    (pattern,) = rule("a.{n}.{n}", "{n}").sources
    assert pattern.match("a.x.x") and not pattern.match("a.x.y")


def test_the_empty_name_is_all():
    (pattern,) = rule("", "encoder").sources
    assert pattern.match("a.b") == ((), "a.b")


def test_paths_match_as_a_whole():
    (pattern,) = rule("h.{i}", "blocks[{i}]").targets
    assert pattern.match_whole("blocks[3]") == (("i", "3"),)
    assert pattern.match_whole("blocks[3].norm") is None
    assert covers(pattern, ("blocks", 3, "norm")) and not covers(pattern, ("blocks",))


def test_what_is_no_rule():
    with pytest.raises(TypeError, match="mapping or pairs of a name and a path, found 'ab'"):
        parse_rules(["ab"])
    with pytest.raises(TypeError, match="mapping or pairs of a name and a path, found 7: "):
        parse_rules(7)
    for source, target in ((3, "a"), ("a", 3), (None, None), ("a", [])):
        with pytest.raises(TypeError, match="a rule leads from a name, or a tuple of names, to"):
            rule(source, target)


def test_variables_that_do_not_fit():
    with pytest.raises(ValueError, match=r"variable \{j\} is not in the name, which has \{i\}"):
        rule("h.{i}", "blocks[{j}]")
    with pytest.raises(ValueError, match="has names with different variables"):
        rule(("q.{i}", "k.{j}"), "a")
    with pytest.raises(ValueError, match="has paths with different variables"):
        rule("q.{i}", ("a[{i}]", "b"))
    with pytest.raises(ValueError, match=r"\{0\} in the rule for 'h.\{0\}' is no variable"):
        rule("h.{0}", "a")


def test_rules_that_cannot_be_inverted():
    check_invertible(parse_rules({"a": "b", "c.{i}": None, None: "d"}))
    with pytest.raises(ValueError, match=r"cannot be inverted to save by: \{x\} is not in 'head'"):
        check_invertible([rule("{x}.head", "head")])
    with pytest.raises(ValueError, match="it has `load` alone; give the inverse"):
        check_invertible([rule("a", nnx.Into("b", load=abs))])
