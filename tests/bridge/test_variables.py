"""Variables of Weft as Linen variables, and back."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import weft as nnx
from tests.devices import make_mesh

meta = pytest.importorskip("flax.core.meta", reason="flax is not installed")
variables = nnx.bridge.variables

TREE = {
    "params": {"dense": {"kernel": jnp.ones((2, 3))}, "scale": jnp.ones(3)},
    "batch_stats": {"dense": {"mean": jnp.zeros(3)}},
    "arrays": {"table": jnp.ones(2)},
}


def test_collections_become_types_and_come_back():
    attributes = variables.linen_vars_to_nnx_attrs(TREE)
    assert type(attributes["dense"]["kernel"]) is nnx.Param
    assert type(attributes["dense"]["mean"]) is nnx.BatchStat
    assert isinstance(attributes["table"], jax.Array)
    back = variables.nnx_attrs_to_linen_vars(attributes)
    assert jax.tree.structure(back) == jax.tree.structure(TREE)


def test_unknown_collections_get_types():
    variable = variables.to_nnx_var("spectral_norms", 1.0)
    assert type(variable).__name__ == "spectral_norms"
    assert variables.nnx_attrs_to_linen_vars({"a": variable}) == {"spectral_norms": {"a": 1.0}}


def test_metadata_travels_in_a_box():
    def hook(variable, value):
        return value

    param = nnx.Param(jnp.ones(2), group="decay", on_get_value=hook)
    box = variables.to_linen_var(param)
    assert isinstance(box, meta.AxisMetadata)
    back = variables.to_nnx_var("params", box)
    assert type(back) is nnx.Param and back.get_metadata() == param.get_metadata()


def test_boxes_are_pytrees():
    box = nnx.bridge.NNXMeta(nnx.Param, jnp.ones(2), {"group": "a"})
    doubled = jax.jit(lambda b: jax.tree.map(lambda x: 2 * x, b))(box)
    assert doubled.metadata == {"group": "a"} and float(doubled.value[0]) == 2.0
    assert float(box.replace_boxed(jnp.zeros(2)).value[0]) == 0.0
    (path, _), *_ = jax.tree.leaves_with_path({"w": box})
    assert jax.tree_util.keystr(path) == "['w'].value"


def test_axes_of_boxes():
    box = nnx.bridge.NNXMeta(nnx.Param, jnp.ones((2, 3)), {"out_sharding": ("data", None)})
    assert box.get_partition_spec() == P("data", None)
    added = box.add_axis(0, {nnx.PARTITION_NAME: "layers"})
    assert added.metadata["out_sharding"] == ("layers", "data", None)
    assert added.remove_axis(0, {nnx.PARTITION_NAME: "layers"}).metadata == box.metadata
    assert box.metadata["out_sharding"] == ("data", None)


def test_unboxing_constrains_to_the_sharding():
    mesh = make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    box = nnx.bridge.NNXMeta(nnx.Param, jnp.ones((2, 3)), {"out_sharding": ("data", None)})
    assert box.unbox() is box.value
    with jax.set_mesh(mesh):
        assert jax.jit(box.unbox)().sharding.spec == P("data")
    assert nnx.bridge.NNXMeta(nnx.Param, 1.0, {}).unbox() == 1.0


def test_initializers_with_linen_boxes():
    init = nnx.bridge.with_partitioning(nnx.initializers.zeros_init(), ("data",))
    param = nnx.Param(init(jax.random.key(0), (2,)))
    assert param.out_sharding == ("data",)
    box = variables.to_linen_var(param)
    assert type(box) is meta.Partitioned and box.names == ("data",) and box.mesh is None
    np.testing.assert_array_equal(variables.to_nnx_var("params", box).value, [0.0, 0.0])


# -- the package
def test_unknown_names():
    with pytest.raises(AttributeError, match=r"module 'weft\.bridge' has no attribute 'nope'"):
        _ = nnx.bridge.nope
    assert {"ToNNX", "ToLinen", "initializers"} <= set(dir(nnx.bridge))


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_flax_is_imported_when_it_is_used():
    code = "import sys, weft; weft.bridge.initializers; assert 'flax' not in sys.modules"
    assert run(code).returncode == 0


def test_without_flax_the_error_says_what_to_install():
    code = "import sys, weft; sys.modules['flax'] = None; weft.bridge.ToNNX"
    result = run(code)
    assert "needs Flax" in result.stderr and "pip install 'weft[flax]'" in result.stderr
