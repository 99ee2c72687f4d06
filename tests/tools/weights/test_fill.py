"""Weights come to their devices one after another, and all or none are written."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import weft as nnx

from ...devices import devices
from .models import array, equal, linear, net, saved, state, values


def test_an_error_while_reading_changes_nothing(tmp_path):
    file = tmp_path / "a.safetensors"
    nnx.save(file, a=linear(), b=linear())
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    model = {"a": linear(), "b": linear()}
    nnx.load_weights(model, {f"{x}.{k}": v for x in "ab" for k, v in state().items()})
    before = values(model)
    rules = {"{x}.kernel": nnx.Into("{x}.kernel", axes=(1, 0))}
    with pytest.raises(nnx.CheckpointError, match="do not have the checksum"):
        nnx.load_weights(model, file, rules)
    assert all((values(model)[path] == x).all() for path, x in before.items())


def test_an_error_of_a_function_names_both_sides():
    def load(x):
        if x.any():
            raise ValueError("odd")
        return x

    with pytest.raises(nnx.StructureError, match=r"w of the mapping cannot become kernel, .*: odd"):
        nnx.load_weights(
            linear(use_bias=False), {"w": array(3, 2)}, {"w": nnx.Into("kernel", load=load)}
        )


def test_integers_keep_their_values():
    for model in ({"a": nnx.Param(jnp.zeros(2, jnp.int8))}, [nnx.Param(np.zeros(2, np.uint8))]):
        name = "a" if isinstance(model, dict) else "0"
        nnx.load_weights(model, {name: np.array([0, 127], np.int64)})
        with pytest.raises(nnx.StructureError, match=r"int8, which has no (300|-300), and nothing"):
            nnx.load_weights(model, {name: np.array([1, -300 if name == "0" else 300])})
        assert nnx.state(model)[name if name == "a" else 0][1] == 127


def test_other_errors_of_a_function_say_which_rule():
    rules = {"w": nnx.Into("kernel", load=lambda x: {}["scale"])}
    with pytest.raises(KeyError) as caught:
        nnx.load_weights(linear(), {"w": array(2, 3), "bias": array(3)}, rules)
    assert caught.value.__notes__ == ["in `load` of 'w', given zeros or w"]


def test_some_layers_of_a_stack(tmp_path):
    model = net(0)
    before = values(model)["blocks", "stacked", "up", "bias"]
    nnx.load_weights(model, {"blocks.1.up.bias": array(3)}, strict=False)
    found = model.blocks.stacked.up.bias[...]
    assert (found[1] == array(3)).all() and (found[0] == before[0]).all()
    abstract = nnx.eval_shape(lambda: net(0))
    with pytest.raises(nnx.StructureError, match="of 2 layers in an abstract model, of which the"):
        nnx.load_weights(abstract, {"blocks.1.up.bias": array(3)}, strict=False)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_sharded_models(kind, tmp_path):
    mesh = jax.sharding.Mesh(np.array(devices(2)), ("m",), axis_types=(kind,))

    def make(names=("m", None, "m")):
        def linear(rngs):
            return nnx.Linear(2, 4, rngs=rngs, kernel_metadata={"out_sharding": names[1:]})

        rngs = nnx.Rngs(0 if names[0] else 1)
        stacks = [nnx.Stack(linear, 2, rngs=rngs, partition=name) for name in (names[0], None)]
        return {"a": stacks[0], "b": stacks[1], "c": linear(rngs)}

    source = make((None, None, None))
    file = saved(source, tmp_path)
    with jax.set_mesh(mesh):
        model = nnx.eval_shape(lambda: make(("m", None, None)) | {"c": make()["c"]})
        model["b"] = nnx.eval_shape(lambda: make((None, None, "m"))["b"])
        nnx.load_weights(model, file)
    assert equal(source, model)
    kernels = [model["a"].stacked.kernel, model["b"].stacked.kernel, model["c"].kernel]
    shards = [kernel.get_value().addressable_shards for kernel in kernels]
    # A mesh of explicit axes shards no axis that vmap adds: the abstract array says so.
    layers = 1 if kind is AxisType.Auto else 2
    assert [[x.data.shape for x in two] for two in shards] == [
        [(layers, 2, 4)] * 2,
        [(2, 2, 2)] * 2,
        [(2, 2)] * 2,
    ]
    assert kernels[1].get_value().sharding == NamedSharding(mesh, PartitionSpec(None, None, "m"))


def test_a_sharded_model_that_has_values_keeps_its_places(tmp_path):
    mesh = jax.sharding.Mesh(np.array(devices(2)), ("m",))
    source, model = net(0), net(1)
    bias = model.blocks.stacked.up.bias
    bias.set_value(jax.device_put(bias[...], NamedSharding(mesh, PartitionSpec())))
    kernel = model.heads[0].kernel
    kernel.set_value(jax.device_put(kernel[...], NamedSharding(mesh, PartitionSpec(None, "m"))))
    nnx.load_weights(model, saved(source, tmp_path))
    assert kernel.get_value().sharding.spec == PartitionSpec(None, "m")
    assert equal(source, model)
    before = bias[0]
    nnx.load_weights(model, {"blocks.1.up.bias": array(3)}, strict=False)
    assert (bias[1] == array(3)).all() and (bias[0] == before).all()
    assert len(bias.get_value().addressable_shards) == 2


MEMORY = """
import resource, sys, threading, time
import jax, jax.numpy as jnp
import weft as nnx

LAYERS, SIZE = 24, 1024

class Block(nnx.Module):
    def __init__(self, rngs):
        self.linears = [nnx.Linear(SIZE, SIZE, use_bias=False, rngs=rngs) for _ in range(3)]
    def __call__(self, x):
        return x

def resident():
    for line in open("/proc/self/status"):
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024

def make(layers):
    return nnx.Stack(Block, layers, rngs=nnx.Rngs(0))

RULES = {f"{x}.{{i}}": f"[{{i}}].linears[{k}]" for k, x in enumerate("hgf")}
model = nnx.eval_shape(lambda: make(LAYERS))
first = nnx.eval_shape(lambda: make(1))
nnx.load_weights(first, sys.argv[1], RULES, strict=False)  # what XLA itself needs is not counted
before, peak, ends = resident(), 0, []
def watch():
    global peak
    while not ends:
        peak = max(peak, resident())
        time.sleep(0.001)
thread = threading.Thread(target=watch)
thread.start()
nnx.load_weights(model, sys.argv[1], RULES)
jax.block_until_ready(jax.tree.leaves(model))
ends.append(1)
thread.join()
weights = sum(x.nbytes for x in jax.tree.leaves(model))
print(weights, peak - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_the_memory_is_that_of_the_model_and_one_file(tmp_path):
    """A Stack of 300 MB in three Variables of 24 layers, from 8 files of 38 MB."""
    weights = {
        f"{x}.{i}.weight": np.full((1024, 1024), i, np.float32) for i in range(24) for x in "hgf"
    }
    names, places = list(weights), {}
    for k in range(8):
        file = f"model-{k}.safetensors"
        part = {name: weights[name] for name in names[9 * k : 9 * k + 9]}
        safetensors.numpy.save_file(part, tmp_path / file)
        places.update(dict.fromkeys(part, file))
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(str({"weight_map": places}).replace("'", '"'))
    command = [sys.executable, "-c", MEMORY, str(tmp_path)]
    ours = {"XLA_FLAGS", "JAX_DISABLE_MOST_OPTIMIZATIONS"}  # without optimizations XLA copies
    env = {name: value for name, value in os.environ.items() if name not in ours}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    model, grown = map(int, done.stdout.split())
    assert model == 72 * 4 * 2**20
    assert grown < model + model / 8, (model, grown)
