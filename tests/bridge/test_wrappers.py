"""The wrappers, by the name that code of the NNX API imports them from."""

import pytest

import weft as nnx

pytest.importorskip("flax", reason="flax is not installed")


def test_wrappers_of_the_whole_package():
    assert nnx.bridge.wrappers.ToNNX is nnx.wrappers.ToNNX is nnx.bridge.ToNNX


@pytest.mark.parametrize("name", ["ToLinen", "ToNNX", "lazy_init", "to_linen"])
def test_a_wrapper_has_one_home(name):
    from weft.bridge import wrappers

    assert getattr(wrappers, name) is getattr(nnx.bridge, name)
