"""Programs written for `flax.nnx` run as they are, and print what they print on flax."""

import importlib
import importlib.machinery
import multiprocessing
import subprocess
import sys

import pytest

import weft
from tests.migrate.shown import PROGRAMS, shown_by
from weft import as_flax


def take_out_flax():
    return {n: sys.modules.pop(n) for n in list(sys.modules) if n.split(".")[0] == "flax"}


@pytest.fixture
def without_peer():
    """A process in which nothing has imported flax; afterwards it has what it had."""
    kept = take_out_flax()
    yield
    take_out_flax()
    sys.modules.update(kept)


@pytest.fixture
def installed(without_peer):
    as_flax.install()
    yield
    as_flax.uninstall()


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda file: file.stem)
def test_programs_print_what_they_do_on_flax(program, without_peer):
    pytest.importorskip("flax", reason="needs flax to compare with")
    expected = shown_by(program)
    take_out_flax()
    as_flax.install()
    try:
        assert shown_by(program) == expected
        assert sys.modules["flax.nnx"] is weft
    finally:
        as_flax.uninstall()


@pytest.mark.parametrize(
    "name, own",
    {
        "flax.nnx": "weft",
        "flax.nnx.nn": "weft.nn",
        "flax.nnx.nn.linear": "weft.nn.linear",
        "flax.nnx.statelib": "weft.statelib",
        "flax.nnx.training.metrics": "weft.training.metrics",
        "flax.nnx.optimizer": "weft.train.optimizer",
        "flax.nnx.bridge": "weft.bridge",
    }.items(),
)
def test_modules(installed, name, own):
    assert importlib.import_module(name) is importlib.import_module(own)
    assert importlib.import_module(own).__spec__.name == own


def test_a_module_that_there_is_not(installed):
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'flax\.nnx\.nothing'"):
        importlib.import_module("flax.nnx.nothing")


def test_installing_twice_and_taking_it_back(installed):
    finders = list(sys.meta_path)
    as_flax.install()
    assert sys.meta_path == finders
    import flax.nnx

    assert flax.nnx is weft
    as_flax.uninstall()
    assert "flax.nnx" not in sys.modules and len(sys.meta_path) == len(finders) - 1
    assert type(sys.argv) is list


def test_it_refuses_where_the_peer_is_imported(without_peer):
    sys.modules["flax.nnx"] = sys
    with pytest.raises(RuntimeError, match=r"has been imported already.*before the first `import"):
        as_flax.install()
    assert not any(isinstance(finder, as_flax._Finder) for finder in sys.meta_path)


def test_without_flax(without_peer, monkeypatch):
    find = importlib.machinery.PathFinder.find_spec
    hide = lambda name, *rest: None if name.startswith("flax") else find(name, *rest)  # noqa: E731
    monkeypatch.setattr(importlib.machinery.PathFinder, "find_spec", hide)
    as_flax.install()
    try:
        from flax import nnx

        assert nnx is weft
        with pytest.raises(ImportError, match=r"not installed.*`flax.struct` takes `pip install"):
            from flax import struct  # noqa: F401
        with pytest.raises(ModuleNotFoundError, match=r"`flax.linen` takes `pip install flax`"):
            import flax.linen  # noqa: F401
        with pytest.raises(AttributeError, match=r"`flax.struct` takes `pip install flax`"):
            sys.modules["flax"].struct  # noqa: B018
    finally:
        as_flax.uninstall()
    assert "flax" not in sys.modules


def run(*arguments, **options):
    command = [sys.executable, "-m", "weft.as_flax", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def test_as_a_command(tmp_path):
    (tmp_path / "helper.py").write_text("from flax.nnx import Linear\n")
    (tmp_path / "main.py").write_text(
        "import sys, helper\nfrom flax import nnx\n"
        "print(__name__, sys.argv[1:], helper.Linear is nnx.Linear, nnx.Linear.__module__)\n"
    )
    expected = "__main__ ['--x', '1'] True weft.nn.linear\n"
    assert run(tmp_path / "main.py", "--x", "1").stdout == expected
    assert run("-m", "main", "--x", "1", cwd=tmp_path).stdout == expected


def test_the_folders_that_modules_come_from(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "helper.py").write_text("where = 'the folder that the command began in'\n")
    (tmp_path / "inner" / "main.py").write_text("import sys\nprint(sys.path[0])\nimport helper\n")
    found = run("inner/main.py", cwd=tmp_path)  # as by `python inner/main.py`
    assert found.stdout == f"{tmp_path.resolve() / 'inner'}\n"
    assert "No module named 'helper'" in found.stderr


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@pytest.mark.parametrize("way", [["main.py"], ["-m", "main"]])
def test_processes_that_a_program_starts(method, way, tmp_path):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"there is no {method} here")
    (tmp_path / "main.py").write_text(
        "import multiprocessing\nfrom flax import nnx\n"
        "def name(_): return nnx.__name__\n"
        "if __name__ == '__main__':\n"
        f"    with multiprocessing.get_context('{method}').Pool(1) as pool:\n"
        "        print(pool.map(name, [0]))\n"
    )
    found = run(*way, cwd=tmp_path, timeout=60)
    assert found.stdout == "['weft']\n", found.stderr


def test_a_file_that_is_missing_and_a_program_that_fails(tmp_path):
    found = run(tmp_path / "main.py")
    assert found.returncode == 2 and "there is no file" in found.stderr
    (tmp_path / "main.py").write_text("import weft\nraise ValueError('of the program')\n")
    found = run(tmp_path / "main.py")
    assert found.returncode == 1 and "ValueError: of the program" in found.stderr
