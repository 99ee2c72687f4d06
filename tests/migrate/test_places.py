"""Marks stand where a program uses what is left out or different."""

import pytest

from weft.migrate import migrate

MARKS = {
    "from flax import nnx\nnnx.graphlib.IndexMap": [(2, "nnx.graphlib.IndexMap", "left out")],
    "from flax.nnx import ids": [(1, "nnx.ids", "left out")],
    "from flax.nnx.graphlib import IndexMap as I": [(1, "nnx.graphlib.IndexMap", "left out")],
    "import flax.nnx.ids": [(1, "nnx.ids", "left out")],
    "from flax import nnx as n\nm = n.merge(g, s)": [(2, "nnx.merge", 'differs: see "`merge`"')],
    "from flax.nnx import merge\nmerge(g, s)": [
        (1, "nnx.merge", "differs"),
        (2, "nnx.merge", "differs"),
    ],
    "from flax import nnx\nnnx.Param(1, hijax=True)": [(2, "hijax=True", "differs")],
    "from flax import nnx\nnnx.Param(1, ref=False)": [],
    "import flax\nflax.config.update('x', 1)": [(2, "flax.config", "a setting of flax")],
    "import_module('flax.nnx')": [(1, "'flax.nnx'", "a name in a text")],
    "cast('list[flax.nnx.Param]', x)": [(1, "'list[flax.nnx.Param]'", "a name in a text")],
    "import_module(f'flax.nnx.{name}')": [(1, "'flax.nnx.'", "a name in a text")],
    "def f():\n    'Uses flax.nnx.'\n    print('of flax.nnx:')": [],
    "x: 'flax.nnx.Param'": [(1, "'flax.nnx.Param'", "a name in a text")],
    "import flax.nnx\nx: 'flax.nnx.Param'": [],
    "import flax.nnx\nweft = flax.nnx.Param": [(2, "weft", "the program has a `weft` of its own")],
    "from flax import nnx\nweft = nnx.Param": [],
    "from flax import nnx\nnnx.Linear, nnx.Param.anything": [],
    "nnx.merge": [],
}


@pytest.mark.parametrize("source", MARKS)
def test_marks(source):
    found = migrate(source.encode()).marks
    assert [(m.line, m.name) for m in found] == [(line, name) for line, name, _ in MARKS[source]]
    assert all(
        m.text.startswith(text) for m, (_, _, text) in zip(found, MARKS[source], strict=True)
    )
