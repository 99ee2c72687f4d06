"""`vjp` and `jvp`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx


class Model(nnx.Module):
    def __init__(self):
        self.w = nnx.Param(jnp.array([1.0, 2.0]))
        self.count = nnx.BatchStat(jnp.zeros(()))

    def __call__(self, x):
        self.count[...] = self.count + 1.0
        return self.w * x


X = jnp.array([5.0, 7.0])


def error_of(kind, call, *args, **kwargs):
    with pytest.raises(kind) as caught:
        call(*args, **kwargs)
    return str(caught.value)


# -- vjp


def test_vjp_pulls_cotangents_back():
    model = Model()
    y, pull = nnx.vjp(lambda m, x: {"y": m(x)}, model, X)
    np.testing.assert_array_equal(y["y"], X * model.w)
    grads, gx = pull({"y": jnp.array([1.0, 10.0])})
    assert grads.keys() == {"w"}
    np.testing.assert_array_equal(grads["w"], [5.0, 70.0])
    np.testing.assert_array_equal(gx, [1.0, 20.0])
    np.testing.assert_array_equal(pull({"y": jnp.ones(2)})[1], model.w)
    assert model.count[...] == 1.0


def test_vjp_with_aux():
    model = Model()
    y, pull, aux = nnx.vjp(lambda m, x: (m(x), {"m": m, "n": 3}), model, X, has_aux=True)
    assert aux["m"] is model
    assert aux["n"] == 3
    np.testing.assert_array_equal(pull(jnp.ones_like(y))[0]["w"], X)


def test_vjp_without_structure_updates_gives_objects():
    for options in ({"graph_updates": False}, {"graph": False, "graph_updates": False}):
        model = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
        y, pull = nnx.vjp(lambda m, x: m(x), model, X, **options)
        grads, gx = pull(jnp.ones_like(y))
        assert type(grads) is nnx.Linear
        np.testing.assert_array_equal(grads.kernel[:, 0], X)
        np.testing.assert_array_equal(gx, model.kernel[:, 0])


def test_vjp_of_a_method_and_as_decorator():
    model = Model()
    y, pull = nnx.vjp(model, X)
    assert len(pull(jnp.ones_like(y))) == 1

    @nnx.vjp(has_aux=True)
    def f(m, x):
        return m(x), 1

    assert f(model, X)[2] == 1
    assert model.count[...] == 2.0


def test_vjp_of_what_returns_objects():
    model = Model()
    out, pull = nnx.vjp(lambda m: nnx.Dict(y=nnx.Variable(m.w * 2.0)), model)
    assert isinstance(out, nnx.Dict)
    (grads,) = pull({"y": jnp.ones(2)})
    np.testing.assert_array_equal(grads["w"], [2.0, 2.0])


def test_vjp_under_jit_and_of_itself():
    @nnx.jit
    def f(model, x):
        y, pull = nnx.vjp(lambda m: m(x) ** 2, model)
        return pull(jnp.ones_like(y))[0]["w"][...]

    np.testing.assert_array_equal(f(Model(), X), 2.0 * X**2 * Model().w)
    second = nnx.grad(lambda m: f(m, X).sum())(Model())
    np.testing.assert_array_equal(second["w"], 2.0 * X**2)


def test_vjp_mistakes():
    y, pull = nnx.vjp(lambda m, x: m(x), Model(), X)
    message = error_of(nnx.StructureError, pull, (y, y))
    assert "the cotangent of nnx.vjp of" in message
    assert "with 1 arrays, found 2: `jax.tree.map(jnp.ones_like, result)`" in message
    message = error_of(ValueError, nnx.vjp, lambda x: x, X, reduce_axes=("i",))
    assert "reduce_axes=('i',) is not supported: sum over mesh axes with `jax.lax.psum`" in message


# -- jvp


def test_jvp_moves_along_a_direction():
    model = Model()
    state = nnx.state(model, nnx.Param)
    y, dy = nnx.jvp(lambda m, x: {"y": m(x)}, (model, X), (state, jnp.zeros(2)))
    np.testing.assert_array_equal(dy["y"], X * model.w)
    np.testing.assert_array_equal(y["y"], dy["y"])
    _, dy = nnx.jvp(lambda m, x: m(x), (model, X), ({}, jnp.ones(2)))
    np.testing.assert_array_equal(dy, model.w)
    assert model.count[...] == 2.0


def test_jvp_takes_states_dicts_and_objects():
    model = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
    ones = jax.tree.map(jnp.ones_like, nnx.state(model))
    same = [
        ones,
        nnx.to_pure_dict(ones),
        jax.tree.map(jnp.ones_like, model),
    ]
    results = [nnx.jvp(lambda m: m(X), (model,), (direction,))[1] for direction in same]
    for result in results:
        np.testing.assert_array_equal(result, [13.0])


def test_jvp_with_aux_method_decorator_and_modes():
    model = Model()
    y, dy, aux = nnx.jvp(lambda m, x: (m(x), m), (model, X), ({}, X), has_aux=True)
    assert aux is model
    np.testing.assert_array_equal(y, dy)
    np.testing.assert_array_equal(nnx.jvp(model, (X,), (X,))[1], y)

    @nnx.jvp(graph_updates=False)
    def f(m, x):
        return m(x)

    np.testing.assert_array_equal(f((model, X), ({}, X))[1], y)
    assert model.count[...] == 3.0


def test_jvp_under_jit_and_vmap_gives_a_jacobian():
    matrix = nnx.jit(
        lambda m: nnx.vmap(
            lambda m, v: nnx.jvp(lambda w: w * X, (m.w[...],), (v,))[1], in_axes=(None, 0)
        )(m, jnp.eye(2))
    )(Model())
    np.testing.assert_array_equal(matrix, jnp.diag(X))


def test_jvp_mistakes():
    model = Model()
    f = lambda m, x: m(x)  # noqa: E731
    message = error_of(nnx.StructureError, nnx.jvp, f, (model, X), (X,))
    assert "nnx.jvp was given 1 tangents for 2 primals" in message
    assert "`nnx.jvp(f, (model, x), (nnx.state(model), x_tangent))`" in message
    message = error_of(nnx.StructureError, nnx.jvp, f, (model, X), ({"v": X}, X))
    assert "has tangents for m.v, which the arguments do not have; they have " in message
    assert "m.w" in message
    message = error_of(nnx.StructureError, nnx.jvp, f, (model, X), ({"w": jnp.ones(3)}, X))
    assert "has tangents for m.w of shape (3,), expected (2,)" in message


def test_a_cotangent_of_another_shape():
    _, pull = nnx.vjp(lambda x: x.sum(), jnp.ones(3))
    with pytest.raises(
        nnx.StructureError, match=r"must have the shapes of its result, \(\), found \("
    ):
        pull(jnp.ones(3))
