"""`grad`, `value_and_grad` and `DiffState`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx


class Model(nnx.Module):
    def __init__(self):
        self.w = nnx.Param(jnp.array([1.0, 2.0]))
        self.b = nnx.Param(jnp.array(3.0))
        self.count = nnx.BatchStat(jnp.zeros(()))

    def __call__(self, x):
        self.count[...] = self.count + 1.0
        return jnp.sum(self.w * x) + self.b**2


X = jnp.array([5.0, 7.0])


def error_of(kind, call, *args, **kwargs):
    with pytest.raises(kind) as caught:
        call(*args, **kwargs)
    return str(caught.value)


def pure(tree):
    return jax.tree.map(np.asarray, nnx.to_pure_dict(tree))


# -- what is differentiated


def test_the_gradient_of_an_object_is_a_state_of_its_params():
    model = Model()
    loss, grads = nnx.value_and_grad(lambda m, x: m(x))(model, X)
    assert loss == 28.0
    assert isinstance(grads, nnx.State)
    assert grads.keys() == {"w", "b"}
    assert type(grads["w"]) is nnx.Param
    np.testing.assert_array_equal(grads["w"], X)
    assert grads["b"][...] == 6.0
    assert model.count[...] == 1.0


def test_argnums_of_objects_arrays_and_containers():
    def f(x, model, pair):
        return model(x) * pair["a"][0]

    args = (X, Model(), {"a": [jnp.array(2.0)], "rest": jnp.ones(3)})
    gx, gm = nnx.grad(f, argnums=(0, 1))(*args)
    np.testing.assert_array_equal(gx, 2.0 * args[1].w)
    assert gm["b"][...] == 12.0
    gm, gp = nnx.grad(f, argnums=[-2, 2])(*args)
    assert gm["b"][...] == 12.0
    assert gp["a"] == [28.0]
    np.testing.assert_array_equal(gp["rest"], jnp.zeros(3))
    assert isinstance(nnx.grad(f, argnums=(1,))(*args), tuple)


def test_diff_state_on_any_argument():
    def f(x, a, b):
        return a(x) + b(x) ** 2

    a, b = Model(), Model()
    grads = nnx.grad(f, argnums=(nnx.DiffState(1, nnx.PathContains("b")), nnx.DiffState(2, ...)))(
        X, a, b
    )
    assert pure(grads[0]) == {"b": 6.0}
    assert grads[1].keys() == {"w", "b", "count"}
    assert nnx.grad(f, argnums=nnx.DiffState(-1, nnx.BatchStat))(X, a, b).keys() == {"count"}
    either = nnx.grad(f, argnums=nnx.DiffState(1, (nnx.BatchStat, "none")))(X, a, b)
    assert either.keys() == {"count"}


def test_a_variable_or_a_list_of_models_as_argument():
    assert nnx.grad(lambda v: v[...] ** 2)(nnx.Variable(jnp.array(3.0)))[...] == 6.0
    models = [Model(), Model()]
    grads = nnx.grad(lambda models: models[0](X) * models[1].b)(models)
    assert isinstance(grads, list)
    assert grads[1]["b"][...] == 28.0
    nested = nnx.grad(lambda named: named["m"](X))({"m": Model()})
    assert nested["m"]["b"][...] == 6.0


def test_shared_parameters_have_one_gradient():
    model = Model()
    model.tied = model.w
    grads = nnx.grad(lambda m: jnp.sum(m.w * m.tied))(model)
    np.testing.assert_array_equal(grads["tied"] if "tied" in grads else grads["w"], 2.0 * model.w)
    assert len(jax.tree.leaves(grads)) == 2
    first, second = nnx.grad(lambda a, b: a(X) + b(X), argnums=(0, 1))(model, model)
    assert first["b"][...] == 12.0
    assert not second


def test_frozen_parts_have_no_gradient():
    model = nnx.LoRALinear(2, 2, lora_rank=1, rngs=nnx.Rngs(0))
    grads = nnx.grad(lambda m: m(X).sum(), argnums=nnx.DiffState(0, nnx.LoRAParam))(model)
    jaxpr = nnx.make_jaxpr(
        lambda m: nnx.grad(lambda m: m(X).sum(), argnums=nnx.DiffState(0, nnx.LoRAParam))(m)
    )(model)
    assert {path[-1] for path in nnx.to_flat_state(grads).paths} == {"lora_a", "lora_b"}
    assert sorted(x.shape for x in jaxpr.out_avals) == [(1, 2), (2, 1)]


def test_keywords_defaults_and_methods():
    def f(model, x, scale=1.0, *, bias=0.0):
        return model(x) * scale + bias

    model = Model()
    assert nnx.grad(f)(model, x=X, bias=1.0)["b"][...] == 6.0
    assert nnx.grad(f)(x=X, model=model, scale=2.0)["b"][...] == 12.0
    np.testing.assert_array_equal(nnx.grad(f, argnums=1)(model, x=X), model.w)
    np.testing.assert_array_equal(nnx.grad(model.__call__)(X), model.w)
    np.testing.assert_array_equal(nnx.grad(model)(X), model.w)
    assert model.count[...] == 5.0
    assert nnx.grad(f).__name__ == "f"

    @nnx.grad(argnums=1)
    def decorated(model, x):
        return model(x)

    np.testing.assert_array_equal(decorated(model, X), model.w)


# -- options


def test_has_aux():
    model = Model()

    def f(model):
        return model(X), {"seen": model.count, "model": model}

    (loss, aux), grads = nnx.value_and_grad(f, has_aux=True)(model)
    assert loss == 28.0
    assert aux["model"] is model
    assert aux["seen"] is model.count
    again, aux = nnx.grad(f, has_aux=True)(model)
    jax.tree.map(np.testing.assert_array_equal, again, grads)
    assert aux["model"].count[...] == 2.0


def test_holomorphic_and_allow_int():
    z = nnx.Param(jnp.array(1.0 + 2.0j))
    assert nnx.grad(lambda z: z**2, holomorphic=True)(z)[...] == 2.0 + 4.0j
    with pytest.raises(TypeError, match="holomorphic"):
        nnx.grad(lambda z: z**2)(z)
    number = nnx.Param(jnp.array(3))
    with pytest.raises(TypeError, match="allow_int"):
        nnx.grad(lambda n: n * 1.0)(number)
    grads = nnx.grad(lambda n: n[...].astype(jnp.float32), allow_int=True)(number)
    assert grads.dtype == jax.dtypes.float0


def test_without_structure_updates_gradients_have_the_type_of_the_argument():
    class Pure(nnx.Module):
        def __init__(self):
            self.w = nnx.Param(jnp.array(2.0))
            self.stat = nnx.BatchStat(jnp.array(1.0))
            self.name = "n"

    model = Pure()
    for options in ({"graph_updates": False}, {"graph": False, "graph_updates": False}):

        def f(m, x):
            m.stat[...] = m.stat + 1.0
            return m.w * m.stat * x

        before = float(model.stat[...])
        grads, gx = nnx.grad(f, argnums=(0, 1), **options)(model, 3.0)
        assert type(grads) is Pure
        assert grads.name == "n"
        assert (grads.w[...], grads.stat[...]) == (3.0 * (before + 1.0), 6.0)
        assert gx == 2.0 * (before + 1.0)
        assert model.stat[...] == before + 1.0
    second = nnx.grad(f, argnums=1, graph_updates=False)(model, 3.0)
    assert second.shape == ()


def test_the_settings_decide_where_no_option_is_given():
    with nnx.set_graph_updates(False):
        of_module = nnx.grad(lambda m: m.kernel[...].sum())
    assert type(of_module(nnx.Linear(1, 1, rngs=nnx.Rngs(0)))) is nnx.Linear


# -- what is written


def test_only_what_is_written_comes_out():
    def with_weft(model, x):
        def loss(model):
            model.big[...].sum()
            return model(x)

        return nnx.grad(loss, argnums=nnx.DiffState(0, nnx.PathContains("w")))(model)

    model = Model()
    model.big = nnx.Param(jnp.ones((9, 9)))
    jaxpr = nnx.make_jaxpr(with_weft)(model, X)
    assert [x.shape for x in jaxpr.out_avals] == [(), (2,)]


def test_temporary_memory_is_that_of_jax():
    class Mlp(nnx.Module):
        def __init__(self, rngs):
            self.layers = [nnx.Linear(64, 64, rngs=rngs) for _ in range(3)]

        def __call__(self, x):
            for layer in self.layers:
                x = nnx.relu(layer(x))
            return x

    model = Mlp(nnx.Rngs(0))
    weights = [(layer.kernel[...], layer.bias[...]) for layer in model.layers]
    x = jnp.ones((128, 64))

    def by_hand(weights, x):
        def loss(weights):
            y = x
            for kernel, bias in weights:
                y = jax.nn.relu(y @ kernel + bias)
            return jnp.mean(y**2)

        return jax.grad(loss)(weights)

    def with_weft(model, x):
        return nnx.grad(lambda model: jnp.mean(model(x) ** 2))(model)

    ours = nnx.jit(with_weft).lower(model, x).compile().memory_analysis()
    raw = jax.jit(by_hand).lower(weights, x).compile().memory_analysis()
    assert ours.temp_size_in_bytes <= 1.05 * raw.temp_size_in_bytes
    assert ours.output_size_in_bytes <= 1.05 * raw.output_size_in_bytes


def test_written_variables_that_are_differentiated():
    def f(model):
        loss = jnp.sum(model.w**2)
        model.w[...] = model.w * 10.0
        return loss

    model = Model()
    grads = nnx.grad(f)(model)
    np.testing.assert_array_equal(grads["w"], [2.0, 4.0])
    np.testing.assert_array_equal(model.w, [10.0, 20.0])


def test_mutable_metadata_and_new_state_come_out():
    def f(model):
        model.cache = nnx.Cache(model.w * 2.0)
        return model.cache[...].sum()

    model = Model()
    grads = nnx.grad(f)(model)
    np.testing.assert_array_equal(grads["w"], [2.0, 2.0])
    np.testing.assert_array_equal(model.cache, [2.0, 4.0])


def test_captured_objects():
    model = Model()
    with pytest.raises(nnx.TraceContextError, match=r"BatchStat.*nnx\.grad of .*loss"):

        def loss(x):
            return model(x)

        nnx.grad(loss)(X)
    assert model.count[...] == 0.0


def test_merge_inside_plain_grad():
    dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(0))
    graphdef, state = nnx.split(dropout)

    def loss(x, state, copy):
        return nnx.merge(graphdef, state, copy=copy)(x).sum()

    x = jnp.ones(8)
    assert set(np.asarray(jax.grad(loss)(x, state, True))) == {0.0, 2.0}
    # `jax.grad` hands what it does not differentiate to the function as it is: a captured write.
    with pytest.raises(nnx.TraceContextError, match="RngCount"):
        jax.grad(loss)(x, state, False)


# -- higher order, transforms around and inside


def test_grad_of_grad():
    def cube(model, x):
        model.count[...] = model.count + 1.0
        return (model.w**3 * x).sum()

    def slope(model, x):
        return nnx.grad(cube)(model, x)["w"][...].sum()

    model = Model()
    second = nnx.grad(slope)(model, 1.0)
    np.testing.assert_allclose(second["w"], [6.0, 12.0])
    assert model.count[...] == 1.0
    third = nnx.jit(nnx.grad(lambda m: nnx.grad(slope)(m, 1.0)["w"][...].sum()))(model)
    np.testing.assert_allclose(third["w"], [6.0, 6.0])


def test_plain_jax_around_and_inside():
    model = Model()

    def loss(w, x):
        copy = nnx.clone(model)
        copy.w[...] = w
        return nnx.grad(lambda m: m(x) ** 2)(copy)["b"][...]

    expected = jax.grad(lambda w, x: 2.0 * (jnp.sum(w * x) + 9.0) * 6.0)
    np.testing.assert_allclose(jax.jit(jax.grad(loss))(model.w[...], X), expected(model.w[...], X))
    rows = jax.vmap(jax.grad(loss), in_axes=(None, 0))(model.w[...], jnp.stack([X, X]))
    assert rows.shape == (2, 2)
    inner = nnx.grad(lambda m: jax.grad(lambda x: jnp.sum(m.w * x))(X).sum())(model)
    np.testing.assert_array_equal(inner["w"], [1.0, 1.0])
    jacobian = nnx.vmap(
        nnx.grad(lambda m, v: jnp.vdot(v, m.w**2)), in_axes=(None, 0)
    )(model, jnp.eye(2))  # fmt: skip
    np.testing.assert_array_equal(jacobian["w"], [[2.0, 0.0], [0.0, 4.0]])


# -- mistakes


def test_argnums_that_are_none():
    assert "argnums must be ints or nnx.DiffState, found 'm'" in error_of(
        TypeError, nnx.grad(lambda m: 0.0, argnums="m"), Model()
    )
    assert "found True" in error_of(TypeError, nnx.grad(lambda m: 0.0, argnums=True), Model())
    message = error_of(ValueError, nnx.grad(lambda m: 0.0, argnums=1), Model())
    assert "argnums asks for argument 1, but the call has 1 positional arguments" in message
    message = error_of(ValueError, nnx.grad(lambda a, b: 0.0, argnums=(0, -2)), Model(), X)
    assert "argnums names argument 0 twice: (0, -2)" in message


def test_losses_that_are_none():
    message = error_of(TypeError, nnx.grad(lambda m: (m(X), 1)), Model())
    assert "must return a scalar array, found tuple; for `return loss, aux`" in message
    assert "pass `has_aux=True`" in message
    message = error_of(TypeError, nnx.grad(lambda m: None), Model())
    assert "is differentiated and must return a scalar array, found None: it ends" in message
    message = error_of(TypeError, nnx.grad(lambda m: m(X), has_aux=True), Model())
    assert "has_aux=True and must return a pair `(loss, aux)`, found an array of shape" in message
    message = error_of(TypeError, nnx.grad(lambda m: m.w * 1.0), Model())
    assert "found an array of shape (2,): take the mean or the sum of it, `loss.mean()`" in message
    message = error_of(TypeError, nnx.grad(lambda m: nnx.Variable(1.0)), Model())
    assert "found a Variable: return its value, `loss[...]`" in message


def test_losses_without_a_derivative():
    message = error_of(TypeError, nnx.value_and_grad(lambda m: jnp.argmax(m.w[...])), Model())
    assert "must return a real scalar array, found one of dtype int32: integers and tru" in message
    assert "optax.losses.squared_error" in message
    message = error_of(TypeError, nnx.grad(lambda m: m.w.sum().astype(complex)), Model())
    assert "dtype complex64: `jnp.abs(loss)`, or pass `holomorphic=True`" in message
    assert float(nnx.grad(lambda x: (x * 2).real)(jnp.complex64(1j)).real) == 2.0


def test_integers_say_how_to_make_floats_of_them():
    message = error_of(TypeError, nnx.grad(lambda n: n.sum() * 1.0), jnp.arange(3))
    assert "n is to be differentiated and is int32: make it one of floats, `n.astype(jn" in message
    assert "not trained" not in message
    message = error_of(TypeError, nnx.grad(lambda m: 1.0), nnx.Dict(n=nnx.Param(jnp.arange(3))))
    assert "`m.n.astype(jnp.float32)`, or a type that is not trained, `nnx.Variable(a" in message


def test_reduce_axes():
    for transform in (nnx.grad, nnx.value_and_grad):
        message = error_of(ValueError, transform, lambda x: x, reduce_axes=("i",))
        assert (
            "reduce_axes=('i',) is not supported: sum over mesh axes with `jax.lax.psum`" in message
        )


def test_a_model_both_differentiated_and_not():
    model = Model()
    message = error_of(nnx.AliasError, nnx.grad(lambda a, b: a(X) + b(X)), model, model)
    assert "a.b has True, b.b has False" in message


def test_diff_state_compares_and_prints():
    assert nnx.DiffState(0, nnx.Param) == nnx.DiffState(0, nnx.Param)
    assert hash(nnx.DiffState(0, nnx.Param)) == hash(nnx.DiffState(0, nnx.Param))
    assert nnx.DiffState(0, nnx.Param) != nnx.DiffState(1, nnx.Param)
    assert repr(nnx.DiffState(0, nnx.Param)).startswith("DiffState(0, ")
    assert nnx.DiffState(0, nnx.Param).map_prefix((), nnx.Param(1.0))
