"""The names of JAX that the source uses are there, and what becomes of those that may go."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pytest

import weft as nnx
from weft._core import jax_names

ROOT = Path(nnx.__file__).parent
AT_RISK = ("jax.extend", "jax.experimental", "jax.interpreters", "jax._src")


def names_of_jax(path: Path) -> Iterator[str]:
    """Yields the dotted names of JAX in a file; what is for type checkers alone does not count."""
    nodes: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    for node in nodes:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("jax"))
        elif isinstance(node, ast.ImportFrom) and str(node.module).startswith("jax"):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute):
            name = ast.unparse(node).replace("jnp.", "jax.numpy.").replace("jtu.", "jax.tree_util.")
            if name.startswith("jax.") and name.replace(".", "").isidentifier():
                yield name


def find(name: str) -> Any:
    """Returns what a dotted name stands for; a deprecated one warns, which is an error."""
    module, parts = jax, name.split(".")[1:]
    found: Any = module
    for i, part in enumerate(parts):
        if not hasattr(found, part):
            importlib.import_module(".".join(["jax", *parts[: i + 1]]))
        found = getattr(found, part)
    return found


def test_the_names_that_the_source_uses_are_there() -> None:
    uses = {(name, path) for path in ROOT.rglob("*.py") for name in names_of_jax(path)}
    assert len({name for name, _ in uses}) > 150
    missing = []
    for name, path in sorted(uses):
        try:
            find(name)
        except (ImportError, AttributeError, DeprecationWarning) as error:
            missing.append(f"{path.relative_to(ROOT)}: {name}: {error}")
    assert not missing, f"JAX {jax.__version__} lacks names:\n" + "\n".join(missing)


@pytest.mark.parametrize("name", [*jax_names.FOUND_LATER, "state_of_trace", "find_top_trace"])
def test_names_at_risk_are_there(name: str) -> None:
    assert callable(getattr(jax_names, name))


def test_names_at_risk_are_in_one_file() -> None:
    files = {
        str(path.relative_to(ROOT))
        for path in ROOT.rglob("*.py")
        if any(name.startswith(AT_RISK) for name in names_of_jax(path))
    }
    assert files <= {"_lift/abstract.py"}  # `checkify`, which JAX has nowhere else


def run(removed: str, code: str) -> subprocess.CompletedProcess[str]:
    """Runs code in a process whose JAX lacks a name."""
    code = (
        "import jax, jax.core, jax.extend.core as core\n"
        f"delattr(core, {removed!r}); jax.core._deprecations.pop({removed!r}, None)\n{code}"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_without_the_running_trace_its_state_tells_as_much() -> None:
    done = run(
        "find_top_trace",
        "import weft as nnx\n"
        "from weft._core import jax_names, trace\n"
        "from weft._core.errors import TraceContextError\n"
        "assert jax_names.find_top_trace is jax_names._find_state\n"
        "outside, model = trace.current(), nnx.Linear(1, 1, rngs=nnx.Rngs(0))\n"
        "def f(x):\n"
        "    assert not trace.is_outermost() and trace.current() not in (outside, None)\n"
        "    assert trace.current() == trace.current()\n"
        "    try: model.kernel.value = 0 * model.kernel\n"
        "    except TraceContextError: return model(x)\n"
        "nnx.jit(f)(jax.numpy.ones((1, 1)))\n"
        "assert trace.is_outermost() and trace.current() == outside\n",
    )
    assert done.returncode == 0, done.stderr


def test_without_the_state_of_the_trace_the_error_says_what_to_do() -> None:
    done = run("get_opaque_trace_state", "import weft; weft.Linear")
    assert (
        "ImportError: expected `jax.extend.core.get_opaque_trace_state`, by which Weft tells one "
        f"trace from another, found none in JAX {jax.__version__}: `pip install -U weft`, or an "
        "older JAX" in done.stderr
    )
