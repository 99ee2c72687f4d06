"""What JAX calls functions and arguments: what the user calls them, whatever the transform."""

import functools
import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx
from weft._lift.naming import shown_as

P = jax.sharding.PartitionSpec


class Net(nnx.Module):
    def __init__(self):
        self.layers = [nnx.Linear(2, 2, rngs=nnx.Rngs(0))]
        self.tree = nnx.Cache({"k": jnp.ones(2)})
        self.plain = jnp.ones(2)


def looks_at_a_parameter(m, x):
    return x.sum() if m.layers[0].kernel.sum() > 0 else -x.sum()


def looks_at_a_tree(m, x):
    return x.sum() if m.tree["k"].sum() > 0 else -x.sum()


def looks_at_an_array(m, x):
    return float(m.plain[0]) * x.sum()


def looks_at_an_argument(m, x):
    return jnp.ones(int(x["in"][0])).sum()


# By function: the path of what it looks at.
LOOKS = {
    looks_at_a_parameter: "m.layers[0].kernel",
    looks_at_a_tree: "m.tree[0]",
    looks_at_an_array: "m.plain",
    looks_at_an_argument: "x.in",
}


def sharded(f):
    mesh = jax.make_mesh((1,), ("one",), axis_types=(jax.sharding.AxisType.Auto,))
    mapped = nnx.shard_map(f, mesh=mesh, in_specs=(P(), P()), out_specs=P())
    return lambda m, x: nnx.eval_shape(mapped, m, x)


def with_rules(f):
    function = nnx.custom_vjp(f)
    function.defvjp(lambda m, x: (f(m, x), None), lambda residuals, dy: (None, None))
    return lambda m, x: nnx.eval_shape(function, m, x)


TRANSFORMS = {
    "remat": nnx.remat,
    "remat of a partial": lambda f: nnx.remat(functools.partial(f)),
    "grad of remat": lambda f: nnx.grad(lambda m, x: nnx.remat(f)(m, x)),
    "eval_shape": lambda f: lambda m, x: nnx.eval_shape(f, m, x),
    "make_jaxpr": nnx.make_jaxpr,
    "shard_map": sharded,
    "custom_vjp": with_rules,
    "scan": lambda f: nnx.scan(f, length=1, in_axes=(None, None), out_axes=0),
    "scan with a carry": lambda f: lambda m, x: nnx.scan(f)(m, {"in": x["in"][None]}),
    "cond": lambda f: lambda m, x: nnx.cond(True, f, lambda m, x: 0.0, m, x),
    "switch": lambda f: lambda m, x: nnx.switch(0, [f], m, x),
    "pmap": lambda f: lambda m, x: nnx.pmap(f, in_axes=(None, 0))(m, {"in": x["in"][None]}),
}
INTERNAL = re.compile(r"groups|arrays|kept\[|rest\[|args\[|carried|xs\[|_Aux|pure")


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("function", LOOKS)
def test_an_argument_whose_value_is_asked_for(transform, function):
    with pytest.raises(jax.errors.ConcretizationTypeError) as caught:
        TRANSFORMS[transform](function)(Net(), {"in": jnp.ones(2)})
    message = str(caught.value)
    assert not INTERNAL.search(message)
    if "the value of the argument" in message and transform != "custom_vjp":  # JAX: "unknown"
        assert f"the value of the argument {LOOKS[function]}.\n" in message
    else:
        assert transform == "custom_vjp" or "(looks_at_" in message
    if transform != "pmap":  # which has a function of its own inside
        assert f"tracing the function {function.__name__} at {__file__}:" in message


def test_loops_of_one_carry():
    def body(carry):
        return carry if carry["m"].plain.sum() > 0 else None

    def condition(carry):
        return bool(carry["m"].tree["k"].sum() > 0)

    def indexed(i, carry):
        return carry if i > 0 else None

    def indexed_model(i, m):
        return m if m.layers[0].bias.sum() > 0 else None

    def written(carry):
        carry["m"].tree["k"] += 1.0
        return carry

    m, carry = Net(), {"m": Net()}
    loops = {
        "carry.m.plain": (body, lambda: nnx.while_loop(lambda c: True, body, carry)),
        "carry.m.tree[0]": (condition, lambda: nnx.while_loop(condition, written, carry)),
        "i": (indexed, lambda: nnx.fori_loop(0, 2, indexed, carry)),
        "m.layers[0].bias": (indexed_model, lambda: nnx.fori_loop(0, 2, indexed_model, m)),
    }
    for path, (function, loop) in loops.items():
        with pytest.raises(jax.errors.TracerBoolConversionError) as caught:
            loop()
        assert f"the value of the argument {path}.\n" in str(caught.value)
        assert f"tracing the function {function.__name__} at {__file__}:" in str(caught.value)


NO_ARRAYS = {
    "scan": lambda x, out: nnx.scan(lambda c, y: (c, out))(x, jnp.ones(2)),
    "fori_loop": lambda x, out: nnx.fori_loop(0, 2, lambda i, c: out, x),
    "while_loop": lambda x, out: nnx.while_loop(lambda c: False, lambda c: out, x),
    "cond": lambda x, out: nnx.cond(True, lambda c: out, lambda c: out, x),
    "switch": lambda x, out: nnx.switch(0, [lambda c: out], x),
}


@pytest.mark.parametrize("transform", NO_ARRAYS)
@pytest.mark.parametrize(
    "value", ["text", np.array(["text"]), object()], ids=["text", "texts", "object"]
)
def test_what_is_no_array_goes_in_or_comes_out(transform, value):
    expected = rf"nnx\.{transform} of .* was given .*, as c, which is no array\. Bind it"
    with pytest.raises(TypeError, match=expected):
        NO_ARRAYS[transform](value, 1.0)
    expected = rf"nnx\.{transform} of .* leaves (c|output.*) as .*, which is no array\. Return"
    with pytest.raises(TypeError, match=expected):
        NO_ARRAYS[transform](1.0, value)


def test_the_rules_of_custom_vjp():
    def rule(look_at_residuals):
        @nnx.custom_vjp
        def function(m, x):
            return (m.plain * x).sum()

        def forward(m, x):
            return function(m, x), {"model": m, "sum": x.sum()}

        def backward(residuals, cotangent):
            looked = residuals["model"].plain.sum() if look_at_residuals else cotangent[1]
            return (None, x if looked > 0 else None)

        function.defvjp(forward, backward)
        return nnx.grad(lambda m, x: function(m, x), argnums=1)

    x = jnp.ones(2)
    for look_at_residuals in (True, False):
        with pytest.raises(jax.errors.TracerBoolConversionError) as caught:
            nnx.eval_shape(rule(look_at_residuals), Net(), x)
        assert not INTERNAL.search(str(caught.value))


def test_programs_bear_the_names():
    def forward(m, x):
        return m.layers[0](x)

    jaxpr = nnx.make_jaxpr(nnx.remat(forward))(Net(), jnp.ones((1, 2)))
    assert jaxpr.jaxpr.debug_info.arg_names[0] == "m.layers[0].bias"
    (equation,) = jaxpr.eqns
    assert equation.params["jaxpr"].debug_info.func_name == "forward"


def test_shown_as():
    class Callable:
        def __call__(self, x):
            return x

    for f in (Callable(), functools.partial(Callable())):
        shown = shown_as(f, lambda x: x + 1, lambda args: ["x"])
        assert shown(1) == 2
        assert shown.__name__ == "__call__"
        bound = inspect.signature(shown).bind(jnp.ones(1))
        assert list(bound.arguments) == ["x"]
        assert bound.args[0].shape == (1,)
    several = inspect.signature(shown_as(max, max, lambda args: ["x"])).bind(1, 2)
    assert several.arguments == {"arguments": (1, 2)}  # not those that are named
