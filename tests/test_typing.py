"""The programs of `tests/typing` run, and what they say of types is so.

pyright and mypy read these programs; here each `assert_type` looks at the value itself.
"""

import importlib.util
import inspect
from pathlib import Path

import pytest
from beartype.door import is_bearable

FOLDER = Path(__file__).parent / "typing"


def check(value, expected):
    assert is_bearable(value, expected), f"expected {expected}, found {type(value)}: {value!r}"
    return value


def load(path):
    spec = importlib.util.spec_from_file_location(f"typed_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def programs():
    """The functions of all programs that take nothing, those of mistakes excepted."""
    for path in sorted(FOLDER.glob("*.py")):
        if path.stem == "mistakes":
            continue
        module = load(path)
        module.assert_type = check
        for name, function in inspect.getmembers(module, inspect.isfunction):
            own = function.__module__ == module.__name__
            if own and not inspect.signature(function).parameters:
                yield pytest.param(function, id=f"{path.stem}.{name}")


@pytest.mark.parametrize("function", [*programs()])
def test_program_runs_and_its_types_are_true(function):
    function()


def test_check_refuses_another_type():
    with pytest.raises(AssertionError, match="expected <class 'str'>, found <class 'int'>: 1"):
        check(1, str)
