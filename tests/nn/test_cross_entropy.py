"""`nnx.linear_cross_entropy` against the loss of logits in memory."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding

import weft as nnx
from tests.devices import make_mesh

P = jax.P
loss = nnx.linear_cross_entropy


def plain(
    hidden,
    kernel,
    labels,
    bias=None,
    *,
    weights=None,
    reduction="mean",
    ignore_index=-100,
    label_smoothing=0.0,
    z_loss=0.0,
    logit_cap=None,
    transposed=False,
):
    """The same with all logits in memory."""
    logits = hidden @ (kernel.T if transposed else kernel)
    if bias is not None:
        logits = logits + bias
    if logit_cap is not None:
        logits = logit_cap * jnp.tanh(logits / logit_cap)
    counts = labels != ignore_index
    vocabulary = logits.shape[-1]
    targets = jax.nn.one_hot(jnp.where(counts, labels, 0), vocabulary, dtype=logits.dtype)
    targets = (1 - label_smoothing) * targets + label_smoothing / vocabulary
    log = jax.nn.logsumexp(logits, -1)
    losses = log - (targets * logits).sum(-1) + z_loss * log**2
    weights = jnp.where(counts, 1.0 if weights is None else weights, 0.0)
    if reduction == "none":
        return losses * weights
    total, count = (losses * weights).sum(), weights.sum()
    return total if reduction == "sum" else total / jnp.where(count == 0, 1.0, count)


def operands(tokens=(4, 6), features=8, vocabulary=16, transposed=False, seed=0):
    """Hidden, kernel, bias, weights, and labels some of which do not count."""
    random = np.random.default_rng(seed)
    shape = (vocabulary, features) if transposed else (features, vocabulary)
    arrays = [random.normal(size=s) for s in ((*tokens, features), shape, (vocabulary,))]
    labels = random.integers(0, vocabulary, tokens)
    labels = np.where(random.uniform(size=tokens) < 0.2, -100, labels)
    arrays.append(random.uniform(size=tokens))
    return [jnp.asarray(x, jnp.float32) for x in arrays], jnp.asarray(labels, jnp.int32)


def results(function, arrays, labels, **options):
    """Value and gradients, with a cotangent of its own for each loss."""

    def total(hidden, kernel, bias, weights):
        losses = function(hidden, kernel, labels, bias, weights=weights, **options)
        return jnp.sum(losses * jnp.cos(jnp.arange(losses.size)).reshape(losses.shape))

    return jax.value_and_grad(total, range(4))(*arrays)


def assert_close(found, expected, tolerance=1e-5):
    def close(a, b):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * max(1, np.abs(b).max()))

    jax.tree.map(close, found, expected)


OPTIONS = {
    "": {},
    "smoothed": {"label_smoothing": 0.1},
    "z-loss": {"z_loss": 0.01},
    "capped": {"logit_cap": 2.0},
    "all": {"label_smoothing": 0.1, "z_loss": 0.01, "logit_cap": 2.0},
}


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_is_the_loss_of_logits(options, reduction):
    arrays, labels = operands()
    expected = results(plain, arrays, labels, reduction=reduction, **options)
    for sizes in ({}, {"chunk_size": 6}, {"chunk_size": 6, "vocab_chunk_size": 5}):
        found = results(loss, arrays, labels, reduction=reduction, **options, **sizes)
        assert_close(found, expected)
        value = loss(arrays[0], arrays[1], labels, reduction=reduction, **options, **sizes)
        assert_close(value, plain(*arrays[:2], labels, reduction=reduction, **options))


@settings(max_examples=10)
@given(
    tokens=st.lists(st.integers(1, 7), max_size=3),
    features=st.integers(1, 5),
    vocabulary=st.integers(1, 12),
    chunk_size=st.integers(1, 20),
    vocab_chunk_size=st.integers(1, 13),
    reduction=st.sampled_from(["mean", "sum", "none"]),
    transposed=st.booleans(),
    options=st.sampled_from([{}, OPTIONS["all"]]),
    seed=st.integers(0, 99),
)
def test_any_shapes_and_chunks(
    tokens, features, vocabulary, chunk_size, vocab_chunk_size, reduction, transposed, options, seed
):
    arrays, labels = operands(tuple(tokens), features, vocabulary, transposed, seed)
    options = {**options, "reduction": reduction, "transposed": transposed}
    sizes = {"chunk_size": chunk_size, "vocab_chunk_size": vocab_chunk_size}
    (value, found), (same, expected) = (
        results(loss, arrays, labels, **options, **sizes),
        results(plain, arrays, labels, **options),
    )
    assert_close((value, found[:3]), (same, expected[:3]))
    assert_close(found[3], expected[3], 1e-4)  # differences of losses


def test_equals_optax():
    arrays, labels = operands()
    labels = jnp.abs(labels) % 16
    logits = arrays[0] @ arrays[1]
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    assert_close(loss(*arrays[:2], labels, reduction="none", chunk_size=6), losses)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_low_precision_is_summed_in_float32(dtype):
    (hidden, kernel, _, _), labels = operands((64,), 32, 50)
    low = [x.astype(dtype) for x in (hidden, kernel)]
    wide = [x.astype(jnp.float32) for x in low]
    for sizes in ({}, {"chunk_size": 16}, {"chunk_size": 16, "vocab_chunk_size": 20}):
        value, grads = jax.jit(
            jax.value_and_grad(lambda h, k: loss(h, k, labels, **sizes), (0, 1))  # noqa: B023
        )(*low)
        same, expected = jax.value_and_grad(lambda h, k: plain(h, k, labels), (0, 1))(*wide)
        assert value.dtype == jnp.float32
        assert_close(value, same, 1e-5)
        for found, exact in zip(grads, expected, strict=True):
            assert found.dtype == dtype
            error = jnp.abs(found.astype(jnp.float32) - exact).max() / jnp.abs(exact).max()
            assert error < 2 * float(jnp.finfo(dtype).eps)


def test_small_gradients_survive_loss_scaling_in_float16():
    (hidden, kernel, _, _), labels = operands((8,), 4, 6)
    low = hidden.astype(jnp.float16), kernel.astype(jnp.float16)
    scaled = jax.grad(lambda h, k: loss(h, k, labels, weights=jnp.full(8, 1e-9)) * 1024, (0, 1))
    usual = jax.grad(lambda h, k: loss(h, k, labels) * 1024, (0, 1))
    jax.tree.map(lambda a, b: assert_close(a, b, 2e-3), scaled(*low), usual(*low))


def test_a_computation_dtype():
    (hidden, kernel, _, _), labels = operands()
    value = loss(hidden.astype(jnp.bfloat16), kernel, labels, dtype=jnp.bfloat16)
    assert_close(value, plain(hidden, kernel, labels), 1e-2)
    grad = jax.grad(lambda k: loss(hidden, k, labels, dtype=jnp.bfloat16))(kernel)
    assert grad.dtype == jnp.float32
    with jax.enable_x64(True):
        wide = loss(hidden.astype(jnp.float64), kernel.astype(jnp.float64), labels)
        assert wide.dtype == jnp.float64


def test_what_does_not_count_may_be_nan():
    (hidden, kernel, _, _), labels = operands((6,))
    labels = labels.at[0].set(-100).at[1].set(3)
    mask = jnp.arange(6) != 1
    spoilt = hidden.at[:2].set(jnp.nan)
    for options in ({}, {"chunk_size": 2}, {"reduction": "none"}):
        total = lambda h, k: loss(h, k, labels, weights=mask, **options).sum()  # noqa: B023, E731
        found = jax.value_and_grad(total, (0, 1))(spoilt, kernel)
        expected = jax.value_and_grad(total, (0, 1))(hidden, kernel)
        assert_close(found, expected)
        assert not found[1][0][:2].any()


def test_nothing_that_counts_is_a_loss_of_zero():
    (hidden, kernel, _, _), labels = operands((3,))
    nothing = jnp.full_like(labels, 7)
    value, grad = jax.value_and_grad(lambda h: loss(h, kernel, nothing, ignore_index=7))(hidden)
    assert value == 0 and not grad.any()


@pytest.mark.parametrize("label", [-1, 16])
def test_a_label_outside_of_the_vocabulary_is_not_passed_over(label):
    (hidden, kernel, _, _), labels = operands((3,))
    value, grad = jax.value_and_grad(lambda k: loss(hidden, k, labels.at[1].set(label)))(kernel)
    assert math.isnan(value) and jnp.isnan(grad).all()
    losses = loss(hidden, kernel, labels.at[1].set(label), reduction="none")
    assert jnp.isnan(losses).tolist() == [False, True, False]


def test_columns_may_be_masked_by_a_bias():
    (hidden, kernel, _, _), labels = operands((5,), vocabulary=8)
    labels = labels % 4
    bias = jnp.where(jnp.arange(8) < 4, 0.0, -jnp.inf)
    for size in (8, 3):
        found = jax.value_and_grad(
            lambda h: loss(h, kernel, labels, bias, vocab_chunk_size=size)  # noqa: B023
        )(hidden)
        expected = jax.value_and_grad(lambda h: plain(h, kernel[:, :4], labels))(hidden)
        assert_close(found, expected)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint32", "int32"])
def test_labels_of_any_integers(dtype):
    (hidden, kernel, _, _), labels = operands()
    labels = jnp.abs(labels) % 16
    assert_close(loss(hidden, kernel, labels.astype(dtype)), plain(hidden, kernel, labels))


def test_numpy_and_lists():
    (hidden, kernel, bias, _), labels = operands((3,))
    given = (np.asarray(hidden), nnx.Param(kernel), labels.tolist(), nnx.Param(bias))
    assert_close(loss(*given, weights=[1.0, 0.0, 1.0]), loss(*given, weights=[True, False, True]))


# -- models


class Tied(nnx.Module):
    """A model whose table is the last layer as well."""

    def __init__(self, rngs):
        self.embedding = nnx.Embed(16, 8, rngs=rngs)
        self.layer = nnx.Linear(8, 8, rngs=rngs)


@pytest.mark.parametrize("jit", [nnx.jit, lambda f: f])
def test_a_tied_table_gets_both_gradients(jit):
    tokens = jnp.arange(12).reshape(2, 6)

    def found(model):
        hidden = model.layer(model.embedding(tokens))
        return loss(hidden, model.embedding.embedding, tokens, transposed=True, chunk_size=4)

    def expected(model):
        logits = model.embedding.attend(model.layer(model.embedding(tokens)))
        return optax.softmax_cross_entropy_with_integer_labels(logits, tokens).mean()

    model = Tied(nnx.Rngs(0))
    results = [jit(nnx.value_and_grad(f))(model) for f in (found, expected)]
    values, grads = zip(*results, strict=True)
    assert_close(*values)
    assert_close(*map(nnx.to_pure_dict, grads))


def test_frozen_kernels_cost_nothing():
    """A product less, and no gradient in memory."""
    hidden, kernel = (jax.ShapeDtypeStruct(s, jnp.float32) for s in ((512, 16), (16, 400)))
    labels = jnp.arange(512) % 400
    products = {}
    for wrt in ((0, 1), (0,), (1,)):
        grad = jax.grad(lambda h, k: loss(h, k, labels, chunk_size=64), wrt)
        text = jax.jit(grad).lower(hidden, kernel).compile().as_text()
        products[wrt] = text.count(" dot(")
    assert products == {(0, 1): 3, (0,): 2, (1,): 2}


def test_peak_is_a_fraction_of_the_logits():
    (hidden, kernel, _, _), labels = operands((1024,), 8, 4000)

    def temporary(function, **options):
        total = lambda h, k: function(h, k, labels, **options).sum()  # noqa: E731
        grad = jax.value_and_grad(total, (0, 1))
        return jax.jit(grad).lower(hidden, kernel).compile().memory_analysis().temp_size_in_bytes

    logits = 4 * 1024 * 4000
    assert temporary(plain) > logits
    assert temporary(loss, chunk_size=64) < logits / 4
    assert temporary(loss, chunk_size=64, reduction="none") < logits / 4
    assert temporary(loss, chunk_size=64, vocab_chunk_size=500) < logits / 16


# -- transformations


def test_vmap():
    arrays, labels = operands()
    run = functools.partial(results, loss, chunk_size=2, reduction="none")
    found = jax.vmap(lambda h, w, y: run([h, *arrays[1:3], w], y))(arrays[0], arrays[3], labels)
    for i in range(4):
        each = [arrays[0][i], *arrays[1:3], arrays[3][i]]
        assert_close(jax.tree.map(lambda x: x[i], found), run(each, labels[i]))  # noqa: B023


def test_remat():
    arrays, labels = operands()
    again = jax.checkpoint(lambda h, k: loss(h, k, labels, chunk_size=6))
    once = lambda h, k: loss(h, k, labels, chunk_size=6)  # noqa: E731
    grads = (jax.grad(f, (0, 1))(*arrays[:2]) for f in (again, once))
    assert_close(*grads)


@pytest.mark.parametrize("sizes", [{}, {"chunk_size": 2, "vocab_chunk_size": 3}])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_second_derivatives(sizes, reduction):
    (hidden, kernel, _, _), labels = operands((4,), 3, 5)

    def twice(function, **options):
        def first(h, k):
            return jnp.sum(function(h, k, labels, reduction=reduction, **options) ** 2)

        def second(h, k):
            return sum(jnp.sum(jnp.sin(g)) for g in jax.grad(first, (0, 1))(h, k))

        return jax.grad(second, (0, 1))(hidden, kernel), jax.hessian(first)(hidden, kernel)

    assert_close(twice(loss, **sizes), twice(plain), 3e-5)


def test_forward_mode_is_refused():
    (hidden, kernel, _, _), labels = operands()
    with pytest.raises(TypeError, match="can't apply forward-mode"):
        jax.jvp(lambda h: loss(h, kernel, labels), (hidden,), (hidden,))


# -- meshes


KERNELS = {
    "replicated": ((None, None), (None,)),
    "over the vocabulary": ((None, "model"), ("model",)),
    "over features": (("model", None), (None,)),
    "over both": (("data", "model"), ("model",)),
}
HIDDEN = {
    "over the batch": ("data", None, None),
    "over positions": (None, "data", None),
    "over all": (("data", "model"), None, None),
    "over features": ("data", None, "model"),
}


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("of_kernel", KERNELS)
def test_meshes(of_kernel, kind):
    arrays, labels = operands()
    expected = {
        reduction: results(plain, arrays, labels, reduction=reduction, **OPTIONS["all"])
        for reduction in ("mean", "none")
    }
    mesh = make_mesh((2, 2), ("data", "model"), axis_types=(kind,) * 2)
    kernel, bias = KERNELS[of_kernel]
    for name, hidden in HIDDEN.items():
        # All ways of cutting with all placements would take minutes.
        sizes: dict[str, int] = {"chunk_size": 5} if hidden[0] else {"chunk_size": 8}
        reductions = expected if name == "over the batch" else ["mean"]
        with jax.set_mesh(mesh):
            places = (hidden, kernel, bias, hidden[:2])
            put = [
                jax.device_put(x, NamedSharding(mesh, P(*place)))
                for x, place in zip(arrays, places, strict=True)
            ]
            given = jax.device_put(labels, NamedSharding(mesh, P(*hidden[:2])))
            for reduction in reductions:
                run = functools.partial(results, loss, reduction=reduction, **OPTIONS["all"])
                found = jax.jit(functools.partial(run, **sizes))(put, given)
                assert_close(found, expected[reduction], 3e-5)
                if kind is AxisType.Explicit:
                    specs = [jax.typeof(x).sharding.spec for x in found[1]]
                    assert specs == [jax.typeof(x).sharding.spec for x in put]


@pytest.mark.parametrize("checked", [True, False])
@pytest.mark.parametrize("sizes", [{}, {"chunk_size": 5, "vocab_chunk_size": 5}])
@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_shard_map(reduction, sizes, checked):
    """Tokens over one axis, and the vocabulary over another."""
    arrays, labels = operands()
    mesh = make_mesh((2, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    options: dict[str, Any] = {"reduction": reduction, **OPTIONS["all"]}

    def total(function, hidden, kernel, bias, weights, labels, **options):
        losses = function(hidden, kernel, labels, bias, weights=weights, **options)
        return jnp.sum(losses**2) if reduction == "none" else losses

    def shards(over_vocabulary):
        given = {**options, **sizes}
        if over_vocabulary:
            given["axis_name"] = "model"
        model = "model" if over_vocabulary else None
        tokens = P("data")
        f = lambda *args: jax.lax.psum(total(loss, *args, **given), "data")  # noqa: E731
        specs = (tokens, P(None, model), P(model), tokens, tokens)
        return jax.shard_map(f, mesh=mesh, in_specs=specs, out_specs=P(), check_vma=checked)

    once = jax.value_and_grad(functools.partial(total, plain, **options), range(4))
    expected = once(*arrays, labels)
    for over_vocabulary in (False, True):
        mapped = jax.jit(jax.value_and_grad(shards(over_vocabulary), range(4)))
        assert_close(mapped(*arrays, labels), expected, 3e-5)


# -- errors


def call(**changes):
    arrays, labels = operands()
    given = {"hidden": arrays[0], "kernel": arrays[1], "labels": labels} | changes
    return loss(**given)


ERRORS = {
    "a kernel of other features": (
        {"kernel": np.ones((7, 16), np.float32)},
        r"hidden of shape \(\.\.\., features\) and a kernel of shape \(features, vocabulary\), "
        r"found hidden \(4, 6, 8\), kernel \(7, 16\), labels \(4, 6\): project `hidden`",
    ),
    "a kernel the other way around": (
        {"kernel": np.ones((16, 8), np.float32)},
        r"kernel \(16, 8\), .*: the kernel is the other way around, write `transposed=True`",
    ),
    "a kernel not transposed": (
        {"transposed": True},
        r"of shape \(vocabulary, features\), .* write `transposed=False`",
    ),
    "hidden without features": ({"hidden": np.float32(1)}, r"hidden \(\), kernel"),
    "other labels": (
        {"labels": np.zeros(24, np.int32)},
        r"labels of shape \(4, 6\), .* found .*labels \(24,\): .*`labels.reshape\(\(4, 6\)\)`",
    ),
    "a bias of another size": (
        {"bias": np.ones(8, np.float32)},
        r"a bias of shape \(16,\), .*, found \(8,\) beside kernel \(8, 16\): write "
        r"`bias.reshape\(16\)`",
    ),
    "weights of another shape": (
        {"weights": np.ones(5, np.float32)},
        r"weights that broadcast to the labels \(4, 6\), found \(5,\): .*"
        r"`weights.reshape\(\(4, 6\)\)`",
    ),
    "an unknown reduction": (
        {"reduction": "average"},
        r'reduction to be "mean", "sum" or "none", found \'average\': write `reduction="mean"`',
    ),
    "too much smoothing": ({"label_smoothing": 10}, r"from 0 to 1, found 10: .*`label_smoothing="),
    "a z-loss below zero": ({"z_loss": -1e-3}, r"from 0, found -0.001: write .*`z_loss=1e-4`"),
    "no vocabulary": (
        {"kernel": np.ones((8, 0), np.float32)},
        r"at least one column, found kernel \(8, 0\): make the layer with `out_features`",
    ),
    "a cap of nothing": ({"logit_cap": 0.0}, r"over 0, found 0\.0: write `logit_cap=None`"),
    "chunks of nothing": ({"chunk_size": 0}, r"expects chunk_size to be an int of 1 or more"),
}


@pytest.mark.parametrize("changes, message", ERRORS.values(), ids=ERRORS)
def test_errors(changes, message):
    with pytest.raises(ValueError, match=message):
        call(**changes)


@pytest.mark.parametrize("shape", [(0,), (2, 0), (0, 3)])
def test_no_tokens_are_a_loss_of_zero(shape):
    hidden, kernel = jnp.ones((*shape, 3)), jnp.ones((3, 5))
    labels = jnp.zeros(shape, int)
    for reduction in ("mean", "sum", "none"):
        run = lambda h, k: nnx.linear_cross_entropy(h, k, labels, reduction=reduction).sum()  # noqa: B023, E731
        loss, grads = jax.jit(jax.value_and_grad(run, (0, 1)))(hidden, kernel)
        assert loss == 0 and not grads[1].any() and grads[0].shape == hidden.shape
    none = nnx.linear_cross_entropy(hidden, kernel, labels, reduction="none")
    assert none.shape == shape and none.dtype == jnp.float32


@pytest.mark.parametrize("name", ["label_smoothing", "z_loss", "logit_cap"])
def test_factors_are_compiled_in(name):
    loss = lambda value: nnx.linear_cross_entropy(*INPUTS, **{name: value})  # noqa: E731
    with pytest.raises(TypeError, match=rf"{name} to be a number, .*static_argnames='{name}'"):
        jax.jit(loss)(0.1)


def test_axes_that_are_not_there():
    with pytest.raises(ValueError, match="axis_name='v', which is no mapped axis here: it is for"):
        nnx.linear_cross_entropy(*INPUTS, axis_name="v")
    with pytest.raises(ValueError, match="token_axes='data', and there is no mesh: compute"):
        nnx.linear_cross_entropy(*INPUTS, token_axes="data")


def test_what_is_no_array():
    hidden, kernel, labels = INPUTS
    head = nnx.Linear(3, 5, rngs=nnx.Rngs(0))
    with pytest.raises(TypeError, match=r"kernel to be an array or a .*a Linear: write `head.k"):
        nnx.linear_cross_entropy(hidden, head, labels)
    with pytest.raises(TypeError, match=r"labels to be an array or a Variable, found None: write"):
        nnx.linear_cross_entropy(hidden, kernel, None)


INPUTS = np.ones((2, 3), np.float32), np.ones((3, 5), np.float32), np.array([0, 4])


def test_labels_that_are_no_integers():
    with pytest.raises(TypeError, match=r"found float32: cast them, `labels.astype\(jnp.int32\)`"):
        call(labels=jnp.zeros((4, 6)))
    with pytest.raises(TypeError, match="vocab_chunk_size to be an int"):
        call(vocab_chunk_size=1.5)
