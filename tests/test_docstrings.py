"""Every public class and function says what it does and shows it by an example that runs.

The examples themselves are run by `--doctest-modules`. What has no docstring of its own, a constant
or the alias of a type, is no class and no function and not looked at.
"""

import importlib
import inspect
import pkgutil
import types

import pytest

import weft

IMPLEMENTATION = {
    "weft.nn": {"weft.nn.initializers"},
    "weft.train": {"weft.train.optimizer"},
    "weft.train.metrics": set(),
    "weft.tools": set(),
    "weft.tools.weights": set(),
    "weft.migrate": set(),
    "weft.tools.debug": set(),
    "weft.bridge": {"weft.bridge.wrappers"},
}
"""Of these packages the files are public only as far as the packages hand their names on; but for
the files listed."""


def is_public(info):
    if any(part.startswith("_") for part in info.name.split(".")):
        return False
    package = info.name.rpartition(".")[0]
    return info.ispkg or info.name in IMPLEMENTATION.get(package, {info.name})


def comes_from(value, package):
    module = getattr(value, "__module__", None) or ""
    return module == package or module.startswith(f"{package}.")


def names_of(module):
    """The classes and functions of a module: those it defines, or all if it only hands on names."""
    values = [getattr(module, name) for name in dir(module) if not name.startswith("_")]
    ours = [
        value
        for value in values
        if (inspect.isroutine(value) or isinstance(value, type)) and comes_from(value, "weft")
    ]
    defined = [value for value in ours if comes_from(value, module.__name__)]
    return ours if hasattr(module, "__path__") or not defined else defined


def public():
    """Public classes and functions by the name of where they are defined."""
    infos = filter(is_public, pkgutil.walk_packages(weft.__path__, "weft."))
    modules = [weft, *(importlib.import_module(info.name) for info in infos)]
    return {
        f"{value.__module__}.{value.__qualname__}": value
        for module in modules
        for value in names_of(module)
    }


PUBLIC = public()


def methods_of(kind):
    """The methods and properties that a class defines under a public name."""
    for name, member in vars(kind).items():
        member = getattr(member, "__func__", member)  # class and static methods
        if not name.startswith("_") and isinstance(member, (types.FunctionType, property)):
            yield name, member


def test_public_names_are_found():
    assert len(PUBLIC) > 250
    assert {
        "weft.nn.linear.Linear",
        "weft._lift.jit.jit.jit",
        "weft.train.metrics.metric.Metric",
    } <= {*PUBLIC}
    assert "weft.nn.conv.channels_last" not in PUBLIC


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_documented_with_an_example(name):
    documentation = vars(PUBLIC[name]).get("__doc__") or PUBLIC[name].__doc__ or ""
    assert ">>> " in documentation, f"{name} has no example in its docstring"


def test_methods_are_documented():
    missing = [
        f"{name}.{method}"
        for name, value in PUBLIC.items()
        if isinstance(value, type)
        for method, member in methods_of(value)
        if not inspect.getdoc(member) and not inspect.getdoc(getattr(value, method))
    ]
    assert missing == []
