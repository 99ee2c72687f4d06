"""Migrated programs print what they print on flax, and keep their comments and their form."""

import libcst as cst
import pytest

from tests.migrate.shown import PROGRAMS, shown_by
from weft.migrate import migrate


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda file: file.stem)
def test_programs_print_what_they_do_on_flax(program, tmp_path):
    pytest.importorskip("flax", reason="needs flax to compare with")
    found = migrate(program.read_bytes())
    assert b"flax.nnx" not in found.after and b"import nnx" not in found.after
    (tmp_path / "program.py").write_bytes(found.after)
    assert shown_by(tmp_path / "program.py") == shown_by(program)
    assert migrate(found.after).after == found.after


CHANGES = {
    "from flax import nnx": "import weft as nnx",
    "from flax import nnx as n": "import weft as n",
    "from flax import nnx, struct": "import weft as nnx\nfrom flax import struct",
    "from flax import linen, nnx": "import weft as nnx\nfrom flax import linen",
    "import flax.nnx as nnx": "import weft as nnx",
    "import flax.nnx\nflax.nnx.Param": "import weft\nweft.Param",
    "import flax.nnx\nflax.nnx.Param, flax.core": "import weft\nimport flax\nweft.Param, flax.core",
    "import flax\nflax.nnx.Param": "import weft\nweft.Param",
    "import flax\nflax.struct": "import flax\nflax.struct",
    "import flax.nnx.statelib as s": "import weft.statelib as s",
    "from flax.nnx import *": "from weft import *",
    "from flax.nnx.bridge import ToNNX": "from weft.bridge import ToNNX",
    "from flax import *": "from flax import *",
    "from . import nnx": "from . import nnx",
    "from .flax import nnx": "from .flax import nnx",
    "from flaxy import nnx": "from flaxy import nnx",
    "import os; from flax import nnx  # x": "import weft as nnx\nimport os  # x",
    "# a\nfrom flax import nnx  # b\n# c\nx = nnx.Param( 1 )": (
        "# a\nimport weft as nnx  # b\n# c\nx = nnx.Param( 1 )"
    ),
    "if True:\n\tfrom flax import nnx, struct": (
        "if True:\n\timport weft as nnx\n\tfrom flax import struct"
    ),
    "flax = Other()\nflax.nnx.Param": "flax = Other()\nflax.nnx.Param",
    "def f():\n    import flax.nnx\nimport flax.nnx": "def f():\n    import weft\nimport weft",
    "import flax\r\nflax.nnx.relu\r\n": "import weft\r\nweft.relu\r\n",
    "\ufeffimport flax.nnx as nnx\n": "\ufeffimport weft as nnx\n",
    # In one line with what it belongs to:
    "try: import flax.nnx as n\nexcept ImportError: n = None": (
        "try: import weft as n\nexcept ImportError: n = None"
    ),
    "def f(): from flax import nnx, struct; return nnx": (
        "def f(): import weft as nnx; from flax import struct; return nnx"
    ),
    "class A: x = 1;  import flax.nnx as n": "class A: x = 1;  import weft as n",
    "import flax.nnx as n\nif n: x = 1 ;y = 2": "import weft as n\nif n: x = 1 ;y = 2",
    # flax by another name:
    "import flax as f\nf.nnx.Param": "import weft\nweft.Param",
    "import flax as f\nf.nnx.Param, f.core": "import weft\nimport flax as f\nweft.Param, f.core",
    "import flax as f, flax.nnx\nf.nnx.Param, flax.nnx.Param": (
        "import weft\nweft.Param, weft.Param"
    ),
    "import flax as f\ng.nnx, f.core": "import flax as f\ng.nnx, f.core",
    # Annotations in texts:
    "import flax.nnx\ndef f(m: 'list[flax.nnx.Module]') -> 'flax.nnx.State': ...": (
        "import weft\ndef f(m: 'list[weft.Module]') -> 'weft.State': ..."
    ),
    "import flax as f\nx: 'f.nnx.State | f.core.Scope'": (
        "import weft\nimport flax as f\nx: 'weft.State | f.core.Scope'"
    ),
    "from flax import nnx\nx: 'nnx.State | my.nnx.State'": (
        "import weft as nnx\nx: 'nnx.State | my.nnx.State'"
    ),
    # Further forms:
    "from flax import nnx, struct  # noqa: E402": (
        "import weft as nnx  # noqa: E402\nfrom flax import struct  # noqa: E402"
    ),
    "from flax import nnx, struct  # both": "import weft as nnx\nfrom flax import struct  # both",
    "from flax import nnx; from flax.nnx import Param": (
        "import weft as nnx\nfrom weft import Param"
    ),
    "import flax.nnx as n, flax.nnx.bridge as b, os": (
        "import weft as n\nimport weft.bridge as b\nimport os"
    ),
    "from flax import \\\n    nnx": "import weft as nnx",
    "from flax import \\\n    struct, nnx": "import weft as nnx\nfrom flax import \\\n    struct",
    "from flax import (nnx)": "import weft as nnx",
    "from flax import (\n    nnx,\n    struct,\n)": (
        "import weft as nnx\nfrom flax import (\n    struct,\n)"
    ),
    "from flax.nnx import (\n    Linear,  # one\n)": "from weft import (\n    Linear,  # one\n)",
    "import flax.nnx.nn.linear\nflax.nnx.nn.linear.Linear": (
        "import weft.nn.linear\nweft.nn.linear.Linear"
    ),
    "try:\n    import flax.nnx\nexcept ImportError:\n    flax = None\nif flax: flax.nnx.relu": (
        "try:\n    import weft\n    import flax\nexcept ImportError:\n    flax = None\n"
        "if flax: weft.relu"
    ),
    "import flax.nnx\n@flax.nnx.jit\ndef f(): del flax": (
        "import weft\nimport flax\n@weft.jit\ndef f(): del flax"
    ),
    # What was there already stays where something is said of it:
    "import flax.nnx\nimport flax\nflax.nnx.Param": "import weft\nweft.Param",
    "import flax.nnx\n# why\nimport flax\nflax.nnx.Param": (
        "import weft\n# why\nimport weft\nweft.Param"
    ),
}


@pytest.mark.parametrize("before", CHANGES)
def test_imports_are_changed_and_nothing_else(before):
    assert migrate(before.encode()).after.decode() == CHANGES[before]


def test_the_encoding_of_a_program_stays():
    source = "# -*- coding: latin-1 -*-\nfrom flax import nnx\nname = 'é'\n".encode("latin-1")
    assert migrate(source).after == source.replace(b"from flax import nnx", b"import weft as nnx")


BAD = {
    b"x = 1\nif:\n": "line 2: invalid syntax",
    b"import flax\nclass A(B) if C else D: pass\n\nx = 1\n": "line 2: ",
    b"import flax\nprint 'x'\n": "line 2: Missing parentheses in call to 'print'",
    b"import flax\n\0": "null byte",
    b"# coding: nonsense\nimport flax": "unknown encoding: nonsense",
}


@pytest.mark.parametrize("source", BAD)
def test_what_is_no_python(source):
    with pytest.raises(SyntaxError, match=BAD[source]):
        migrate(source)


def test_what_libcst_does_not_read(monkeypatch):
    def fail(source):
        raise cst.ParserSyntaxError("what", lines=["x"], raw_line=1, raw_column=0)

    monkeypatch.setattr(cst, "parse_module", fail)
    with pytest.raises(SyntaxError, match="line 1: what"):
        migrate(b"x = 1")
