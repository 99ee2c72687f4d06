"""Names that code of the NNX API imports from the modules of layers."""

from __future__ import annotations

import importlib

import pytest

from weft.nn import initializers
from weft.nn.nnx_names import _ANYWHERE, names_for

MODULES = "activations attention linear lora normalization recurrent stochastic".split()


@pytest.mark.parametrize("name", MODULES)
def test_modules_of_layers_have_the_types_of_annotations(name: str) -> None:
    module = importlib.import_module(f"weft.nn.{name}")
    assert all(hasattr(module, found) for found in _ANYWHERE)
    with pytest.raises(AttributeError, match=f"module 'weft.nn.{name}' has no attribute 'nope'"):
        module.nope  # noqa: B018


def test_names_of_one_module() -> None:
    get = names_for("here", root="math:sqrt")
    assert get("root")(4) == 2 and get("default_kernel_init") is initializers.default_kernel_init
