"""Names that are imported when they are first asked for."""

from __future__ import annotations

import subprocess
import sys
import types
import warnings

import jax
import pytest

import weft as nnx
from weft._core.elsewhere import names_from

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    IS_IN_CORE = hasattr(jax.core, "find_top_trace")


def modules_after(code: str) -> set[str]:
    code = f"{code}\nimport sys\nprint(*(name for name in sys.modules if name.startswith('weft')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_a_first_program_loads_what_it_uses() -> None:
    found = modules_after("import weft as n\nn.Linear, n.Optimizer, n.jit, n.value_and_grad")
    assert {"weft.nn.linear", "weft.train.optimizer", "weft._lift.autodiff"} <= found
    layers = {name for name in found if name.startswith("weft.nn.")}
    assert layers == {
        f"weft.nn.{name}"
        for name in (
            *("dtypes", "initializers", "linear", "nnx_names"),
            *("one_program", "padding", "parameters", "torch_weights"),
        )
    }
    transforms = {"map", "loop", "branch", "repeat", "vjp", "custom_vjp", "abstract", "partial"}
    assert not found & {f"weft._lift.{name}" for name in transforms}
    assert not found & {"weft._graph.tally", "weft._rng.rekey", "weft._module.capture"}


@pytest.mark.skipif(not IS_IN_CORE, reason="newer JAX tells the running trace in jax.extend alone")
def test_what_takes_long_is_not_loaded_before_a_function_is_traced() -> None:
    code = (
        "import weft as n, sys\nlayer = n.Linear(1, 1, rngs=n.Rngs(0))\nn.Optimizer, n.jit, n.grad"
    )
    found = modules_after(f"{code}\nassert 'jax.extend' not in sys.modules")
    assert "weft.nn.linear" in found


@pytest.mark.parametrize("first", ["nnx.nn.stack", "nnx.stack", "nnx.nn.Stack"])
def test_modules_and_functions_of_one_name_stay_apart(first: str) -> None:
    modules_after(
        f"import types, weft as nnx\n{first}\n"
        "assert isinstance(nnx.nn.stack, types.ModuleType) and callable(nnx.stack)\n"
        "assert isinstance(nnx.nn.lora, types.ModuleType) and callable(nnx.lora)\n"
        "import weft._module.dataclass, weft._rng.reseed, weft._lift.jit.jit, weft._lift.vjp\n"
        "assert all(map(callable, (nnx.dataclass, nnx.reseed, nnx.jit, nnx.vjp, nnx.vmap)))"
    )


ASK = """
import importlib, pathlib, sys
import weft
root = pathlib.Path(weft.__file__).parent
names = [".".join(path.with_suffix("").relative_to(root.parent).parts)
         for path in sorted(root.rglob("*.py")) if path.stem != "__init__"]
names = [name.replace("_flax_names.modules.", "") for name in names]
order, *orders = sys.argv[1], "ask", "import"
assert order in orders
for step in (orders if order == "ask" else orders[::-1]):
    for name in names:
        package, _, last = name.rpartition(".")
        if step == "import":
            importlib.import_module(name)
        elif hasattr(importlib.import_module(package), last):
            print(name, type(getattr(sys.modules[package], last)).__name__)
"""


def test_a_name_is_a_module_or_a_function_whatever_is_imported_first() -> None:
    pytest.importorskip("flax", reason="flax is not installed")
    asked, imported = (
        dict(
            line.split()
            for line in subprocess.run(
                [sys.executable, "-c", ASK, order], capture_output=True, text=True, check=True
            ).stdout.splitlines()
        )
        for order in ("ask", "import")
    )
    assert asked.keys() <= imported.keys() and len(asked) > 50
    assert {name: kind for name, kind in imported.items() if name in asked} == asked
    public = {name for name in asked if not any(part[:1] == "_" for part in name.split("."))}
    assert {asked[name] for name in public} == {"module"}
    assert imported["weft.nn.stack"] == imported["weft.nn.lora"] == "module"


def test_names_in_a_stub() -> None:
    assert {"Linear", "relu", "initializers"} <= set(nnx.nn.__all__) <= set(dir(nnx.nn))
    assert nnx.nn.Linear is nnx.Linear and nnx.nn.Linear is nnx.nn.linear.Linear
    assert isinstance(nnx.nn.pooling, types.ModuleType)
    with pytest.raises(AttributeError, match=r"module 'weft\.nn' has no attribute .Dense.: it is"):
        nnx.nn.Dense  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(AttributeError, match=r"module 'weft\.nn' has no attribute 'nope'$"):
        nnx.nn.nope  # type: ignore[attr-defined]  # noqa: B018


def test_names_from_other_modules() -> None:
    get = names_from("here", {"sqrt": "math", "root": "math:sqrt"})
    assert get("sqrt") is get("root")
    with pytest.raises(AttributeError, match="module 'here' has no attribute 'cube'"):
        get("cube")
