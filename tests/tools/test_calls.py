"""Recording the calls of a model's parts, and counting what they cost."""

import jax
import jax.numpy as jnp
import pytest

import weft as nnx
from weft.tools.calls import flops, record_calls, take_parts

X = jax.ShapeDtypeStruct((3, 4), jnp.float32)


class Outer(nnx.Module):
    def __init__(self, inner):
        self.inner = inner

    def __call__(self, x, *, scale=1):
        return {"y": self.inner(x) * scale}

    def encode(self, x):
        return self(x)


@pytest.fixture(scope="module")
def linear():
    return nnx.Linear(4, 2, use_bias=False, rngs=nnx.Rngs(0))


def test_calls_in_their_order_with_abstract_inputs_and_outputs(linear):
    outer, inner = record_calls(Outer(linear), "__call__", (X,), {"scale": 2})
    assert (outer.path, outer.type, outer.method) == ((), Outer, "__call__")
    assert (inner.path, inner.type) == (("inner",), nnx.Linear)
    assert outer.inputs == ((X,), {"scale": 2})
    assert outer.output == {"y": jax.ShapeDtypeStruct((3, 2), jnp.float32)}


def test_other_methods(linear):
    calls = record_calls(Outer(linear), "encode", (jnp.ones((3, 4)),), {})
    assert [call.method for call in calls] == ["encode", "__call__", "__call__"]


def test_objects_and_variables_among_inputs(linear):
    class Taking(nnx.Module):
        def __call__(self, rngs, v, tree):
            return v

    (call,) = record_calls(
        Taking(), "__call__", (nnx.Rngs(0), nnx.Param(jnp.ones(2)), [1, "a"]), {}
    )
    rngs, value, tree = call.inputs[0]
    assert rngs is nnx.Rngs and value.shape == (2,) and tree == [1, "a"]
    assert call.output.shape == (2,)


def test_parts_come_together_again(linear):
    parts = take_parts({"m": linear, "n": 1, "v": nnx.Variable("text")})
    assert [x.shape for x in parts.arrays] == [(4, 2)]
    built = parts.build([jnp.zeros((4, 2))])
    assert built["n"] == 1 and built["v"].value == "text"
    assert float(built["m"].kernel.value.sum()) == 0.0


def test_an_error_in_the_model_is_raised(linear):
    with pytest.raises(TypeError):
        record_calls(Outer(linear), "__call__", (), {})
    assert type(linear) is nnx.Linear


def test_calls_inside_transforms_are_recorded_each_time(linear):
    class Jitted(Outer):
        @nnx.jit
        def __call__(self, x):
            return nnx.remat(lambda m, x: m(x))(self.inner, x)

    model = Jitted(linear)
    for _ in range(2):
        assert len(record_calls(model, "__call__", (X,), {})) == 2


def test_flops_forward_and_with_vjp(linear):
    _, call = record_calls(Outer(linear), "__call__", (X,), {})
    assert flops(call) == 2 * 3 * 4 * 2
    assert flops(call, vjp=True) in (2 * flops(call), 3 * flops(call))


def test_calls_that_need_what_is_around_them_have_no_flops():
    class Summing(nnx.Module):
        def __call__(self, x):
            return jax.lax.psum(x, "i")

    class Mapped(Outer):
        def __call__(self, x):
            return jax.vmap(self.inner, axis_name="i")(x)

    outer, inner = record_calls(Mapped(Summing()), "__call__", (X,), {})
    assert flops(inner) is None and flops(outer) is not None
