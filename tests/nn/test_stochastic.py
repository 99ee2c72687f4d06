"""`Dropout`, by the name that code of the NNX API imports it from."""

from __future__ import annotations

import pytest

import weft as nnx
from weft.nn import stochastic


def test_dropout_has_one_home() -> None:
    assert stochastic.Dropout is nnx.Dropout is nnx.nn.Dropout
    assert nnx.Dropout.__module__ == "weft.nn.dropout"


def test_the_module_has_names_of_annotations_and_no_others() -> None:
    assert stochastic.Array is nnx.nn.linear.Array
    with pytest.raises(AttributeError, match=r"module 'weft\.nn\.stochastic' has no attribute 'D"):
        _ = stochastic.DropOut
