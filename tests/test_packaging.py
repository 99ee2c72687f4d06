"""The package from outside: what importing it loads, what its source may not hold."""

import ast
import importlib
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import weft as nnx

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


# -- importing stays light

HEAVY = {
    "cloudpickle",
    "flax",
    "matplotlib",
    "optax",
    "orbax",
    "rich",
    "safetensors",
    "sklearn",
    "tensorboardX",
    "treescope",
}


def loaded_by(statement: str, **environment: str) -> set[str]:
    """The heavy packages that a fresh interpreter holds after running ``statement``."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{statement}\nprint(*sys.modules, sep='\\n')"],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return HEAVY & {name.partition(".")[0] for name in done.stdout.split()}


CORE = "import weft as nnx; nnx.Module, nnx.jit, nnx.nn, nnx.Rngs, nnx.get_named_sharding"


LOOP = """from weft import train
train.Run, train.Bar, train.CSV, train.TensorBoard, train.Plot, train.Loader, train.scanned
for x in train.Run(None, state={}, data=[1], steps=1, sinks=[]):
    pass
"""


@pytest.mark.parametrize("statement", ["import weft", CORE, LOOP])
def test_import_loads_nothing_heavy(statement):
    # JAX loads cloudpickle where it is installed.
    assert loaded_by(statement) <= loaded_by("import jax")


@pytest.mark.parametrize("statement", ["import {}", "import {}.part", "from {}.part import thing"])
def test_import_check_reports_each_heavy_package(statement, tmp_path):
    for name in HEAVY:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
        (tmp_path / name / "part.py").write_text("thing = 1", encoding="utf-8")
    code = "\n".join(statement.format(name) for name in sorted(HEAVY))
    (tmp_path / "greedy.py").write_text(code, encoding="utf-8")
    assert loaded_by("import greedy", PYTHONPATH=str(tmp_path)) == HEAVY


def test_import_starts_no_backend():
    # JAX reads the platform's name when the first array is made, and raises for this one.
    assert loaded_by(CORE, JAX_PLATFORMS="nosuch") <= loaded_by("import jax")
    with pytest.raises(AssertionError, match="nosuch"):
        loaded_by("import jax; jax.devices()", JAX_PLATFORMS="nosuch")


def test_setting_of_the_tests():
    assert len(jax.devices("cpu")) == 4
    with pytest.raises(ValueError, match="jax_numpy_dtype_promotion=strict"):
        jnp.zeros(1, jnp.int32) + jnp.zeros(1, jnp.float32)


# -- what the source may not contain

FORBIDDEN = {  # what may not be imported or named -> why
    "__import__": "imports by a computed name",
    "cloudpickle": "loading runs code out of the data",
    "dill": "loading runs code out of the data",
    "eval": "runs code out of a string",
    "exec": "runs code out of a string",
    "jax._src": "private to JAX",
    "jaxlib": "private to JAX",
    "marshal": "loading trusts the data",
    "pickle": "loading runs code out of the data",
    "shelve": "loading runs code out of the data",
}
FORBIDDEN_AT_IMPORT = {"jax.experimental": "breaks the import on a new JAX; use it in a function"}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def dotted(node: ast.expr) -> str:
    """``a.b.c`` for such an expression, the empty string for any other."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=attr):
            return f"{base}.{attr}" if (base := dotted(value)) else ""
        case _:
            return ""


def names_in(node: ast.AST) -> list[str]:
    """The dotted names that one node imports or reads."""
    match node:
        case ast.Import(names=aliases):
            return [alias.name for alias in aliases]
        case ast.ImportFrom(module=module, names=aliases, level=0):
            return [f"{module}.{alias.name}" for alias in aliases]
        case ast.Name() | ast.Attribute():
            return [dotted(node)]
        case _:
            return []


def walk(node: ast.AST, at_import: bool = True) -> Iterator[tuple[ast.AST, bool]]:
    """Every node below ``node``, and whether importing the file executes it."""
    for child in ast.iter_child_nodes(node):
        yield child, at_import
        yield from walk(child, at_import and not isinstance(child, FUNCTIONS))


def faults(source: str) -> list[str]:
    """What a source file contains of the forbidden, as ``line: what: why``."""
    found = []
    for node, at_import in walk(ast.parse(source)):
        rules = FORBIDDEN | (FORBIDDEN_AT_IMPORT if at_import else {})
        for name in names_in(node):
            found += [
                f"{node.lineno}: {rule}: {why}"
                for rule, why in rules.items()
                if f"{name}.".startswith(f"{rule}.")
            ]
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            if getattr(node.value, "value", None) is not False:
                found.append(f"{node.lineno}: allow_pickle: {FORBIDDEN['pickle']}")
    return list(dict.fromkeys(found))


def test_source_contains_nothing_forbidden():
    found = [
        f"{path.relative_to(ROOT)}:{fault}"
        for path in sorted(SOURCE.rglob("*.py"))
        for fault in faults(path.read_text(encoding="utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("source", "rules"),
    [
        ("import pickle", ["pickle"]),
        ("import pickle as p, marshal", ["pickle", "marshal"]),
        ("from pickle import loads", ["pickle"]),
        ("def f():\n    import shelve, dill, cloudpickle", ["shelve", "dill", "cloudpickle"]),
        ("eval('1')", ["eval"]),
        ("run = exec", ["exec"]),
        ("def f(name):\n    return __import__(name)", ["__import__"]),
        ("numpy.load(f, allow_pickle=True)", ["allow_pickle"]),
        ("numpy.load(f, allow_pickle=trusted)", ["allow_pickle"]),
        ("import jax._src.core", ["jax._src"]),
        ("def f():\n    from jax import _src", ["jax._src"]),
        ("def f():\n    return jax._src.core.Tracer", ["jax._src"]),
        ("from jaxlib import xla_client", ["jaxlib"]),
        ("import jax.experimental", ["jax.experimental"]),
        ("from jax import experimental", ["jax.experimental"]),
        ("from jax.experimental.shard_map import shard_map", ["jax.experimental"]),
        (
            "class A:\n    try:\n        import jax.experimental\n    finally: ...",
            ["jax.experimental"],
        ),
        ("x = jax.experimental.checkify", ["jax.experimental"]),
        # allowed
        ("def f():\n    from jax.experimental import checkify", []),
        ("f = lambda: jax.experimental.checkify", []),
        ("numpy.load(f, allow_pickle=False)", []),
        ("model.eval(); import jax; jax.core.Tracer; from .pickle import x; import pickles", []),
    ],
)
def test_source_check_reports(source, rules):
    assert [fault.split(": ")[1] for fault in faults(source)] == rules


READERS = ("weft/_saving", "weft/train", "weft/tools/weights")


def computed_imports(source: str) -> list[int]:
    """The lines that import a module whose name does not stand in the source."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and dotted(node.func).rpartition(".")[2] == "import_module"
        and not (node.args and isinstance(node.args[0], ast.Constant))
    ]


def test_what_reads_files_imports_nothing_by_a_name_from_them():
    files = [path for folder in READERS for path in sorted((SOURCE / folder).rglob("*.py"))]
    assert len(files) > 40
    found = {path.name: computed_imports(path.read_text(encoding="utf-8")) for path in files}
    assert not any(found.values()), found
    assert computed_imports("import_module('a')\nimportlib.import_module(record['type'])") == [2]


def test_files_are_short():
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for folder in ("src", "tests", "examples", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
    }
    assert {path: lines for path, lines in lengths.items() if lines > 600} == {}


# -- what is said in several places


def test_version_agrees_everywhere():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## (\S+)", changelog, flags=re.MULTILINE)
    assert newest is not None
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert nnx.__version__ == PROJECT["version"] == newest[1]
    assert f"\nversion: {nnx.__version__}\n" in citation


def test_lock_names_public_hosts_only():
    lock = (ROOT / "uv.lock").read_text(encoding="utf-8")
    hosts = set(re.findall(r"https?://([^/\"]+)", lock))
    assert hosts == {"files.pythonhosted.org", "pypi.org"}


def test_page_lists_every_extra():
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    table = page.partition("| extra | brings | for |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `(\w+)`", table, flags=re.MULTILINE) == sorted(
        PROJECT["optional-dependencies"]
    )


# -- public names


def test_public_names_are_found_when_used():
    pytest.importorskip("flax", reason="flax is not installed")  # which `nnx.bridge` is for
    code = "import weft, sys; print(*(name for name in sys.modules if name.startswith('weft.')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["weft._core", "weft._core.elsewhere"]
    assert set(nnx.__all__) <= set(dir(nnx))
    for name in nnx.__all__:
        assert getattr(nnx, name) is getattr(nnx, name)
    scope: dict[str, object] = {}
    exec("from weft import *", scope)
    assert scope["Linear"] is nnx.Linear and scope["Optimizer"] is nnx.Optimizer
    with pytest.raises(AttributeError, match="module 'weft' has no attribute 'Linaer'"):
        _ = nnx.Linaer


@pytest.mark.parametrize("package", ["weft", "weft.nn"])
def test_type_checkers_read_the_names_that_there_are(package):
    module = importlib.import_module(package)
    stub = Path(module.__file__).with_suffix(".pyi").read_text(encoding="utf-8")
    found = [
        (node.module, alias.name, alias.asname)
        for node in ast.parse(stub).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]
    assert sorted(name for _, _, name in found) == sorted(module.__all__)
    for home, attribute, name in found:
        home = home.replace("weft._flax_names.modules", "weft")
        place = importlib.import_module(home)
        if not hasattr(place, attribute):  # a module of a package
            place = importlib.import_module(f"{home}.{attribute}")
        assert getattr(module, name) is getattr(place, attribute, place)


@pytest.mark.parametrize("name", ["metrics", "optimizer", "wrappers", "nn", "object"])
def test_a_module_may_be_the_first_name_that_is_used(name):
    if name == "wrappers":
        pytest.importorskip("flax", reason="flax is not installed")
    code = f"import weft, types; assert isinstance(weft.{name}, types.ModuleType)"
    subprocess.run([sys.executable, "-c", code], check=True)
