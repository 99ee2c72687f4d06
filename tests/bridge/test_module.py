"""What code asks about the second kind of Module that the NNX API has."""

import subprocess
import sys

import weft as nnx
from weft.bridge import module


def test_no_module_of_that_kind_is_being_called():
    assert module.current_module is nnx.bridge.current_module
    assert module.current_module() is None

    @nnx.jit
    def inside(model):
        assert nnx.bridge.current_module() is None
        return model.n[...]

    assert inside(nnx.Dict(n=nnx.Variable(1))) == 1


def test_it_asks_for_no_flax():
    code = (
        "import sys; sys.modules['flax'] = None\n"
        "import weft; assert weft.bridge.module.current_module() is None\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
