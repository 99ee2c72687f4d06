"""`custom_vjp`: backward rules for functions of objects."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx


class Model(nnx.Module):
    def __init__(self):
        self.w = nnx.Param(jnp.array(2.0))
        self.b = nnx.Param(jnp.array(3.0))
        self.count = nnx.BatchStat(jnp.zeros(()))
        self.steps = nnx.Variable(jnp.array(0))
        self.label = "kept"


def error_of(kind, call, *args, **kwargs):
    with pytest.raises(kind) as caught:
        call(*args, **kwargs)
    return str(caught.value)


def doubled_gradient(**mode):
    """Returns `w * x + b`, whose gradients are twice the right ones, and what `bwd` was given."""
    given = []

    @nnx.custom_vjp(**mode)
    def f(m, x):
        m.count[...] = m.count + x
        return m.w * x + m.b

    def fwd(m, x):
        return f(m, x), (m, x)

    def bwd(residuals, cotangents):
        given.append(cotangents)
        m, x = residuals
        assert m.label == "kept"
        dy = cotangents[1] if isinstance(cotangents, tuple) else cotangents
        return {"w": 2.0 * dy * x, "b": 2.0 * dy}, 2.0 * dy * m.w

    f.defvjp(fwd, bwd)
    return f, given


def test_without_a_gradient_the_function_itself_runs():
    f, given = doubled_gradient()
    model = Model()
    assert f(model, 5.0) == nnx.jit(f)(model, jnp.array(5.0)) == 13.0
    assert model.count[...] == 10.0
    assert f.__name__ == "f"
    assert not given


def test_rules_give_the_gradient_and_writes_come_out():
    f, given = doubled_gradient()
    model = Model()
    for transform in (lambda g: g, nnx.jit):
        value, (gm, gx) = transform(nnx.value_and_grad(f, argnums=(0, 1)))(model, 5.0)
        assert (value, gm["w"][...], gm["b"][...], gx) == (13.0, 10.0, 2.0, 4.0)
    assert model.count[...] == 10.0
    (of_model, of_x), dy = given[0]
    assert dy == 1.0
    assert of_x is None
    assert of_model.keys() == {"w", "b", "count", "steps"}
    assert of_model["steps"].dtype == jax.dtypes.float0


def test_the_convention_of_jax_without_structure_updates():
    f, given = doubled_gradient(graph_updates=False)
    model = Model()
    gx = nnx.grad(f, argnums=1)(model, 5.0)
    assert gx == 4.0
    assert model.count[...] == 5.0
    assert given == [1.0]

    @nnx.custom_vjp(graph=False, graph_updates=False)
    def g(x, y):
        return x * y

    g.defvjp(lambda x, y: (g(x, y), (x, y)), lambda xy, dz: (dz * xy[1], dz * xy[0]))
    assert jax.grad(g, argnums=(0, 1))(2.0, 3.0) == (3.0, 2.0)


def test_the_cotangent_of_what_was_written():
    @nnx.custom_vjp
    def f(m):
        m.w[...] = m.w**2
        return m.b * 1.0

    def fwd(m):
        before = m.w[...]
        return f(m), before

    def bwd(before, cotangents):
        (of_m,), dy = cotangents
        return ({"w": of_m["w"] * 2.0 * before, "b": dy},)

    f.defvjp(fwd, bwd)
    model = Model()
    grads = nnx.grad(lambda m: f(m) + 5.0 * m.w)(model)
    assert model.w[...] == 4.0
    assert (grads["w"][...], grads["b"][...]) == (5.0 * 2.0 * 2.0, 1.0)


def test_nondiff_arguments_come_first():
    @functools.partial(nnx.custom_vjp, nondiff_argnums=(0, -2))
    def f(scale, m, config, x):
        return scale(m.w) * config["by"] * x

    def bwd(scale, config, m, cotangents):
        assert callable(scale)
        return {"w": cotangents[1] * config["by"]}, 7.0

    f.defvjp(lambda scale, m, config, x: (f(scale, m, config, x), m), bwd)
    model = Model()
    grads, gx = nnx.grad(lambda m, x: f(jnp.sin, m, {"by": 3.0}, x), argnums=(0, 1))(model, 5.0)
    assert (grads["w"][...], grads["b"][...], gx) == (3.0, 0.0, 7.0)

    @nnx.custom_vjp(nondiff_argnums=1)
    def g(x, n):
        return x * n

    g.defvjp(lambda x, n: (g(x, n), None), lambda n, res, dy: (dy[1] * n * 10.0,))
    assert jax.grad(g)(1.0, 3) == 30.0


@pytest.mark.parametrize("how", ["state", "dict", "object", "none"])
def test_forms_of_a_gradient(how):
    @nnx.custom_vjp
    def f(m):
        return m.w * m.b

    def bwd(m, cotangents):
        whole = jax.tree.map(lambda x: jnp.ones_like(x), m)
        forms = {
            "state": nnx.state(whole, nnx.Param),
            "dict": {"w": jnp.ones(())},
            "object": whole,
            "none": None,
        }
        return (forms[how],)

    f.defvjp(lambda m: (f(m), m), bwd)
    grads = nnx.grad(f)(Model())
    assert float(grads["w"]) == float(how != "none")
    assert float(grads["b"]) == float(how in ("state", "object"))


def test_keywords_and_methods():
    class Scale(Model):
        @nnx.custom_vjp
        def __call__(self, x, offset=1.0):
            return self.w * x + offset

    Scale.__call__.defvjp(
        lambda self, x, offset: (self(x, offset), x),
        lambda x, cotangents: ({"w": 10.0 * x}, None, None),
    )
    assert nnx.grad(lambda m: m(x=2.0, offset=1.0))(Scale())["w"][...] == 20.0
    assert nnx.grad(lambda m: m(2.0))(Scale())["w"][...] == 20.0


def test_writes_in_the_forward_rule_under_plain_jax():
    model = Model()

    @jax.custom_vjp
    def f(x):
        return x * 2.0

    def fwd(x):
        model.count[...] = model.count + 1.0
        return f(x), None

    f.defvjp(fwd, lambda residuals, dy: (dy * 2.0,))
    # JAX runs the forward rule outside of the trace that differentiates: the write is allowed.
    assert nnx.grad(lambda x: f(x))(1.0) == 2.0
    assert model.count[...] == 1.0
    with pytest.raises(nnx.TraceContextError, match=r"BatchStat of shape \(\).*as an argument"):
        nnx.jit(nnx.grad(lambda x: f(x)))(1.0)
    assert model.count[...] == 1.0


def test_second_use_and_jaxpr():
    f, _ = doubled_gradient()
    jaxpr = nnx.make_jaxpr(lambda m, x: nnx.grad(f)(m, x)["w"][...])(Model(), 5.0)
    assert [x.shape for x in jaxpr.out_avals] == [(), ()]  # the count, and the gradient

    @nnx.custom_vjp
    def g(m, x):
        return m.w * x

    g.defvjp(lambda m, x: (g(m, x), m), lambda m, cotangents: (None, 2.0 * m.w))
    rows = nnx.vmap(nnx.grad(g, argnums=1), in_axes=(None, 0))(Model(), jnp.arange(3.0))
    np.testing.assert_array_equal(rows, [4.0, 4.0, 4.0])


def test_mistakes():
    @nnx.custom_vjp
    def f(m, x):
        return m.w * x

    model = Model()
    message = error_of(ValueError, f, model, 1.0)
    assert "has no rules yet: `f.defvjp(fwd, bwd)`" in message
    for option in ("symbolic_zeros", "optimize_remat"):
        message = error_of(ValueError, f.defvjp, None, None, **{option: True})
        assert "has no symbolic_zeros and no optimize_remat" in message
    fwd = lambda m, x: (f(m, x), None)  # noqa: E731
    f.defvjp(lambda m, x: f(m, x), lambda res, g: (None, None))
    message = error_of(TypeError, nnx.grad(f), model, 1.0)
    assert "must return a pair `(result, residuals)`, found" in message
    f.defvjp(fwd, lambda res, g: (None,))
    message = error_of(nnx.StructureError, nnx.grad(f), model, 1.0)
    assert "must return 2 gradients, one per differentiable argument, found 1" in message
    f.defvjp(fwd, lambda res, g: ({"v": 1.0}, None))
    message = error_of(nnx.StructureError, nnx.grad(f), model, 1.0)
    assert "has gradients for m.v, which the arguments do not have; they have m.b, " in message
    f.defvjp(fwd, lambda res, g: ({"w": jnp.ones(2)}, None))
    message = error_of(nnx.StructureError, nnx.grad(f), model, 1.0)
    assert "has gradients for m.w of shape (2,), expected ()" in message

    @nnx.custom_vjp
    def g(x, *, y):
        return x

    g.defvjp(lambda x: (x, None), lambda res, dy: (dy,))
    message = error_of(TypeError, g, 1.0, y=2.0)
    assert "cannot differentiate keyword-only arguments ['y']: make them positional" in message


def selective(filter, keep=None):
    """Returns `w * x + b`, with tripled gradients of what a filter selects."""
    seen = []

    @nnx.custom_vjp(nondiff_argnums=(nnx.DiffState(0, filter),))
    def f(m, x):
        m.count[...] = m.count + x
        return m.w * x + m.b

    def fwd(m, x):
        return f(m, x), (m, x)

    def bwd(residuals, cotangents):
        (m, x), ((of_model, of_x), dy) = residuals, cotangents
        seen.append((sorted(of_model), of_x))
        grads = nnx.State({"w": 3.0 * dy * x, "b": 3.0 * dy, "count": of_model["count"][...]})
        return nnx.filter_state(grads, lambda path, _: path[0] in (keep or filter)), dy * m.w

    f.defvjp(fwd, bwd)
    return f, seen


def test_diff_state_selects_the_variables_that_have_gradients():
    f, seen = selective(nnx.PathContains("w"), ["w"])
    grads = nnx.grad(f)(Model(), jnp.array(5.0))
    assert float(grads["w"][...]) == 15.0 and float(grads["b"][...]) == 0.0
    assert seen == [(["b", "count", "steps", "w"], None)]
    assert float(nnx.grad(f, argnums=1)(Model(), jnp.array(5.0))) == 2.0


def test_a_gradient_that_diff_state_does_not_select():
    f, _ = selective(nnx.PathContains("w"), ["w", "b"])
    found = error_of(nnx.StructureError, nnx.grad(f), Model(), jnp.array(5.0))
    assert "has gradients for m.b, which its DiffState does not select" in found
    assert "`del grads['b']`" in found


def test_positions_that_cannot_be():
    def make(nondiff_argnums, **mode):
        f = nnx.custom_vjp(lambda m, x: x, nondiff_argnums=nondiff_argnums, **mode)
        f.defvjp(lambda m, x: (x, None), lambda *given: None)
        return f

    select = nnx.DiffState(0, nnx.Param)
    assert "must be ints or nnx.DiffState, found 'x'" in error_of(TypeError, make, ("x",))
    assert "names an argument twice" in error_of(ValueError, make, (0, select))
    for mode in ({"graph": False}, {"graph_updates": False}):
        found = error_of(ValueError, make, select, **mode)
        assert (
            "and graph=False or graph_updates=False" in found
            and "nnx.unpack(model, nnx.Param, ...)" in found
        )
    found = error_of(ValueError, make((5,)), Model(), 1.0)
    assert "asks for argument 5, but the call has 2: give a position from 0 to 1" in found


@pytest.mark.parametrize("mode", [{"graph": False}, {"graph_updates": False}])
def test_cotangents_of_what_was_written(mode):
    seen = []

    @nnx.custom_vjp(nondiff_argnums=(1,), **mode)
    def f(m, factor, x):
        m.count[...] = m.count * 2 + x
        return m.w * x * factor

    def bwd(factor, residuals, dy, *, updates_g):
        seen.append(updates_g)
        return jax.tree.map(jnp.zeros_like, residuals), factor * dy

    f.defvjp(lambda m, factor, x: (f(m, factor, x), m), bwd)

    def loss(m, x):
        return f(m, 2, x) + 5 * m.count[...]

    nnx.grad(loss, argnums=(0, 1), allow_int=True)(Model(), 3.0)
    ((of_model, of_factor, of_x),) = seen
    assert of_factor is of_x is of_model.w is of_model.b is of_model.steps is None
    assert type(of_model) is Model and float(of_model.count[...]) == 5.0
