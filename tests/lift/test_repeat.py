"""`while_loop` and `fori_loop` with modules in the carry."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx


class Model(nnx.Module):
    def __init__(self, size=2):
        self.w = nnx.Param(jnp.ones(size))
        self.count = nnx.BatchStat(jnp.zeros(()))

    def step(self, x):
        self.count[...] = self.count + 1.0
        return self.w * x

    def indexed(self, i, x):
        self.count[...] = self.count + i
        return x * 2.0


def error_of(kind, call, *args, **kwargs):
    with pytest.raises(kind) as caught:
        call(*args, **kwargs)
    return str(caught.value)


def grow(m):
    m.count[...] = m.count + 1.0
    return m


def loops(number):
    """Returns both loops as functions of a body and a carry that run it `number` times."""

    def whiles(body, carry, **mode):
        return nnx.while_loop(
            lambda c: c[0] < number, lambda c: (c[0] + 1, body(c[1])), (0, carry), **mode
        )[1]

    def fori(body, carry, **mode):
        return nnx.fori_loop(0, number, lambda i, c: body(c), carry, **mode)

    return [whiles, fori]


@pytest.mark.parametrize("loop", loops(3), ids=["while", "fori"])
class TestBoth:
    def test_two_different_models(self, loop):
        a, b = Model(), nnx.Linear(2, 2, rngs=nnx.Rngs(0))
        kernel = b.kernel[...]

        def body(carry):
            a, b, x = carry
            b.kernel[...] = b.kernel * 2.0
            return a, b, a.step(b(x) * 0.0 + 1.0)

        out = loop(body, (a, b, jnp.zeros(2)))
        assert out[0] is a
        assert out[1] is b
        assert a.count[...] == 3.0
        np.testing.assert_array_equal(b.kernel, kernel * 8.0)
        np.testing.assert_array_equal(out[2], [1.0, 1.0])

    def test_modes(self, loop):
        model = Model()
        for options in ({"graph": False}, {"graph_updates": False}):
            assert loop(grow, model, **options) is model
        assert model.count[...] == 6.0
        with pytest.raises(nnx.SharedReferenceError):
            loop(grow, nnx.Dict(a=model, b=model), graph=False)

    def test_arrays_as_attributes(self, loop):
        model = Model()
        model.x = jnp.zeros(())

        def body(m):
            m.x = m.x + 2.0
            return m

        loop(body, model)
        assert model.x == 6.0

    def test_a_new_object_in_the_carry(self, loop):
        model = nnx.Dict(v=nnx.Variable(jnp.zeros(())))
        old = model["v"]

        def body(m):
            m["v"] = nnx.Variable(m["v"] + 1.0)
            return m

        loop(body, model)
        assert model["v"][...] == 3.0
        assert model["v"] is not old
        assert old[...] == 0.0

    def test_shared_and_nested(self, loop):
        shared = Model()

        def body(pair):
            assert pair["a"] is pair["b"][0]
            inner = lambda i, m: grow(m)  # noqa: E731
            nnx.fori_loop(0, 2, inner, pair["a"])
            return pair

        loop(body, {"a": shared, "b": [shared]})
        assert shared.count[...] == 6.0

    def test_dropout_draws_in_each_iteration(self, loop):
        dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(0))
        same = nnx.Dropout(0.5, rngs=nnx.Rngs(0))
        _, y = loop(lambda c: (c[0], c[1] + c[0](jnp.ones(8))), (dropout, jnp.zeros(8)))
        np.testing.assert_allclose(y, sum(same(jnp.ones(8)) for _ in range(3)), rtol=1e-6)
        assert dropout.rngs.count[...] == 3

    def test_a_changed_shape_or_dtype(self, loop):
        message = error_of(
            nnx.StructureError, loop, lambda m: [m.w.set_value(jnp.ones(3)), m][1], Model()
        )
        assert "must keep shapes and dtypes from one iteration to the next" in message
        assert ".w was float32[2] before and is float32[3] after" in message
        message = error_of(
            nnx.StructureError, loop, lambda x: {"a": x["a"].astype(jnp.int32)}, {"a": jnp.ones(2)}
        )
        assert ".a was float32[2] before and is int32[2] after" in message
        assert "Convert it in the body, `x.astype(dtype)`" in message

    def test_a_changed_structure(self, loop):
        def flag(m):
            m.flag = True
            return m

        model = Model()
        message = error_of(nnx.StructureError, loop, flag, model)
        assert ".flag was nothing before and is True (static) after" in message
        assert "hold what changes in a Variable, `nnx.Variable(value)`" in message
        model.flag = False
        message = error_of(nnx.StructureError, loop, flag, model)
        assert ".flag was False (static) before and is True (static) after" in message
        message = error_of(nnx.StructureError, loop, lambda c: (c[0],), (1.0, 2.0))
        assert "before and is nothing after" in message

    def test_objects_keep_their_places(self, loop):
        message = error_of(nnx.StructureError, loop, lambda c: (c[1], c[0]), (Model(), Model()))
        assert "has a Model of the call at the place of another" in message
        assert "`a[...], b[...] = b[...], a[...]`" in message

    def test_what_was_set_may_not_be_lost(self, loop):
        def body(m):
            grow(m)
            return Model()

        message = error_of(nnx.StructureError, loop, body, Model())
        assert "count, which is in no place of the carry that it returns" in message
        assert "Return the object that was given" in message


# -- while_loop


def test_the_condition_reads_the_model():
    model = Model()
    out = nnx.while_loop(lambda m: m.count < 5.0, grow, model)
    assert out is model
    assert model.count[...] == 5.0
    assert nnx.while_loop(lambda m: m.count < 5.0, grow, model) is model
    assert model.count[...] == 5.0


def test_while_loop_of_a_method():
    model = Model()
    y = nnx.while_loop(lambda x: x.sum() < 10.0, model.step, jnp.full(2, 5.0))
    np.testing.assert_array_equal(y, [5.0, 5.0])
    model.w[...] = jnp.full(2, 2.0)
    y = nnx.while_loop(lambda x: x.sum() < 30.0, model.step, jnp.full(2, 5.0))
    np.testing.assert_array_equal(y, [20.0, 20.0])
    assert model.count[...] == 2.0


def test_a_condition_that_is_a_method_sees_what_the_body_writes():
    class Limited(Model):
        def goes_on(self, x):
            return self.count < 4.0

    model, other = Limited(), Limited()
    nnx.while_loop(model.goes_on, model.step, jnp.ones(2))
    assert model.count[...] == 4.0
    nnx.while_loop(other.goes_on, grow, other)
    assert other.count[...] == 4.0
    message = error_of(
        nnx.StructureError, nnx.while_loop, model.step, lambda x: x, jnp.ones(2)
    )  # fmt: skip
    assert "the condition of nnx.while_loop writes functions.count" in message


def test_a_condition_that_writes():
    message = error_of(
        nnx.StructureError, nnx.while_loop, lambda m: grow(m).count < 3.0, grow, Model()
    )
    assert "the condition of nnx.while_loop writes" in message
    assert "count: it may only read. Write in the body" in message


@pytest.mark.parametrize(
    ("found", "text"),
    [(None, "None"), (0.5, "a float"), (jnp.ones(2) > 0, r"bool\[2\]"), ((True,), "a tuple")],
)
def test_a_condition_that_is_no_truth_value(found, text):
    def goes_on(carry):
        return found

    expected = rf"the condition of nnx\.while_loop, '.*goes_on', must return one .*, found {text}: "
    with pytest.raises(TypeError, match=expected):
        nnx.while_loop(goes_on, lambda c: c, jnp.ones(2))


def test_a_body_in_another_place():
    with pytest.raises(TypeError, match=r"a function of index and carry as its third argument, f"):
        nnx.fori_loop(lambda i, c: c, 0, 5, jnp.ones(2))


def test_a_condition_may_return_a_variable():
    switch = nnx.Dict(on=nnx.Variable(jnp.array(True)))

    def off(m):
        m.on[...] = jnp.array(False)
        return m

    assert not nnx.while_loop(lambda m: m.on, off, switch).on[...]


def test_paths_are_those_of_the_parameters():
    def body(carry):
        carry[1].flag = True
        return carry

    message = error_of(nnx.StructureError, nnx.fori_loop, 0, 2, lambda i, c: body(c), (0, Model()))
    assert "c[1].flag was nothing before" in message
    message = error_of(nnx.StructureError, nnx.while_loop, lambda c: True, body, (0, Model()))
    assert "carry[1].flag was nothing before" in message

    class Holds(Model):
        def flags(self, i, x):
            self.flag = True
            return x

    message = error_of(nnx.StructureError, nnx.fori_loop, 0, 2, Holds().flags, 1.0)
    assert "self.flag was nothing before" in message


# -- fori_loop


def test_the_index_and_the_bounds():
    def body(i, total):
        return total + i

    assert nnx.fori_loop(2, 5, body, 0) == 9
    for bounds in [(jnp.int32(2), jnp.int32(5)), (np.int64(2), 5)]:
        assert nnx.fori_loop(*bounds, body, 0) == 9
    assert nnx.jit(lambda n: nnx.fori_loop(2, n, body, 0))(5) == 9
    assert nnx.fori_loop(5, 2, body, 7) == 7
    assert nnx.fori_loop(0, 3, lambda i, x: x * i + 1.0, 1.0) == 5.0  # a weak index
    with jax.enable_x64(True):
        assert nnx.fori_loop(0, 3, lambda i, c: i, jnp.int64(0)).dtype == jnp.int64
    with pytest.raises(TypeError):
        nnx.fori_loop(0, 2.5, body, 0)


def test_unroll_and_method():
    model = Model()
    assert nnx.fori_loop(0, 3, model.indexed, 1.0, unroll=True) == 8.0
    assert nnx.fori_loop(0, 4, model.indexed, 1.0, unroll=2) == 16.0
    assert model.count[...] == 3.0 + 6.0
    with pytest.raises(ValueError, match="unroll"):
        nnx.jit(lambda n: nnx.fori_loop(0, n, model.indexed, 1.0, unroll=2))(3)


def test_differentiated_with_known_bounds():
    def power(model, x, n):
        def body(i, carry):
            model, y = carry
            return grow(model), model.w * y

        return nnx.fori_loop(0, n, body, (model, x))[1].sum()

    model = Model()
    model.w[...] = jnp.array([2.0, 3.0])
    for transform in (lambda f: f, nnx.jit):
        grads = transform(nnx.grad(lambda m, x: power(m, x, 3)))(model, jnp.ones(2))
        np.testing.assert_allclose(grads["w"], 3.0 * model.w**2, rtol=1e-6)
    assert model.count[...] == 6.0
    grads = nnx.grad(lambda m, x: power(m, x, np.int32(3)))(model, jnp.ones(2))
    np.testing.assert_allclose(grads["w"], 3.0 * model.w**2, rtol=1e-6)
    with pytest.raises(ValueError, match="Reverse-mode differentiation does not work"):
        nnx.jit(nnx.grad(power), static_argnums=())(model, jnp.ones(2), 3)


def test_fori_loop_in_cond_under_vmap_and_grad():
    def f(model, x):
        def loop(m, x):
            return nnx.fori_loop(0, 3, lambda i, c: (c[0], c[0].w * c[1]), (m, x))[1].sum()

        return nnx.cond(x[0] > 0.0, loop, lambda m, x: x.sum(), model, x)

    model = Model()
    model.w[...] = jnp.array([2.0, 3.0])
    x = jnp.array([[1.0, 1.0], [-1.0, 5.0]])
    np.testing.assert_array_equal(nnx.vmap(f, in_axes=(None, 0))(model, x), [35.0, 4.0])
    grads = nnx.grad(lambda m: nnx.vmap(f, in_axes=(None, 0))(m, x).sum())(model)
    np.testing.assert_array_equal(grads["w"], [12.0, 27.0])


def test_nested_loops_and_grad_inside():
    def train(model):
        def outer(i, model):
            def inner(i, model):
                grads = nnx.grad(lambda m: jnp.sum(m.w**2))(model)
                model.w[...] = model.w - 0.25 * grads["w"]
                return grow(model)

            return nnx.fori_loop(0, 2, inner, model)

        return nnx.fori_loop(0, 2, outer, model)

    model = Model()
    nnx.jit(train)(model)
    np.testing.assert_array_equal(model.w, [0.0625, 0.0625])
    assert model.count[...] == 4.0


# -- what goes round, and what comes out


def eqns_of(jaxpr, *names):
    for equation in jaxpr.eqns:
        if equation.primitive.name in names:
            yield equation
        for parameter in jax.tree.leaves(list(equation.params.values())):
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                yield from eqns_of(inner, *names)


def test_only_what_changes_goes_round():
    def reads(m):
        m.count[...] = m.count + m.w.sum()
        return m

    def whiles(m):
        nnx.while_loop(lambda m: m.count < m.w.sum(), reads, m)

    def fori(m):
        nnx.fori_loop(0, 3, lambda i, m: reads(m), m)

    for f in (whiles, fori):
        jaxpr = nnx.make_jaxpr(f)(Model(7)).jaxpr
        (loop,) = eqns_of(jaxpr, "while", "scan")
        assert (7,) not in [x.aval.shape for x in loop.outvars]
        assert [x.aval.shape for x in jaxpr.outvars] == [()]


@pytest.mark.parametrize("loop", loops(3), ids=["while", "fori"])
def test_a_body_is_traced_once(loop):
    traces = []

    def body(m):
        traces.append(1)
        return grow(m)

    loop(body, model := Model())
    assert len(traces) == 1
    loop(body, model)  # by another function of this one
    assert len(traces) == 2
    nnx.jit(lambda m: loop(body, m))(model)
    assert len(traces) == 3
    assert model.count[...] == 9.0


def test_the_same_functions_are_traced_once():
    traces = []

    def body(m):
        traces.append("body")
        return grow(m)

    def condition(m):
        traces.append("condition")
        return m.count < 3.0

    def indexed(i, m):
        traces.append("indexed")
        return grow(m)

    def run(model):
        nnx.while_loop(condition, body, model)
        nnx.fori_loop(0, 3, indexed, model)

    for call in (run, run, nnx.jit(run)):
        call(model := Model())
        assert model.count[...] == 6.0
    assert sorted(traces) == ["body", "condition", "indexed"]


def test_a_weak_carry_is_promoted_as_jax_does():
    traces = []

    def body(carry):
        traces.append(1)
        n, x, model = carry
        return n + 1, x + jnp.float32(0.5), grow(model)

    for kind in (nnx, jax.lax):
        traces.clear()
        n, x, _ = kind.while_loop(lambda c: c[0] < 3, body, (0, 0, Model()))
        assert (n, x, x.dtype) == (3, 1.5, jnp.float32)
        assert len(traces) == 2
    with pytest.raises(nnx.StructureError, match="must keep shapes and dtypes"):
        nnx.while_loop(lambda x: x < 3, lambda x: x.astype(jnp.float32), jnp.int32(0))


@pytest.mark.parametrize("number", [0, 2])
def test_nothing_compiled(number):
    with jax.disable_jit():
        for loop in loops(number):
            assert loop(grow, model := Model()) is model
            assert model.count[...] == number


def test_a_body_that_closes_over_tracers():
    @nnx.jit
    def f(model, x):
        def body(m):
            m.count[...] = m.count + x
            return m

        nnx.while_loop(lambda m: m.count < 10.0, body, model)
        nnx.fori_loop(0, 2, lambda i, m: body(m), model)

    for step, expected in [(3.0, 18.0), (5.0, 20.0)]:
        model = Model()
        f(model, step)
        assert model.count[...] == expected
