"""What of flax a program uses, and by which names."""

import libcst as cst
import pytest

from weft.migrate.uses import Uses, dotted, is_peer

PROGRAMS = {  # bound, used for `.nnx`, used for something else of these
    "import flax": ({"flax"}, set(), set()),
    "import flax.nnx, flax.core as c": ({"flax"}, set(), set()),
    "import flax as f\nf.nnx.x, f.core": ({"f"}, {"f"}, {"f"}),
    "import flax.nnx\nflax.nnx.x": ({"flax"}, {"flax"}, set()),
    "from flax import nnx\nnnx.x": (set(), set(), {"nnx"}),
    "import flax\nx: 'list[flax.nnx.x]'\ny = 'flax.core'": ({"flax"}, {"flax"}, {"x", "y"}),
    "import flax\ndef f() -> 'flax.core.x': ...": ({"flax"}, set(), {"f", "flax"}),
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_uses(program):
    uses = Uses()
    cst.parse_module(program).visit(uses)
    assert (uses.bound, uses.whole, uses.other) == PROGRAMS[program]


def test_names():
    assert dotted(cst.parse_expression("a.b.c")) == "a.b.c"
    assert dotted(cst.parse_expression("a().c")) == dotted(None) == ""
    assert is_peer("flax.nnx") and is_peer("flax.nnx.nn") and not is_peer("flax.nnxx")
