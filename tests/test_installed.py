"""As a stranger has it: the wheel in an empty environment runs the programs that teach Weft.

There are only the packages that Weft requires, and no setting of the tests but what makes compiling
cheap. The packages come out of uv's cache, where the environment of the tests has left them.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_distributions import build

ROOT = Path(__file__).parents[1]
CHAPTERS = {path.stem: path for path in sorted((ROOT / "docs" / "learn").glob("*.md"))}
NEEDS = {"checkpoints": "checkpoint"}
"""Chapters that need an extra, which they name: it is not there, and the error has to say so."""

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SETTING = re.compile(r"^export (\w+)=(\S+)$", re.MULTILINE)
PLAIN = {"HOME", "LANG", "LD_LIBRARY_PATH", "PATH", "TMPDIR"}
"""Variables of the environment that have nothing to do with Python, JAX or Weft."""


def blocks(page, language):
    return [code for name, code in BLOCK.findall(page.read_text("utf-8")) if name == language]


def program_of(name):
    """The program of a chapter, or the first of the README, and the variables that it asks for."""
    if name == "README":
        return blocks(ROOT / "README.md", "python")[0], {}
    page = CHAPTERS[name]
    settings = SETTING.findall("".join(blocks(page, "sh")))
    return "\n".join(blocks(page, "python")), dict(settings)


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """The Python of an environment with Weft's wheel and what it requires."""
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not installed, which makes environments")
    folder = tmp_path_factory.mktemp("installed")
    wheel, python = build("wheel", ROOT, folder), folder / "environment" / "bin" / "python"
    variables = {k: v for k, v in os.environ.items() if k not in {"UV_LOCKED", "VIRTUAL_ENV"}}
    variables["UV_PROJECT_ENVIRONMENT"] = str(folder / "environment")
    requirements = "--frozen --no-dev --no-install-project --no-compile-bytecode --no-progress"
    for command in (
        ["sync", *requirements.split(), "--offline", "--python", sys.executable],
        ["pip", "install", "--no-deps", "--offline", "--python", str(python), str(wheel)],
    ):
        done = subprocess.run(
            [uv, *command], cwd=ROOT, env=variables, capture_output=True, text=True, check=False
        )
        if done.returncode and "Network connectivity is disabled" in done.stderr:
            pytest.skip("uv has not all packages in its cache: see `uv cache`")
        assert done.returncode == 0, done.stderr
    return python


def run(python, program, folder, **variables):
    """Runs a program in an empty folder, with no more in its environment than is plain."""
    (folder / "program.py").write_text(program, encoding="utf-8")
    plain = {name: value for name, value in os.environ.items() if name in PLAIN}
    settings = {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    return subprocess.run(
        [python, "-I", "program.py"],
        cwd=folder,
        env=plain | settings | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def test_environment_holds_nothing_else(environment, tmp_path):
    program = (
        "import importlib.metadata, sys, weft\n"
        "assert weft.__file__.startswith(sys.prefix), weft.__file__\n"
        "print(*sorted(d.name for d in importlib.metadata.distributions()))\n"
    )
    done = run(environment, program, tmp_path)
    assert done.returncode == 0, done.stderr
    required = {"weft", "jax", "numpy", "optax", "safetensors"}
    of_these = {"absl-py", "jaxlib", "ml_dtypes", "opt_einsum", "scipy"}
    assert required <= set(done.stdout.split()) <= required | of_these


@pytest.mark.parametrize("name", ["README", *(name for name in CHAPTERS if name != "index")])
def test_program_runs(name, environment, tmp_path):
    program, variables = program_of(name)
    assert "import weft as nnx" in program
    done = run(environment, program, tmp_path, **variables)
    if name in NEEDS:
        assert f"pip install 'weft[{NEEDS[name]}]'" in done.stderr
    else:
        assert done.returncode == 0, done.stderr
        assert "Warning" not in done.stderr, done.stderr


def test_all_names_and_programs_of_flax_nnx(environment, tmp_path):
    program = """
from weft import as_flax
as_flax.install()
from flax.nnx import *
import flax.nnx.bridge.wrappers
model = Linear(2, 3, rngs=Rngs(0))
print(type(model).__module__, model([[1.0, 2.0]]).shape)
"""
    done = run(environment, program, tmp_path)
    assert done.stdout == "weft.nn.linear (1, 3)\n", done.stderr


def test_chapters_that_need_an_extra_are_there():
    assert not CHAPTERS or NEEDS.keys() <= CHAPTERS.keys()
