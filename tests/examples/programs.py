"""The programs in examples/, run in this process."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

EXAMPLES = Path(__file__).parents[2] / "examples"


def load(name: str) -> ModuleType:
    """Returns a program as a module."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(monkeypatch, capsys, name: str, *options: object) -> str:
    """Runs a program with options, and returns what it shows."""
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, options)])
    load(name).main()
    return capsys.readouterr().out


def is_picture(file: Path) -> bool:
    return file.read_bytes().startswith(b"\x89PNG")
