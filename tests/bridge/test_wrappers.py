"""The wrappers, by the name that code of the NNX API imports them from."""

import subprocess
import sys

import pytest

import weft as nnx

pytest.importorskip("flax", reason="flax is not installed")


def test_wrappers_of_the_whole_package():
    assert nnx.bridge.wrappers.ToNNX is nnx.wrappers.ToNNX is nnx.bridge.ToNNX


@pytest.mark.parametrize("name", ["ToLinen", "ToNNX", "lazy_init", "to_linen"])
def test_a_wrapper_has_one_home(name):
    from weft.bridge import wrappers

    assert getattr(wrappers, name) is getattr(nnx.bridge, name)


def test_all_names_can_be_imported_without_flax():
    program = "import sys; sys.modules['flax'] = None; from weft import *; print(wrappers.ToNNX)"
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert "nnx.bridge needs Flax, whose Linen Modules it connects" in found.stderr
    program = program.replace("wrappers.ToNNX", "'Linear' in dir(), 'ToNNX' in dir(wrappers)")
    found = subprocess.check_output([sys.executable, "-c", program], text=True)
    assert found == "True True\n"
