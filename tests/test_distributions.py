"""What ships: the wheel is the package and nothing else, the source distribution the repository."""

import email
import os
import re
import shutil
import subprocess
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import uv_build

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NAME = f"weft-{PROJECT['version']}"
INFO = f"{NAME}.dist-info"
MADE = {"PKG-INFO", "pyproject.toml.orig"}
"""What uv_build adds to a source distribution, in some versions."""


def build(kind, root, folder):
    """Builds a distribution, offline: uv_build is installed, and needs nothing else."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        # It looks for its program on PATH, where an environment that is not activated is missing.
        patch.setenv("PATH", sysconfig.get_path("scripts"), prepend=os.pathsep)
        return folder / getattr(uv_build, f"build_{kind}")(str(folder))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """The folder that a source distribution unpacks to."""
    folder = tmp_path_factory.mktemp("sdist")
    with tarfile.open(build("sdist", ROOT, folder)) as archive:
        archive.extractall(folder, filter="data")
    assert {path.name for path in folder.iterdir()} == {NAME, f"{NAME}.tar.gz"}
    return folder / NAME


def content(wheel):
    """Every file of a wheel: its bytes by name."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        return {name: archive.read(name) for name in names}


def files_in(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def of_git():
    """The files that git keeps, or would: those that it is not told to ignore."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("this is no checkout of git, which knows what belongs to the repository")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return {name for name in done.stdout.split("\0") if name and (ROOT / name).exists()}


def test_wheel_is_the_package(wheel):
    found = content(wheel)
    package = {name for name in files_in(ROOT / "src") if "__pycache__" not in name}
    package = {name for name in package if not name.startswith("weft.egg-info")}
    info = {f"{INFO}/{name}" for name in ("METADATA", "RECORD", "WHEEL", "licenses/LICENSE")}
    assert found.keys() == package | info
    assert {"weft/py.typed", "weft/__init__.pyi", "weft/nn/__init__.pyi"} <= found.keys()
    assert "weft/_flax_names/modules/statelib.py" in found  # imported as `weft.statelib`
    assert all(found[name] == (ROOT / "src" / name).read_bytes() for name in package)
    assert found[f"{INFO}/licenses/LICENSE"] == (ROOT / "LICENSE").read_bytes()
    assert {name.rpartition(".")[2] for name in package} == {"md", "py", "pyi", "typed"}


def test_wheel_says_what_it_needs(wheel):
    metadata = email.message_from_bytes(content(wheel)[f"{INFO}/METADATA"])
    assert metadata["Version"] == PROJECT["version"]
    assert metadata["Requires-Python"] == PROJECT["requires-python"]
    assert metadata["License-Expression"] == "Apache-2.0"
    assert set(metadata.get_all("Provides-Extra")) == set(PROJECT["optional-dependencies"])
    requirements = [r for r in metadata.get_all("Requires-Dist") if "extra ==" not in r]
    assert {re.split(r"\W", r)[0] for r in requirements} == {"jax", "numpy", "optax", "safetensors"}
    assert metadata.get_payload(decode=True).decode() == (ROOT / "README.md").read_text(
        encoding="utf-8"
    )


def test_source_distribution_is_the_repository(unpacked):
    kept = {name for name in of_git() if not name.startswith(".git") or "/" in name}
    assert files_in(unpacked) - MADE == kept


def test_source_distribution_tests_and_builds(unpacked, wheel, tmp_path):
    files = files_in(unpacked)
    needed = {"conftest.py", "pyproject.toml", "uv.lock", "tests/test_smoke.py", ".ci/run"}
    assert needed | {"LICENSE", "README.md", "CHANGELOG.md"} <= files
    assert not [name for name in files if re.search(r"__pycache__|\.py[cod]$|^site/|^dist/", name)]
    again = content(build("wheel", unpacked, tmp_path))
    assert again == content(wheel)
