"""Saving weights under the names of others."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
import safetensors.numpy

import weft as nnx

from .models import array, equal, linear, net, saved

RULES = {
    "h.{i}.fc": "blocks[{i}].up",
    "h.{i}.ln.{n}": "blocks[{i}].norm.{n}",
    "out": "heads[0]",
    "gain": "scale",
}


def names(file):
    return set(safetensors.numpy.load_file(file))


def test_what_others_read(tmp_path):
    model = linear()
    file = saved(model, tmp_path)
    with safetensors.safe_open(file, "numpy") as opened:
        assert opened.metadata() == {"format": "pt"}
        assert (opened.get_tensor("weight") == np.asarray(model.kernel[...]).T).all()
        assert opened.keys() == ["bias", "weight"]


def test_rules_both_ways(tmp_path):
    source, model = net(0), net(1)
    file = saved(source, tmp_path, rules=RULES)
    assert names(file) == {
        *[f"h.{i}.{x}" for i in (0, 1) for x in ("fc.weight", "fc.bias")],
        *[f"h.{i}.{x}" for i in (0, 1) for x in ("ln.weight", "ln.bias")],
        *["out.weight", "out.bias", "gain"],
        *["body.1.weight", "body.1.bias", "body.1.running_mean", "body.1.running_var"],
    }
    assert nnx.load_weights(model, file, RULES).fits
    assert equal(source, model)


def test_what_is_shared_is_written_once_or_as_rules_say(tmp_path):
    model = net(0)
    assert "tied.weight" not in names(saved(model, tmp_path))
    file = saved(model, tmp_path, rules={"one": "heads[0].kernel", "two": "tied.kernel"})
    assert {"one", "two"} < names(file) and "heads.0.weight" not in names(file)
    assert nnx.load_weights(model, file, {"one": "heads[0].kernel", "two": "tied.kernel"}).fits


def test_what_is_left_out(tmp_path):
    rules = {"h.{i}.fc.bias": None, "h.{i}.fc": "blocks[{i}].up", None: "body"}
    found = names(saved(net(0), tmp_path, rules=rules))
    assert "h.0.fc.weight" in found
    assert not any("body" in name or name.endswith("fc.bias") for name in found)


def test_the_deeper_path_counts_whatever_the_order(tmp_path):
    rules = {"a": "blocks", "b.{i}": "blocks[{i}].norm", "c.{i}": "blocks[{i}].norm.bias"}
    found = names(saved(net(0), tmp_path, rules=rules))
    assert {"a.0.up.weight", "b.1.weight", "c.1"} <= found
    assert not found & {"a.0.norm.weight", "b.1.bias", "a.0.norm.bias"}


@pytest.mark.parametrize("rules", [{"": "a"}, {"x": ""}, {"x": "a", "y": "b"}])
def test_names_as_a_whole(rules, tmp_path):
    source, model = ({"a": net(i), "b": linear()} for i in (0, 1))
    if "" in rules:
        source, model = {"a": source["a"]}, {"a": model["a"]}
    file = saved(source, tmp_path, rules=rules)
    starts = {name.split(".")[0] for name in names(file)}
    assert (
        starts
        == {"": {"x"}, "a": {"blocks", "heads", "body", "scale"}, "b": {"x", "y"}}[
            [*rules.values()][-1] if "" not in rules else "a"
        ]
    )
    assert nnx.load_weights(model, file, rules).fits
    assert equal(source["a"], model["a"])


def test_splitting_and_joining(tmp_path):
    model = {x: nnx.Linear(2, n, rngs=nnx.Rngs(n)) for x, n in (("q", 2), ("kv", 4), ("o", 2))}
    rules = {("a.q", "a.k"): nnx.Into("kv", sizes=(3, 1)), "a.qo": ["q", "o"]}
    file = saved(model, tmp_path, rules=rules)
    found = safetensors.numpy.load_file(file)
    assert {name: x.shape for name, x in found.items()} == {
        "a.q.weight": (3, 2),
        "a.q.bias": (3,),
        "a.k.weight": (1, 2),
        "a.k.bias": (1,),
        "a.qo.weight": (4, 2),
        "a.qo.bias": (4,),
    }
    assert nnx.load_weights(model, file, rules).fits


def test_a_layer_that_is_several_arrays(tmp_path):
    model = [nnx.RNN(nnx.LSTMCell(2, 3, rngs=nnx.Rngs(0)))]
    names_ = {f"rnn.{k}_{x}_l0" for k in ("weight", "bias") for x in ("ih", "hh")}
    for rules in ({"rnn": "[0]"}, {"rnn.{n}_l0": "[0].cell.{n}"}):
        file = saved(model, tmp_path, rules=rules)
        assert names(file) == names_
        assert nnx.load_weights(model, file, rules).fits


def test_a_folder(tmp_path):
    model = net(0)
    nnx.save_weights(model, tmp_path / "a" / "b")
    assert [x.name for x in (tmp_path / "a" / "b").iterdir()] == ["model.safetensors"]


def test_several_files(tmp_path):
    model = net(0)
    nnx.save_weights(model, tmp_path, max_shard_size=100)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    files = sorted(set(index["weight_map"].values()))
    assert files[0] == f"model-00001-of-{len(files):05}.safetensors" and len(files) == 3
    for file in files:
        found = safetensors.numpy.load_file(tmp_path / file)
        assert sum(x.nbytes for x in found.values()) <= 100
        assert {index["weight_map"][name] for name in found} == {file}
    assert index["metadata"]["total_size"] == 212
    with pytest.raises(ValueError, match=r"is one file, and max_shard_size=9 may need several: na"):
        nnx.save_weights(model, tmp_path / "m.safetensors", max_shard_size=9)


def test_a_folder_holds_one_model(tmp_path):
    first, second = net(0), net(1)
    (tmp_path / "config.json").touch()

    def check(model, **options):
        nnx.save_weights(model, tmp_path, **options)
        found = net(2)
        nnx.load_weights(found, tmp_path)
        assert equal(found, model)
        return sorted(x.name for x in tmp_path.iterdir())

    assert check(first) == ["config.json", "model.safetensors"]
    many = check(second, max_shard_size=40)
    assert "model.safetensors" not in many and "model.safetensors.index.json" in many
    few = check(first, max_shard_size=100)
    assert len(few) < len(many)
    assert check(second) == ["config.json", "model.safetensors"]


def test_shards_take_their_place_together(tmp_path):
    nnx.save_weights(net(0), tmp_path, max_shard_size=100)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    rules = {"z": nnx.Into("scale", load=abs, save=lambda x: x.astype("datetime64[s]"))}
    with pytest.raises(TypeError, match="safetensors has no datetime64"):
        nnx.save_weights(net(1), tmp_path, rules, max_shard_size=100)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_other_places_are_refused(tmp_path):
    for size in (0, -1, "5GB", 1.5):
        with pytest.raises(ValueError, match=f"a number of bytes, found {size!r}: write for exa"):
            nnx.save_weights(linear(), tmp_path, max_shard_size=size)
    for name in ("m.pt", "m.bin", "m.npz", "m.safetensors.index.json"):
        with pytest.raises(ValueError, match=r"the only format that is written: `nnx.save_weights"):
            nnx.save_weights(linear(), tmp_path / name)
    nnx.save_weights(linear(), tmp_path / "llama-3.1")
    assert [x.name for x in tmp_path.iterdir()] == ["llama-3.1"]


def test_low_precision(tmp_path):
    model = linear(param_dtype=jnp.bfloat16)
    assert nnx.load(saved(model, tmp_path))["weight"].dtype == jnp.bfloat16
    odd = {"a": nnx.Param(jnp.ones(2, jnp.int4))}
    with pytest.raises(TypeError, match=r"cannot save a: safetensors has no int4; cast it, `x.as"):
        saved(odd, tmp_path)


def test_what_cannot_be_saved(tmp_path):
    with pytest.raises(TypeError, match="it has no value yet, as it is abstract"):
        saved(nnx.eval_shape(linear), tmp_path)
    model = linear()
    with pytest.raises(nnx.StructureError, match=r"leads to kernle, which is not in the model: co"):
        saved(model, tmp_path, rules={"w": "kernle"})
    with pytest.raises(nnx.StructureError, match=r"leads to kernel, and also to gain, which is no"):
        saved(model, tmp_path, rules={"w": ("kernel", "gain")})
    with pytest.raises(
        nnx.StructureError, match="two weights would have the name 'bias', bias and"
    ):
        saved(model, tmp_path, rules={"bias": "kernel"})
    with pytest.raises(ValueError, match="cannot be inverted to save by"):
        saved(model, tmp_path, rules={"{x}.w": "kernel"})
    with pytest.raises(ValueError, match=r"kernel cannot be saved as v, w: axis 0, 3 long, cannot"):
        saved(model, tmp_path, rules={("v", "w"): "kernel"})
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_former_file(tmp_path):
    file = saved(linear(), tmp_path)
    before = file.read_bytes()
    rules = {"w": nnx.Into("kernel", load=abs, save=lambda x: x.astype("datetime64[s]"))}
    with pytest.raises(TypeError, match="safetensors has no datetime64"):
        nnx.save_weights(linear(), file, rules)
    assert file.read_bytes() == before


def test_sharded_models(tmp_path):
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("m",))
    model = linear()
    place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("m"))
    model.kernel.set_value(jax.device_put(jnp.asarray(array(2, 3)), place))
    assert (nnx.load(saved(model, tmp_path))["weight"] == array(2, 3).T).all()


def layers():
    """A model of every layer with weights, in many ways of making it."""
    rngs = nnx.Rngs(0)
    linear = nnx.Linear(2, 3, rngs=rngs)
    return {
        "linear_general": nnx.LinearGeneral((2, 3), (4, 5), axis=(-2, -1), rngs=rngs),
        "batched": nnx.LinearGeneral(2, 3, batch_axis={0: 4}, rngs=rngs),
        "einsum": nnx.Einsum("ab,bc->ac", (2, 3), (3,), rngs=rngs),
        "conv": nnx.Conv(4, 6, (3,), feature_group_count=2, rngs=rngs),
        "transposed": nnx.ConvTranspose(4, 6, (3, 2, 4), rngs=rngs),
        "turned": nnx.ConvTranspose(4, 6, 3, transpose_kernel=True, use_bias=False, rngs=rngs),
        "embed": nnx.Embed(5, 2, rngs=rngs),
        "norms": [
            nnx.BatchNorm(3, use_bias=False, rngs=rngs),
            nnx.LayerNorm(3, rngs=rngs),
            nnx.RMSNorm(3, rngs=rngs),
            nnx.GroupNorm(4, 2, rngs=rngs),
            nnx.InstanceNorm(4, rngs=rngs),
        ],
        "around": [
            nnx.WeightNorm(nnx.Linear(2, 3, rngs=rngs), rngs=rngs),
            nnx.SpectralNorm(nnx.Linear(2, 3, rngs=rngs), rngs=rngs),
            nnx.LoRALinear(2, 3, lora_rank=2, rngs=rngs),
        ],
        "attention": nnx.MultiHeadAttention(
            4, 8, num_kv_heads=2, in_kv_features=6, normalize_qk=True, rngs=rngs
        ),
        "self_attention": nnx.MultiHeadAttention(2, 8, use_bias=False, rngs=rngs),
        "cells": [
            nnx.LSTMCell(2, 3, rngs=rngs),
            nnx.OptimizedLSTMCell(2, 3, rngs=rngs),
            nnx.GRUCell(2, 3, rngs=rngs),
            nnx.SimpleCell(2, 3, rngs=rngs),
        ],
        "both": nnx.Bidirectional(
            nnx.RNN(nnx.GRUCell(2, 3, rngs=rngs)), nnx.RNN(nnx.LSTMCell(2, 3, rngs=rngs))
        ),
        "prelu": nnx.PReLU(),
        "stacks": nnx.Stack(
            lambda rngs: nnx.Stack(
                lambda rngs: nnx.MultiHeadAttention(2, 4, rngs=rngs), 2, rngs=rngs
            ),
            3,
            rngs=rngs,
        ),
        "twice": [linear, linear],
    }


def test_every_layer_comes_back(tmp_path):
    source = layers()
    rng = np.random.default_rng(0)
    weights = nnx.state(source, (nnx.Param, nnx.BatchStat))
    drawn = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), weights)
    nnx.update(source, drawn)
    assert source["cells"][0].hi.bias.all()
    file = saved(source, tmp_path)
    for model in (layers(), nnx.eval_shape(layers)):
        assert nnx.load_weights(model, file).fits
        assert equal(source, model)
