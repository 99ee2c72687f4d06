"""Programs written for `flax.nnx` run on Weft as they are: `python -m weft.as_flax script.py ...`.

After `install()`, what imports `flax.nnx`, or a module in it, gets Weft's by that name. The rest of
flax (`flax.linen`, `flax.struct`, ...) stays flax's, if it is installed; it is not needed.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.abc
import importlib.machinery
import runpy
import sys
import types
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path

PEER = "flax.nnx"


def install() -> None:
    """Makes `flax.nnx` mean Weft, in this process from now on; twice is as once.

    Call it before anything imports `flax.nnx`, as in the first lines of a `conftest.py`. Processes
    that `multiprocessing` starts from then on have it too.

    Raises:
      RuntimeError: if `flax.nnx` has been imported already.

    Example:
      >>> import subprocess, sys
      >>> first = "from weft import as_flax; as_flax.install()"
      >>> program = f"{first}; from flax import nnx; print(nnx.Linear)"
      >>> print(subprocess.check_output([sys.executable, "-c", program], text=True).strip())
      <class 'weft.nn.linear.Linear'>
    """
    if any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return
    if PEER in sys.modules:
        raise RuntimeError(
            f"{PEER} has been imported already, so parts of the program have its classes: call "
            "`weft.as_flax.install()` before the first `import flax.nnx`, or run the program by "
            "`python -m weft.as_flax script.py`"
        )
    sys.meta_path.insert(0, _Finder())
    sys.argv = _Arguments(sys.argv)


def uninstall() -> None:
    """Takes `install` back, for what is imported from now on; without it nothing happens.

    Example:
      >>> from weft import as_flax
      >>> as_flax.uninstall()
    """
    finders = [finder for finder in sys.meta_path if not isinstance(finder, _Finder)]
    if len(finders) == len(sys.meta_path):
        return
    sys.meta_path[:] = finders
    sys.argv = list(sys.argv)
    for name in [name for name in sys.modules if name == PEER or name.startswith(f"{PEER}.")]:
        del sys.modules[name]
    flax = sys.modules.get("flax")
    if isinstance(flax, _Flax):
        del sys.modules["flax"]
    elif flax is not None:
        vars(flax).pop("nnx", None)


class _Arguments(list[str]):
    """The arguments of a program, which `multiprocessing` sends to processes that it spawns.

    They are the first that such a process reads, before it imports the program.
    """

    def __reduce__(self) -> tuple[object, ...]:
        return _arrived, (list(self),)


def _arrived(arguments: list[str]) -> list[str]:
    install()
    return arguments


def _missing(name: str) -> str:
    return (
        f"flax is not installed, and Weft stands for flax.nnx alone: `{name}` takes "
        "`pip install flax`"
    )


class _Flax(types.ModuleType):
    """What `flax` is where it is not installed."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        raise AttributeError(_missing(f"flax.{name}"))


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds `flax.nnx` and what is in it; and flax itself, if nobody else does."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == "flax":
            is_missing = importlib.machinery.PathFinder.find_spec("flax") is None
            return ModuleSpec("flax", self, is_package=True) if is_missing else None
        if fullname != PEER and not fullname.startswith(f"{PEER}."):
            if fullname.startswith("flax.") and isinstance(sys.modules.get("flax"), _Flax):
                raise ModuleNotFoundError(_missing(fullname), name="flax")
            return None
        return ModuleSpec(fullname, self) if _module(fullname) is not None else None

    def create_module(self, spec: ModuleSpec) -> types.ModuleType | None:
        return _Flax("flax") if spec.name == "flax" else None

    def exec_module(self, module: types.ModuleType) -> None:
        own = _module(module.__name__) if module.__name__ != "flax" else None
        if own is not None:  # the import takes what stands here in the end
            sys.modules[module.__name__] = own


def _module(fullname: str) -> types.ModuleType | None:
    """Returns Weft's module by a name of the peer's."""
    name = "weft" + fullname.removeprefix(PEER)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not name.startswith(error.name):
            raise
    parent, _, last = name.rpartition(".")  # `weft.optimizer` is a module of another folder
    found = getattr(sys.modules.get(parent), last, None)
    return found if isinstance(found, types.ModuleType) else None


def _main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m weft.as_flax",
        description="Runs a program written for flax.nnx on Weft, as it is.",
    )
    parser.add_argument("-m", dest="is_module", action="store_true", help="it is a module's name")
    parser.add_argument("program", help="a file, or with -m the name of a module")
    parser.add_argument(
        "arguments", nargs=argparse.REMAINDER, help="those of the program", default=[]
    )
    options = parser.parse_args()
    install()
    sys.argv[:] = [options.program, *options.arguments]
    if options.is_module:
        runpy.run_module(options.program, run_name="__main__", alter_sys=True)
        return
    program = Path(options.program)
    if not program.exists():
        parser.error(f"there is no file {program}; a module's name comes after -m")
    if not sys.flags.safe_path:  # its own folder is first, and not the one that Python began in
        sys.path[0] = str(program.resolve().parent)
    runpy.run_path(options.program, run_name="__main__")


if __name__ == "__main__":
    from weft import as_flax  # not `__main__`, so that the program finds it installed

    as_flax._main()
