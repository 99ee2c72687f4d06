"""Every layer and activation in every floating point dtype: what comes out, how right, how robust.

One table says for each public name how it is made and called. In float16, bfloat16, float32 and
float64 (with x64) it is held against itself in float64, with the same parameters and inputs:

- the result has the dtype of the inputs, unless its row says otherwise;
- the error is at most a few times the dtype's epsilon, relative to the largest result;
- in float64 nothing is computed in less;
- gradients are finite for inputs of zero, for large ones of both signs, and for activations at
  infinity, where a `where` keeps infinite results out of the sum.

All rows of a dtype are one compiled program, which each kind of input runs through.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx
from tests.parity.cases import quick_init
from weft.nn import activations

DTYPES = {name: jnp.dtype(name) for name in ("float16", "bfloat16", "float32", "float64")}
LARGE = {
    "number": {"float16": 65504.0, "bfloat16": 3e38, "float32": 3e38, "float64": 1e308},
    "square": {"float16": 65504.0, "bfloat16": 1e15, "float32": 1e15, "float64": 1e140},
    "product": {"float16": 1e3, "bfloat16": 1e30, "float32": 1e30, "float64": 1e290},
    "logit": {"float16": 20.0, "bfloat16": 1e3, "float32": 1e3, "float64": 1e7},
}
"""Large inputs: as large as there are, or such that a dtype holds what a layer makes of them: norms
square them, in float32 at least, others sum products of them. The logits of attention are squares,
whose differences must not be rounding errors alone: XLA may compute a logit twice, and not alike.
"""

X = (2, 4)
IMAGE = (2, 6, 6, 4)


@dataclasses.dataclass(frozen=True)
class Row:
    """One name of the table.

    Attributes:
      make: makes what is called, of a dtype and streams.
      shapes: the shapes of the inputs.
      multiple: of how many epsilons the error may be, relative to the largest result.
      low: the dtype of results in float16 and bfloat16, None for the same.
      large: how large inputs may be, a key of `LARGE`.
      infinite: whether infinities are tried as inputs.
    """

    make: Callable[[Any, nnx.Rngs], Any]
    shapes: tuple[tuple[int, ...], ...] = (X,)
    multiple: float = 4.0
    low: str | None = None
    large: str = "product"
    infinite: bool = False


def layer(name: str, *args: Any, **options: Any) -> Callable[[Any, nnx.Rngs], Any]:
    """Makes a layer of a dtype; its initializers compile nothing."""
    kind = getattr(nnx, name)
    taken = inspect.signature(kind.__init__).parameters
    for init in ("kernel_init", "recurrent_kernel_init", "bias_init", "embedding_init"):
        if init in taken:
            options.setdefault(init, quick_init)

    def make(dtype: Any, rngs: nnx.Rngs) -> Any:
        given = {**options, "param_dtype": dtype, "rngs": rngs}
        return kind(*args, **{n: v for n, v in given.items() if n in taken})

    return make


def around(name: str, inner: Callable[[Any, nnx.Rngs], Any], **options: Any) -> Any:
    """Makes a layer that has another one in it."""

    def make(dtype: Any, rngs: nnx.Rngs) -> Any:
        return layer(name, inner(dtype, rngs), **options)(dtype, rngs)

    return make


def function(f: Callable[..., Any]) -> Callable[[Any, nnx.Rngs], Any]:
    return lambda dtype, rngs: f


class Step(nnx.Module):
    """One step of a cell, from a carry of ones."""

    def __init__(self, cell: Any):
        self.cell = cell

    def __call__(self, x: jax.Array) -> Any:
        carry = self.cell.initialize_carry(x.shape)
        return self.cell(jax.tree.map(jnp.ones_like, carry), x)


class Attend(nnx.Module):
    def __init__(self, embed: nnx.Embed):
        self.embed = embed

    def __call__(self, x: jax.Array) -> Any:
        return self.embed(jnp.array([0, 2])), self.embed.attend(x)


def cell(name: str) -> Row:
    def make(dtype: Any, rngs: nnx.Rngs) -> Any:
        return Step(layer(name, 4, 3, dtype=None)(dtype, rngs))

    return Row(make, multiple=8)


def attention(f: Callable[..., Any] = nnx.dot_product_attention, **options: Any) -> Row:
    call = lambda q, k, v: f(q, k, v, **{n: make(q.dtype) for n, make in options.items()})  # noqa: E731
    return Row(function(call), ((2, 5, 2, 4),) * 3, multiple=8, large="logit")


def stack(dtype: Any, rngs: nnx.Rngs) -> Any:
    return nnx.Stack(lambda rngs: layer("Linear", 4, 4)(dtype, rngs), n=2, rngs=rngs)


BELOW = np.tril(np.ones((5, 5), bool), -1)
"""A mask by which the first query sees no key."""

LAYERS = {
    "AdaptiveAvgPool": Row(function(nnx.AdaptiveAvgPool(2)), (IMAGE,)),
    "AdaptiveMaxPool": Row(function(nnx.AdaptiveMaxPool(2)), (IMAGE,)),
    "AvgPool": Row(function(nnx.AvgPool(3, padding="SAME", count_include_pad=False)), (IMAGE,)),
    "BatchNorm": Row(layer("BatchNorm", 4), (IMAGE,), multiple=8, large="square"),
    "BatchNorm, evaluated": Row(layer("BatchNorm", 4, use_running_average=True), (IMAGE,)),
    "Bidirectional": Row(
        lambda dtype, rngs: nnx.Bidirectional(
            *(nnx.RNN(layer("GRUCell", 4, 3)(dtype, rngs)) for _ in range(2))
        ),
        ((2, 3, 4),),
        multiple=16,
    ),
    "Conv": Row(layer("Conv", 4, 3, (3, 3)), (IMAGE,)),
    "ConvTranspose": Row(layer("ConvTranspose", 4, 3, (3, 3), 2), (IMAGE,)),
    "Dropout": Row(layer("Dropout", 1e-6)),  # more would drop others in each width
    "Einsum": Row(layer("Einsum", "ab,bc->ac", (4, 3), (3,))),
    "Embed": Row(lambda dtype, rngs: Attend(layer("Embed", 5, 4)(dtype, rngs))),
    "Flatten": Row(function(nnx.Flatten()), (IMAGE,)),
    "GRUCell": cell("GRUCell"),
    "GlobalAvgPool": Row(function(nnx.GlobalAvgPool()), (IMAGE,)),
    "GlobalMaxPool": Row(function(nnx.GlobalMaxPool()), (IMAGE,)),
    "GroupNorm": Row(layer("GroupNorm", 4, 2), (IMAGE,), multiple=8, large="square"),
    "Identity": Row(function(nnx.Identity())),
    "InstanceNorm": Row(layer("InstanceNorm", 4), (IMAGE,), multiple=8, large="square"),
    "LSTMCell": cell("LSTMCell"),
    "LayerNorm": Row(layer("LayerNorm", 4), multiple=8, large="square"),
    "Linear": Row(layer("Linear", 4, 3)),
    "LinearGeneral": Row(layer("LinearGeneral", 4, (3, 2))),
    "LoRA": Row(layer("LoRA", 4, 2, 3, a_initializer=quick_init, b_initializer=quick_init)),
    "LoRALinear": Row(
        lambda dtype, rngs: nnx.LoRALinear(
            4,
            3,
            lora_rank=2,
            lora_param_dtype=dtype,
            param_dtype=dtype,
            kernel_init=quick_init,
            a_initializer=quick_init,
            b_initializer=quick_init,
            rngs=rngs,
        )
    ),
    "MaxPool": Row(function(nnx.MaxPool(3)), (IMAGE,)),
    "MinPool": Row(function(nnx.MinPool(3)), (IMAGE,)),
    "MultiHeadAttention": Row(
        layer("MultiHeadAttention", 2, 4, decode=False), ((2, 5, 4),), multiple=32, large="logit"
    ),
    "OptimizedLSTMCell": cell("OptimizedLSTMCell"),
    "PReLU": Row(layer("PReLU")),
    "RMSNorm": Row(layer("RMSNorm", 4), multiple=8, large="square"),
    "RNN": Row(
        lambda dtype, rngs: nnx.RNN(layer("LSTMCell", 4, 3)(dtype, rngs)), ((2, 3, 4),), multiple=16
    ),
    "RoPE": Row(function(nnx.RoPE()), (X,), low="float32"),
    "SimpleCell": cell("SimpleCell"),
    "SpectralNorm": Row(around("SpectralNorm", layer("Linear", 4, 3), n_steps=3), multiple=16),
    "Stack": Row(stack, multiple=8),
    "WeightNorm": Row(around("WeightNorm", layer("Linear", 4, 3))),
}
NO_LAYERS = {"RNNCellBase"}

ACTIVATIONS = {
    name: Row(
        function(getattr(nnx, name)),
        large="square" if name == "standardize" else "number",
        infinite=name not in ("softmax", "standardize"),
    )
    for name in """celu elu gelu glu hard_sigmoid hard_silu hard_swish hard_tanh identity leaky_relu
    relu relu6 selu sigmoid silu soft_sign softmax softplus standardize swish tanh
    log_sigmoid""".split()
} | {
    "gelu, exact": Row(function(lambda x: nnx.gelu(x, False)), large="number", infinite=True),
    "log_softmax": Row(function(nnx.log_softmax)),
    "logsumexp": Row(function(nnx.logsumexp)),
    "one_hot": Row(function(lambda x: nnx.one_hot(jnp.array([1]), 3, dtype=x.dtype) * x[0, 0])),
    "softmax, where": Row(function(lambda x: nnx.softmax(x, where=jnp.isfinite(x))), infinite=True),
    "log_softmax, where": Row(
        function(lambda x: nnx.log_softmax(x, where=jnp.isfinite(x))), infinite=True
    ),
    "logsumexp, where": Row(
        function(lambda x: nnx.logsumexp(x, -1, where=jnp.isfinite(x))), infinite=True
    ),
    "standardize, where": Row(
        function(lambda x: nnx.standardize(x, where=jnp.isfinite(x))),
        large="square",
        infinite=True,
    ),
}

FUNCTIONS = {
    "avg_pool": Row(function(lambda x: nnx.avg_pool(x, 6)), (IMAGE,)),
    "max_pool": Row(function(lambda x: nnx.max_pool(x, 3)), (IMAGE,)),
    "min_pool": Row(function(lambda x: nnx.min_pool(x, 3)), (IMAGE,)),
    "pool": Row(
        function(lambda x: nnx.pool(x, -np.inf, jax.lax.max, (2, 2), None, "SAME")), (IMAGE,)
    ),
    "linear_cross_entropy": Row(
        function(
            lambda x, kernel: nnx.linear_cross_entropy(
                x, kernel, jnp.array([1, 2]), reduction="none", label_smoothing=0.1
            )
        ),
        (X, (4, 3)),
        multiple=16,
        low="float32",
        large="logit",
    ),
    "dot_product_attention": attention(is_causal=lambda dtype: True),
    "dot_product_attention, masked": attention(mask=lambda dtype: BELOW),
    "dot_product_attention, biased": attention(
        bias=lambda dtype: jnp.where(BELOW, 0, -jnp.inf).astype(dtype)
    ),
    "dot_product_attention_with_rope": attention(
        functools.partial(nnx.dot_product_attention_with_rope, rope=nnx.RoPE())
    ),
}
NO_NUMBERS = {"LoRAParam", "combine_masks", "lora", "make_attention_mask", "make_causal_mask"} | {
    "stack",
    "unstack",
}
"""Functions that make structure, not numbers."""

ROWS = LAYERS | ACTIVATIONS | FUNCTIONS


def test_no_name_is_left_out():
    names = {n for n in dir(nnx.nn) if n[0] != "_" and hasattr(nnx, n)}
    names |= {"stack"}  # also a module, listed once that is imported
    public = {n for n in names if callable(getattr(nnx, n))}
    there = {name.split(",")[0] for name in ROWS}
    missing = public - there - NO_LAYERS - NO_NUMBERS
    assert not missing, f"give {missing} a row in LAYERS or ACTIVATIONS above"
    assert public - there == NO_LAYERS | NO_NUMBERS
    own = {n for n, f in vars(activations).items() if inspect.isfunction(f) and n[0] != "_"}
    assert {n for n in own if vars(activations)[n].__module__ == activations.__name__} <= there


# -- one program for each dtype


@dataclasses.dataclass(frozen=True)
class Table:
    """All rows in a dtype.

    Attributes:
      run: the program: from states and inputs by row to results and gradients by row.
      states: the arrays of what is called, by row.
      inputs: ordinary inputs, by row.
    """

    run: Callable[..., Any]
    states: dict[str, Any]
    inputs: dict[str, Any]


def is_float(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jnp.floating)


def build(dtype: Any, cast_from: dict[str, Any] | None = None) -> Table:
    """Makes all rows; their parameters are those of another table, if one is given."""
    graphdefs, states, inputs = {}, {}, {}
    for name, row in ROWS.items():
        made = row.make(dtype, nnx.Rngs(0))
        graphdefs[name], state = nnx.split(made) if isinstance(made, nnx.Module) else (made, {})
        if cast_from is not None:
            state = jax.tree.map(
                lambda own, low: low.astype(own.dtype) if is_float(low) else own,
                state,
                cast_from[name],
            )
        states[name] = state
        random = np.random.default_rng(len(name))
        inputs[name] = [jnp.asarray(random.normal(size=s), dtype) for s in row.shapes]

    def total(state: Any, xs: Any, name: str, rest: Any) -> Any:
        state = jax.tree.map(lambda x, y: y if x is None else x, state, rest, is_leaf=is_none)
        made = graphdefs[name]
        result = nnx.merge(made, state)(*xs) if isinstance(made, nnx.GraphDef) else made(*xs)
        leaves = [y for y in jax.tree.leaves(result) if is_float(y)]
        with jax.numpy_dtype_promotion("standard"):
            wide = jnp.promote_types(dtype, jnp.float32)
        # Weights, because the results of a norm sum up to nothing.
        weights = [jnp.arange(1, y.size + 1, dtype=wide).reshape(y.shape) / y.size for y in leaves]
        kept = [jnp.where(jnp.isfinite(y), y, 0).astype(wide) for y in leaves]
        return sum((w * y).sum() for w, y in zip(weights, kept, strict=True)), leaves

    @jax.jit
    def run(states: Any, inputs: Any) -> Any:
        results, gradients = {}, {}
        for name in ROWS:
            floats = jax.tree.map(lambda x: x if is_float(x) else None, states[name])
            grad = jax.grad(total, argnums=(0, 1), has_aux=True)
            gradients[name], results[name] = grad(floats, inputs[name], name, states[name])
        return results, gradients

    return Table(run, states, inputs)


def is_none(x: Any) -> bool:
    return x is None


@functools.cache
def table(name: str) -> Table:
    with jax.enable_x64(DTYPES[name] == jnp.float64):
        return build(DTYPES[name])


@functools.cache
def reference(name: str) -> dict[str, Any]:
    """Returns the results of a dtype's parameters and inputs in float64."""
    low = table(name)
    with jax.enable_x64(True):
        exact = exact_table(name)
        inputs = jax.tree.map(lambda x: x.astype(jnp.float64), low.inputs)
        return exact.run(exact.states, inputs)[0]


@functools.cache
def exact_table(name: str) -> Table:
    first = table("float64")
    if name == "float64":
        return first
    states = build(jnp.dtype("float64"), table(name).states).states
    return dataclasses.replace(first, states=states)


@functools.cache
def computed(name: str, kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns results and gradients for a kind of inputs."""
    made = table(name)
    with jax.enable_x64(DTYPES[name] == jnp.float64):

        def of_kind(x: jax.Array, row: Row) -> jax.Array:
            number = {"zero": 0.0, "large": LARGE[row.large][name], "infinite": jnp.inf}[kind]
            if kind == "infinite" and not row.infinite:
                return x
            # One ordinary number among them, and both signs.
            signs = jnp.where(jnp.arange(x.size).reshape(x.shape) % 3 == 0, -1, 1)
            return jnp.where(jnp.arange(x.size).reshape(x.shape) == 1, x, signs * number).astype(
                x.dtype
            )

        inputs = made.inputs
        if kind != "ordinary":
            inputs = {row: [of_kind(x, ROWS[row]) for x in xs] for row, xs in inputs.items()}
        return made.run(made.states, inputs)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ROWS)
def test_dtype_and_error(name, dtype):
    row, eps = ROWS[name], float(jnp.finfo(DTYPES[dtype]).eps)
    results = computed(dtype, "ordinary")[0][name]
    exact = reference(dtype)[name]
    wanted = row.low if row.low and DTYPES[dtype].itemsize == 2 else dtype
    for found, expected in zip(results, exact, strict=True):
        assert found.dtype == jnp.dtype(wanted)
        found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
        finite = np.isfinite(expected)
        np.testing.assert_array_equal(found[~finite], expected[~finite])
        error = np.abs(found - expected)[finite].max(initial=0.0)
        scale = max(np.abs(expected[finite]).max(initial=0.0), 1.0)
        assert error <= row.multiple * eps * scale, f"{error / eps / scale} epsilons"


@pytest.mark.parametrize("kind", ["ordinary", "zero", "large", "infinite"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ROWS)
def test_gradients_are_finite(name, dtype, kind):
    if kind == "infinite" and not ROWS[name].infinite:
        kind = "ordinary"
    for leaf in jax.tree.leaves(computed(dtype, kind)[1][name]):
        assert np.isfinite(np.asarray(leaf, np.float64)).all()


@pytest.mark.parametrize("name", ROWS)
def test_nothing_is_computed_in_less_than_float64(name):
    made = table("float64")
    with jax.enable_x64(True):
        row, state, xs = ROWS[name], made.states[name], made.inputs[name]
        layer = row.make(jnp.dtype("float64"), nnx.Rngs(0))
        if not isinstance(layer, nnx.Module):
            program = jax.make_jaxpr(layer)(*xs)
        else:
            graphdef = nnx.graphdef(layer)
            program = jax.make_jaxpr(lambda s, *xs: nnx.merge(graphdef, s)(*xs))(state, *xs)
    narrow = set(DTYPES.values()) - {jnp.dtype("float64")}
    assert not {str(dtype) for dtype in dtypes_of(program.jaxpr)} & {str(d) for d in narrow}


def dtypes_of(jaxpr: Any) -> set[Any]:
    """Returns the dtypes of everything that a program computes, in its inner programs too."""
    found = set()
    for equation in jaxpr.eqns:
        found |= {v.aval.dtype for v in equation.outvars if hasattr(v.aval, "dtype")}
        for value in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                found |= dtypes_of(inner)
    return found
