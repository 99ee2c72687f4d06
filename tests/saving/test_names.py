"""Names: readable, and no two paths with one."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft._core.path import Own
from weft._saving.names import from_json, name_of, path_of, to_json

ODD = ["a", "0", "-1", "a.b", "'", "@a", "", "é", "a b", "\ud800", "\x1f", "\\"]
KEYS = st.one_of(
    st.sampled_from(ODD),
    st.text(),
    st.integers(-3, 3),
    st.builds(Own, st.sampled_from(["a", "0", "x.y"])),
)
PATHS = st.lists(KEYS, min_size=1, max_size=4).map(tuple)


def test_usual_names():
    assert name_of(("model", "blocks", 0, "kernel")) == "model.blocks.0.kernel"
    assert name_of(("model", "0", "a.b", Own("c"))) == "model.'0'.'a.b'.@c"
    assert name_of(("__metadata__",)) == "'__metadata__'"


@given(PATHS, PATHS)
def test_no_two_paths_have_one_name(a, b):
    assert (name_of(a) == name_of(b)) == (a == b)
    name_of(a).encode()


@given(PATHS)
def test_paths_come_back_from_json(path):
    assert from_json(json.loads(json.dumps(to_json(path)))) == path


@pytest.mark.parametrize("path", [("a", 1.5), ("a", True), ("a", None), ("a", (1, 2))])
def test_other_keys_are_refused(path):
    with pytest.raises(TypeError, match=r"cannot save a.*: the key .* is neither a name nor an i"):
        name_of(path)


@pytest.mark.parametrize("keys", [[], [1.5], [None], [True], [["a"]]])
def test_no_path(keys):
    with pytest.raises(ValueError, match=re.escape(f"{keys!r} is no path")):
        from_json(keys)


def test_names_of_others():
    assert path_of("h.0.w") == ("h", 0, "w")
    assert path_of("h.00.-1.") == ("h", "00", "-1", "")
