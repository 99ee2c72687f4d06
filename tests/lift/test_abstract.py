"""`eval_shape`, `make_jaxpr`, `remat` and `checkify`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import checkify

import weft as nnx


class Model(nnx.Module):
    def __init__(self, size=2):
        self.w = nnx.Param(jnp.ones(size))
        self.count = nnx.BatchStat(jnp.zeros(()))
        self.label = "a"

    def __call__(self, x, factor=1.0):
        self.count[...] = self.count + 1.0
        return jnp.sin(self.w * x) * factor


X = jnp.ones(2)


def shapes(variables):
    return sorted(x.shape for x in variables)


# -- eval_shape


def test_shapes_of_new_objects_and_of_arguments():
    model = Model()

    def f(m, x, *, factor):
        m.label = "changed"
        m.new = nnx.Cache(m(x, factor))
        return {"model": m, "made": nnx.Linear(2, 3, rngs=nnx.Rngs(0)), "y": m.new[...]}

    out = nnx.eval_shape(f, model, X, factor=2.0)
    assert out["model"] is not model
    assert out["model"].label == "changed"
    assert out["model"].w[...] == out["y"] == jax.ShapeDtypeStruct((2,), jnp.float32)
    assert out["made"].kernel.shape == (2, 3)
    assert (model.count[...], model.label, hasattr(model, "new")) == (0.0, "a", False)


def test_abstract_arguments_and_batch_norm_in_train_mode():
    model = nnx.eval_shape(lambda: nnx.BatchNorm(3, rngs=nnx.Rngs(0)))
    assert isinstance(model.mean[...], jax.ShapeDtypeStruct)
    x = jax.ShapeDtypeStruct((4, 3), jnp.float32)
    out, after = nnx.eval_shape(lambda m, x: (m(x), m), model, x)
    assert out == x
    assert after.mean[...] == jax.ShapeDtypeStruct((3,), jnp.float32)


def test_sharing_metadata_and_keys_survive():
    def make():
        shared = nnx.Param(jnp.ones(2), out_sharding=("a",))
        return nnx.Dict(a=shared, b=shared, rngs=nnx.Rngs(0), tree=nnx.Cache({"k": jnp.ones(1)}))

    out = nnx.eval_shape(make)
    assert out["a"] is out["b"]
    assert out["a"].out_sharding == ("a",)
    assert jax.dtypes.issubdtype(out["rngs"].default.key.dtype, jax.dtypes.prng_key)
    assert out["tree"]["k"].shape == (1,)
    assert nnx.graphdef(out) == nnx.graphdef(make())
    with pytest.raises(nnx.SharedReferenceError):
        nnx.eval_shape(lambda m: None, nnx.Dict(a=out["a"], b=out["b"]), graph=False)


def test_eval_shape_of_methods():
    model = Model()
    assert nnx.eval_shape(model, X).shape == nnx.eval_shape(model.__call__, X).shape == (2,)
    assert model.count[...] == 0.0


# -- make_jaxpr


def test_the_jaxpr_of_a_function():
    def f(m, x, how):
        return {"y": m(x) * how["by"], "m": m}

    model = Model()
    jaxpr = nnx.make_jaxpr(f, static_argnums=2)(model, X, {"by": 2.0})
    expected = jax.make_jaxpr(lambda count, w, x: (count + 1.0, jnp.sin(w * x) * 1.0 * 2.0))(
        model.count[...], model.w[...], X
    )
    assert str(jaxpr) == str(expected)
    assert model.count[...] == 0.0
    decorated = nnx.make_jaxpr(graph=False, graph_updates=False)(f)
    assert decorated.__name__ == "f"
    assert len(decorated(model, X, {"by": jnp.ones(())}).out_avals) == 2
    assert len(nnx.make_jaxpr(model)(X).out_avals) == 2


# -- remat


def remats_in(jaxpr):
    for equation in jaxpr.eqns:
        if equation.primitive.name.startswith(("remat", "checkpoint")):
            yield equation
        for parameter in jax.tree.leaves(list(equation.params.values())):
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                yield from remats_in(inner)


def test_remat_gives_the_same_values_gradients_and_writes():
    model, plain = Model(), Model()
    step = nnx.remat(lambda m, x: m(x).sum())
    value, grads = nnx.value_and_grad(step)(model, X)
    expected, expected_grads = nnx.value_and_grad(lambda m, x: m(x).sum())(plain, X)
    assert value == expected
    np.testing.assert_array_equal(grads["w"], expected_grads["w"])
    assert model.count[...] == 1.0
    step(model, X)
    nnx.jit(step)(model, X)
    assert model.count[...] == 3.0


# Ways to give `f` a model, an array and the static `how`, which has a default.
WAYS = {
    "by position": lambda f, m, x: f(m, x, None),
    "by keyword": lambda f, m, x: f(m, x, how=None),
    "all by keyword": lambda f, m, x: f(how=None, x=x, m=m),
    "at its default": lambda f, m, x: f(m, x),
}
STATIC = {
    "remat": lambda f, number: nnx.remat(f, static_argnums=number),
    "make_jaxpr": lambda f, number: nnx.make_jaxpr(f, static_argnums=number),
    "pmap": lambda f, number: nnx.pmap(
        f, in_axes=(None, 0, None), static_broadcasted_argnums=number
    ),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("transform", STATIC)
@pytest.mark.parametrize("number", [2, (-1,)])
def test_a_static_argument_makes_no_other_one_static(transform, way, number):
    given = []

    def f(m, x, how=None):
        given.append((how, isinstance(m.w[...], jax.core.Tracer), isinstance(x, jax.core.Tracer)))
        return jnp.sin(m.w * x)

    model = Model()
    out = WAYS[way](STATIC[transform](f, number), model, X[None])
    assert set(given) == {(None, True, True)}
    if transform == "remat":
        np.testing.assert_allclose(out, jnp.sin(X[None]), rtol=1e-6)


@pytest.mark.parametrize("transform", STATIC)
def test_positions_that_a_function_does_not_have(transform):
    number = "static_broadcasted_argnums" if transform == "pmap" else "static_argnums"
    with pytest.raises(ValueError, match=rf"{number}=3 asks for position 3, but .* 1: x, 2: how$"):
        STATIC[transform](lambda m, x, how=None: m(x), 3)
    with pytest.raises(ValueError, match=r"asks for position 2, but .* 0: x, 1: factor$"):
        STATIC[transform](Model().__call__, 2)  # the object is not counted


def test_a_static_argument_of_a_method():
    class Net(Model):
        def __call__(self, x, train=True):
            return super().__call__(x).sum() if train else x.sum()

    for f, args in ((nnx.remat(Net.__call__, static_argnums=2), True), (nnx.remat, False)):
        for call in (
            lambda f, *a: f(*a),
            lambda f, *a: f(*a, True),
            lambda f, *a: f(*a, train=True),
        ):
            model = Net()
            step = f if args else nnx.remat(model.__call__, static_argnums=1)
            step_args = (model, X) if args else (X,)
            np.testing.assert_allclose(call(step, *step_args), 2 * np.sin(1.0), rtol=1e-6)
            assert model.count[...] == 1.0


def test_options_of_remat():
    policy = jax.checkpoint_policies.everything_saveable

    @nnx.remat(static_argnums=(2, -1), policy=policy, prevent_cse=False)
    def f(m, x, how, names):
        return m(x) * how["by"]

    model = Model()
    jaxpr = nnx.make_jaxpr(lambda m, x: f(m, x, {"by": 3.0}, ["n"]))(model, X)
    (equation,) = remats_in(jaxpr.jaxpr)
    assert equation.params["policy"] is policy
    assert equation.params["prevent_cse"] is False
    (equation,) = remats_in(nnx.make_jaxpr(nnx.remat(lambda m, x: m(x)))(model, X).jaxpr)
    assert equation.params["prevent_cse"] is True


def test_remat_of_methods_dropout_and_layers():
    dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(0))
    same = nnx.Dropout(0.5, rngs=nnx.Rngs(0))
    x = jnp.ones(16)
    np.testing.assert_array_equal(nnx.remat(dropout)(x), same(x))
    grads = nnx.grad(nnx.remat(lambda d, x: d(x).sum()), argnums=1)(dropout, x)
    np.testing.assert_array_equal(grads, same(x))
    assert dropout.rngs.count[...] == 2

    class Block(nnx.Module):
        def __init__(self):
            self.w = nnx.Param(jnp.ones(2))

        @nnx.remat
        def __call__(self, x):
            return self.w * x

    np.testing.assert_array_equal(Block()(X), X)
    unbound = nnx.remat(Block.__call__, graph_updates=False)
    np.testing.assert_array_equal(unbound(Block(), X), X)


def test_only_what_is_written_is_an_output_of_remat():
    def read(m, x):
        m.count[...] = m.count + m.big[...].sum()
        return x * 2.0

    model = Model()
    model.big = nnx.Param(jnp.ones((5, 5)))
    jaxpr = nnx.make_jaxpr(nnx.remat(read))(model, X)
    (equation,) = remats_in(jaxpr.jaxpr)
    assert shapes(x.aval for x in equation.outvars) == shapes(jaxpr.out_avals) == [(), (2,)]


def test_remat_saves_memory_as_jax_does():
    def block(w, x):
        for _ in range(4):
            x = jnp.tanh(x @ w)
        return x

    def raw(w, x):
        return jax.grad(lambda w: jax.checkpoint(block)(w, x).sum())(w)

    def with_weft(m, x):
        return nnx.grad(lambda m: nnx.remat(lambda m, x: block(m["w"][...], x))(m, x).sum())(m)

    model, x = nnx.Dict(w=nnx.Param(jnp.ones((32, 32)))), jnp.ones((64, 32))
    ours = nnx.jit(with_weft).lower(model, x).compile().memory_analysis()
    expected = jax.jit(raw).lower(model["w"][...], x).compile().memory_analysis()
    assert ours.temp_size_in_bytes <= 1.05 * expected.temp_size_in_bytes


# -- checkify


def test_checks_fail_and_writes_come_out():
    def f(m, x):
        checkify.check(jnp.all(x > 0.0), "x is {x}", x=x[0])
        return m(x), m

    model = Model()
    error, (y, out) = nnx.checkify(f)(model, X)
    assert error.get() is None
    assert out is model
    assert y.shape == (2,)
    error, _ = nnx.jit(nnx.checkify(f))(model, -X)
    assert "x is -1.0" in error.get()
    assert model.count[...] == 2.0


def test_errors_and_modes_of_checkify():
    checked = nnx.checkify(lambda m, x: m.w / x, errors=checkify.float_checks, graph_updates=False)
    error, _ = checked(Model(), jnp.zeros(2))
    assert "division by zero" in error.get()
    assert nnx.checkify(Model())(X)[0].get() is None
