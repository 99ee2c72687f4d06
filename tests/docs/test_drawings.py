"""The pictures in `docs/_static` are those that the script draws now."""

import importlib.util
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
spec = importlib.util.spec_from_file_location("drawings", DOCS / "drawings.py")
drawings = importlib.util.module_from_spec(spec)
spec.loader.exec_module(drawings)


@pytest.mark.parametrize("name", sorted(drawings.PICTURES))
def test_picture_is_up_to_date(name):
    drawn = drawings.PICTURES[name]()
    assert ET.fromstring(drawn).find("{http://www.w3.org/2000/svg}title").text
    assert (DOCS / "_static" / f"{name}.svg").read_text(encoding="utf-8") == drawn, (
        "run `python docs/drawings.py`"
    )


def test_no_picture_is_left_over():
    found = {path.stem for path in (DOCS / "_static").glob("*.svg")}
    assert found == {*drawings.PICTURES}


def test_costs_are_those_of_the_published_table():
    costs = drawings.dispatch_costs()
    assert costs["raw jax.jit"] == 1.0 and costs["Weft nnx.jit"] < costs["flax nnx.jit"]
    assert {"flax jit_partial", "equinox filter_jit"} <= {*costs}
    assert f"{costs['flax nnx.jit']:.1f} ×" in drawings.dispatch()
