"""Loading weights of others into models, concrete, abstract, stacked and sharded."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

import weft as nnx

from .models import array, equal, linear, net, saved, state, values


def test_by_the_names_of_pytorch():
    model = linear()
    kernel = model.kernel
    report = nnx.load_weights(model, state())
    assert report.fits and model.kernel is kernel
    assert (model.kernel[...] == array(3, 2).T).all() and (model.bias[...] == array(3)).all()
    assert isinstance(model.kernel.get_value(), jax.Array)


def test_a_model_of_all_sorts(tmp_path):
    source, model = net(0), net(1)
    nnx.load_weights(model, saved(source, tmp_path))
    assert equal(source, model)
    assert model.tied is model.heads[0]


def test_an_abstract_model(tmp_path):
    source = net(0)
    model = nnx.eval_shape(lambda: net(1))
    nnx.load_weights(model, saved(source, tmp_path))
    assert equal(source, model)
    assert isinstance(model.dropout.rngs.key.get_value(), jax.ShapeDtypeStruct)  # no weight


def test_several_files_with_an_index(tmp_path):
    source, model = net(0), net(1)
    nnx.save_weights(source, tmp_path, max_shard_size=40)
    assert len(list(tmp_path.glob("*.safetensors"))) > 3
    nnx.load_weights(model, tmp_path)
    assert equal(source, model)


def test_dtypes():
    model = linear(param_dtype=jnp.bfloat16)
    nnx.load_weights(model, state())
    assert model.kernel.dtype == jnp.bfloat16
    nnx.load_weights(model, state(), dtype=jnp.float16)
    assert model.kernel.dtype == jnp.float16 and model.kernel[1, 2] == 5
    counts = {"a": nnx.Param(jnp.zeros(3, jnp.int32))}
    nnx.load_weights(counts, {"a": np.arange(3)}, dtype=jnp.float16)
    assert counts["a"].dtype == jnp.int32 and counts["a"][2] == 2
    with pytest.raises(TypeError, match=r"dtype is what floats become, found int8: `dtype=jnp.bf"):
        nnx.load_weights(model, state(), dtype=jnp.int8)


def test_a_dry_run_changes_nothing():
    model = linear()
    before = values(model)
    report = nnx.load_weights(model, {"weight": array(3, 2), "x": array(1)}, dry_run=True)
    assert not report.fits
    assert all((values(model)[path] == x).all() for path, x in before.items())


def test_all_or_nothing(tmp_path):
    model = net(0)
    before = values(model)
    bad = {**nnx.load(saved(net(1), tmp_path)), "scale": array(4), "heads.0.wieght": array(2, 3)}
    del bad["heads.0.weight"]
    with pytest.raises(nnx.StructureError) as caught:
        nnx.load_weights(model, bad)
    assert str(caught.value).splitlines() == [
        "the mapping does not fit the model, and nothing was written:",
        "  mis-shaped: scale → scale float32[4]: expected 3, for 3 in the model, found 4 (they "
        "make shape (4,))",
        "  missing: heads[0].kernel float32[3, 2]: expected as 'heads.0.weight'; did you mean "
        "'heads.0.wieght'?",
        "  unexpected: heads.0.wieght float32[2, 3]: did you mean 'heads.0.weight'?",
        "look at `nnx.load_weights(..., dry_run=True)`; say by `rules=` which name is which path, "
        "`{'h.{i}.ln_1': 'blocks[{i}].norm'}`, or None for what is to be left out; or "
        "`strict=False` takes what is in both",
    ]
    assert all((values(model)[path] == x).all() for path, x in before.items())


def test_not_strict():
    model = linear()
    bias = model.bias[...]
    nnx.load_weights(model, {"weight": array(3, 2), "x": array(1)}, strict=False)
    assert (model.kernel[...] == array(3, 2).T).all() and (model.bias[...] == bias).all()
    with pytest.raises(nnx.StructureError, match="mis-shaped: bias") as caught:
        nnx.load_weights(model, {"bias": array(2)}, strict=False)
    assert "strict=False" not in str(caught.value)
    with pytest.raises(nnx.StructureError, match="wrong: x → bias: the rule matches no name"):
        nnx.load_weights(model, {"weight": array(3, 2)}, {"x": "bias"}, strict=False)


def test_what_is_tied_is_filled_once():
    model = net(0)
    both = {"heads.0.bias": array(2), "tied.bias": array(2)}
    nnx.load_weights(model, both, strict=False)
    assert (model.tied.bias[...] == array(2)).all()
    nnx.load_weights(model, {"tied.bias": array(2, start=1)}, strict=False)
    assert (model.heads[0].bias[...] == array(2, start=1)).all()
    with pytest.raises(nnx.StructureError, match=r"'heads.0.bias' leads there as well, and is not"):
        nnx.load_weights(model, {**both, "tied.bias": array(2, start=1)}, strict=False)


def test_two_names_for_one_weight():
    model = linear()
    with pytest.raises(nnx.StructureError, match=r"wrong: b → bias: 'bias' leads there as well"):
        nnx.load_weights(model, {**state(), "b": array(3, start=1)}, {"b": "bias"})
    nnx.load_weights(model, {**state(), "b": array(3)}, {"b": "bias"})


def test_arrays_of_numpy_stay_so():
    model = {"a": np.zeros(3, np.float32)}
    with pytest.raises(nnx.StructureError, match=r"unexpected: b"):
        nnx.load_weights(model, {"b": array(3)})


def test_a_file_of_another_library(tmp_path):
    file = tmp_path / "a.safetensors"
    safetensors.numpy.save_file({"w.weight": array(3, 2), "w.bias": array(3)}, file)
    model = linear()
    nnx.load_weights(model, file, {"w": ""})
    assert (model.bias[...] == array(3)).all()
