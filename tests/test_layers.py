"""The layers of the source: a file imports from its own folder and those above it, in no circle.

The tests lie as the files do.
"""

import ast
import graphlib
from pathlib import Path

import weft

ROOT = Path(weft.__file__).parent
LAYERS = (
    *("_core", "_variable", "_object", "_graph", "_module", "_lift", "_rng", "_sharding"),
    "_saving",
    *("nn", "train", "tools", "bridge", "_flax_names"),
    *("as_flax", "migrate"),
)
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in ROOT.rglob("*.py")
}


def imports_of(name: str) -> set[str]:
    """The files that a file imports from, wherever the line stands; types alone do not count."""
    nodes: list[ast.AST] = [ast.parse(FILES[name].read_text(encoding="utf-8"))]
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            nodes += node.orelse
            continue
        nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.ImportFrom) and (node.level or "weft" in str(node.module)):
            own = name.split(".")[: -node.level] if node.level else []
            base = ".".join([*own, *(node.module or "").split(".")]).removeprefix("weft").strip(".")
            for alias in node.names:
                places = (f"{base}.{alias.name}", base, f"{base}.__init__")
                found.update([place for place in places if place in FILES][:1])
    return found - {name}


IMPORTS = {name: imports_of(name) for name in FILES}


def layer_of(name: str) -> int:
    return LAYERS.index(name.partition(".")[0])


def test_every_folder_is_a_layer():
    assert {name.partition(".")[0] for name in FILES} == {*LAYERS, "__init__"}
    assert sum(map(len, IMPORTS.values())) > 800


def test_no_import_leads_up():
    up = [(a, b) for a in FILES if a != "__init__" for b in IMPORTS[a] if layer_of(b) > layer_of(a)]
    assert not up


def test_no_circle():
    graphlib.TopologicalSorter(IMPORTS).prepare()  # names the files of a circle


# `nnx.jit` is tested as one, and modules that hand names on by the names, in `test_api.py`.
STEPS = (
    "collect",
    "manifest",
    "processes",
    "read_step",
    "shards",
    "steps",
    "storage",
    "write_step",
)
TOGETHER = (
    "_flax_names.modules.",
    *(f"_saving.{name}" for name in STEPS),  # of `train.Checkpoints`: train/test_checkpoints.py
)


def test_every_file_has_its_tests():
    alone = [n.split(".") for n in FILES if not n.startswith(TOGETHER) and "__init__" not in n]
    tests = [
        Path(*[x.removeprefix("_") for x in way], f"test_{name.strip('_')}.py")
        for *way, name in alone
    ]
    assert len(tests) > 150
    assert not [str(path) for path in tests if not (Path(__file__).parent / path).is_file()]
