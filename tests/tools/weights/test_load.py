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
    for dtype, found in ((jnp.int8, "int8"), (complex, "complex128"), ("bf16", "'bf16'")):
        with pytest.raises(TypeError, match=rf"dtype is what floats become, found {found}: `dtype"):
            nnx.load_weights(model, state(), dtype=dtype)
    with pytest.raises(TypeError, match=r"dtype=float64 is not there: JAX has it after `jax.conf"):
        nnx.load_weights(model, state(), dtype=np.float64)
    assert model.kernel.dtype == jnp.float16
    waves = {"a": nnx.Param(jnp.zeros(2, jnp.complex64))}
    nnx.load_weights(waves, {"a": np.array([1j, 2], np.complex64)}, dtype=jnp.float16)
    assert waves["a"].dtype == jnp.complex64 and waves["a"][0] == 1j


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
        "look at `nnx.load_weights(..., dry_run=True)`; where the model is to keep what it has, as "
        "for a head of another size, write the rules `{'scale': None, None: 'scale'}`; say by "
        "`rules=` which name is which path, `{'h.{i}.ln_1': 'blocks[{i}].norm'}`, or None for what "
        "is to be left out; or `strict=False` takes what is in both",
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


def test_tied_weights_may_be_nan():
    model = net(0)
    bad = array(2) * np.float32(np.nan)
    nnx.load_weights(model, {"heads.0.bias": bad, "tied.bias": bad}, strict=False)
    assert np.isnan(model.tied.bias[...]).all()


def test_rules_for_both_ends_of_what_is_tied(tmp_path):
    rules = {"head": "heads[0]", "lm": "tied"}
    source = net(0)
    file = saved(source, tmp_path, rules=rules)
    arrays = dict(nnx.load(file))
    for left in ("head", "lm", None):
        model = net(1)
        given = {name: x for name, x in arrays.items() if name.partition(".")[0] != left}
        assert nnx.load_weights(model, given, rules).fits
        assert equal(source, model)
    with pytest.raises(nnx.StructureError, match=r"wrong: x → heads\[0\]: the rule matches no"):
        nnx.load_weights(net(1), arrays, {"x": "heads[0]", **rules})


def test_a_head_of_another_size():
    def classifier(n):
        rngs = nnx.Rngs(n)
        return {"body": nnx.Linear(2, 3, rngs=rngs), "head": nnx.Linear(3, n, rngs=rngs)}

    theirs = {"m.body.weight": array(3, 2), "m.body.bias": array(3)}
    theirs |= {"m.classifier.weight": array(5, 3), "m.classifier.bias": array(5)}
    rules = {"m.classifier": "head", "m": ""}
    model = classifier(4)
    before = values(model)
    with pytest.raises(nnx.StructureError) as caught:
        nnx.load_weights(model, theirs, rules)
    remedy = {"m.classifier": None, None: "head"}
    assert f"put before the other rules `{remedy}`" in str(caught.value)
    assert nnx.load_weights(model, theirs, {**remedy, "m": ""}).fits
    after = values(model)
    assert (after["head", "kernel"] == before["head", "kernel"]).all()
    assert (after["body", "bias"] == array(3)).all()


def test_many_arrays_of_other_shapes_are_no_head():
    model = [linear() for _ in range(3)]
    theirs = {f"{i}.{name}": array(7) for i in range(3) for name in ("weight", "bias")}
    with pytest.raises(nnx.StructureError, match="mis-shaped: ") as caught:
        nnx.load_weights(model, theirs)
    assert "keep what it has" not in str(caught.value)
    both = {"joined": array(7, 7)}
    with pytest.raises(nnx.StructureError, match="mis-shaped: joined") as caught:
        nnx.load_weights(
            {"a": linear(use_bias=False), "b": linear(use_bias=False)},
            both,
            {"joined": ["a.kernel", "b.kernel"]},
        )
    assert "keep what it has" not in str(caught.value)


@pytest.mark.parametrize(
    ("model", "found"),
    [(None, "None"), ("model", "'model'"), (nnx.Linear, "the class Linear"), (3, "3")],
)
def test_what_is_no_model(model, found):
    with pytest.raises(TypeError, match=rf"loaded into a model, found {found}: make it first, `mo"):
        nnx.load_weights(model, state())


def test_loading_while_a_function_is_traced():
    model = linear()
    before = values(model)

    @nnx.jit
    def load(model, arrays):
        nnx.load_weights(model, arrays)

    for arrays in (state(), jax.tree.map(jnp.asarray, state())):
        with pytest.raises(TypeError, match=r"and (bias|weight) is traced: load outside of `nnx"):
            load(model, arrays)
    nnx.jit(lambda model: nnx.load_weights(model, state(), dry_run=True) and None)(model)
    with pytest.raises(TypeError, match=r"by value, and (bias|kernel) is traced: load outside of"):
        nnx.jit(lambda model: nnx.load_weights(model, state()) and None)(model)
    assert all((values(model)[path] == x).all() for path, x in before.items())


def test_a_compiled_function_is_not_traced_again():
    model, traces = linear(), []

    @nnx.jit
    def run(model, x):
        traces.append(1)
        return model(x)

    run(model, jnp.ones((1, 2)))
    nnx.load_weights(model, state())
    assert run(model, jnp.ones((1, 2))).tolist() == [[1.0, 6.0, 11.0]] and traces == [1]


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
