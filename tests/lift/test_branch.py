"""`cond` and `switch` with modules among the operands."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx


class Model(nnx.Module):
    def __init__(self, value=1.0):
        self.w = nnx.Param(jnp.full(2, value))
        self.count = nnx.BatchStat(jnp.zeros(()))
        self.big = nnx.Param(jnp.ones((5, 5)))
        self.x = jnp.zeros(())

    def up(self, x):
        self.count[...] = self.count + x
        return x

    def down(self, x):
        self.count[...] = self.count - x
        return x


def error_of(kind, call, *args, **kwargs):
    with pytest.raises(kind) as caught:
        call(*args, **kwargs)
    return str(caught.value)


def grow(m):
    m.w[...] = m.w * 2.0


def increment(m):
    m.count[...] = m.count + 1.0


def nothing(m):
    pass


# -- values


@pytest.mark.parametrize("pred", [True, False])
def test_cond_runs_one_branch(pred):
    for given in (pred, jnp.array(pred), np.bool_(pred)):
        model = Model()
        assert nnx.cond(given, grow, increment, model) is None
        assert model.w[0] == (2.0 if pred else 1.0)
        assert model.count[...] == (0.0 if pred else 1.0)


def test_switch_clamps_its_index():
    branches = [grow, increment, nothing]
    for index, expected in [(-3, (2.0, 0.0)), (1, (1.0, 1.0)), (2, (1.0, 0.0)), (9, (1.0, 0.0))]:
        model = Model()
        nnx.switch(jnp.array(index), branches, model)
        assert (model.w[0], model.count[...]) == expected
    assert nnx.switch(0, [lambda x: 2.0 * x], 3.0) == 6.0


def test_several_models_and_results():
    def left(a, b, x):
        a.w[...] = b.w + x
        return {"sum": a.w.sum(), "model": b}

    def right(a, b, x):
        b.count[...] = b.count + x
        return {"sum": b.w.sum(), "model": b}

    a, b = Model(), Model(3.0)
    out = nnx.cond(True, left, right, a, b, 1.0)
    assert out["model"] is b
    assert out["sum"] == 8.0
    out = nnx.jit(lambda p, a, b: nnx.cond(p, left, right, a, b, 1.0))(False, a, b)
    assert out["model"] is b
    assert (a.w[0], b.count[...]) == (4.0, 1.0)


def test_bound_methods():
    a, b = Model(), Model()
    assert nnx.cond(True, a.up, b.up, 2.0) == 2.0
    assert nnx.cond(False, a.up, b.down, 3.0) == 3.0
    assert (a.count[...], b.count[...]) == (2.0, -3.0)
    nnx.switch(1, [a.up, a.down, lambda x: x], 1.0, graph=False)
    assert a.count[...] == 1.0
    nnx.cond(True, lambda x: x, a.up, 5.0)
    assert a.count[...] == 1.0


def test_arrays_as_attributes_changed_in_one_branch():
    def set_x(m):
        m.x = m.x + 5.0

    for pred, expected in [(True, 5.0), (False, 0.0)]:
        model = Model()
        nnx.cond(pred, set_x, nothing, model)
        assert model.x == expected
        nnx.switch(jnp.array(int(pred)), [nothing, set_x, grow], model)
        assert model.x == 2.0 * expected


def test_structure_changed_alike():
    def add(value):
        def branch(m):
            m.new = nnx.Cache(jnp.full(3, value))
            m.ready = True
            del m.big

        return branch

    model = Model()
    nnx.cond(False, add(1.0), add(2.0), model)
    np.testing.assert_array_equal(model.new, [2.0, 2.0, 2.0])
    assert model.ready
    assert not hasattr(model, "big")


def test_metadata_and_pytree_values_changed_alike():
    variable = nnx.Variable({"a": jnp.zeros(2)})

    def branch(value):
        def run(v):
            v.set_value({"b": jnp.full(3, value)})
            v.set_metadata(tag="t")

        return run

    nnx.cond(True, branch(1.0), branch(2.0), variable)
    np.testing.assert_array_equal(variable.get_value()["b"], [1.0, 1.0, 1.0])
    assert variable.get_metadata() == {"tag": "t"}


def test_a_pytree_value_in_one_branch_only():
    variable = nnx.Variable({"a": jnp.zeros(2), "b": jnp.ones(())})

    def write(v):
        v["b"] = v["b"] + 1.0

    nnx.cond(True, write, nothing, variable)
    nnx.cond(False, write, nothing, variable)
    assert variable["b"] == 2.0


def test_a_weak_type_in_one_branch_is_promoted_as_in_jax():
    out = nnx.cond(True, lambda x: x, lambda x: 1.0, jnp.float32(2.0))
    assert out.dtype == jnp.float32


def test_modes():
    model = Model()
    for options in ({"graph": False}, {"graph_updates": False}):
        nnx.cond(True, grow, increment, model, **options)
        nnx.switch(1, [grow, increment], model, **options)
    assert (model.w[0], model.count[...]) == (4.0, 2.0)
    with pytest.raises(nnx.SharedReferenceError):
        nnx.cond(True, nothing, nothing, nnx.Dict(a=model, b=model), graph=False)

    def sets_attribute(m):
        m.flag = True

    nnx.cond(True, sets_attribute, nothing, model, graph_updates=False)
    assert not hasattr(model, "flag")


# -- what comes out


def eqns_of(jaxpr, name):
    for equation in jaxpr.eqns:
        if equation.primitive.name == name:
            yield equation
        for parameter in jax.tree.leaves(list(equation.params.values())):
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                yield from eqns_of(inner, name)


def shapes(variables):
    return sorted(x.aval.shape for x in variables)


def test_only_the_union_of_what_is_written_comes_out():
    model, pred = Model(), jnp.array(True)

    def read_big(m):
        grow(m)
        return m.big.sum()

    def also(m):
        increment(m)
        return m.big.max()

    jaxpr = nnx.make_jaxpr(lambda p, m: nnx.cond(p, read_big, also, m))(pred, model).jaxpr
    (equation,) = eqns_of(jaxpr, "cond")
    assert shapes(equation.outvars) == shapes(jaxpr.outvars) == [(), (), (2,)]
    jaxpr = nnx.make_jaxpr(lambda m: nnx.switch(1, [nothing, increment, increment], m))(model).jaxpr
    (equation,) = eqns_of(jaxpr, "cond")
    assert shapes(equation.outvars) == shapes(jaxpr.outvars) == [()]


@pytest.mark.parametrize(
    "choose",
    [nnx.cond, lambda index, f, g, m: nnx.switch(index, [f, g], m)],
    ids=["cond", "switch"],
)
def test_the_same_branches_are_traced_once(choose):
    traces = []

    def branch(factor):
        def run(m):
            traces.append(1)
            m.w[...] = m.w * factor

        return run

    double, again = branch(2.0), branch(2.0)

    def step(model, index):
        choose(index, again, double, model)
        choose(index, again, double, model)

    step(model := Model(), 1)
    nnx.jit(step)(Model(), jnp.array(0))
    assert len(traces) == 2
    assert model.w[0] == 4.0
    choose(1, branch(2.0), double, model)  # one made anew
    assert len(traces) == 4


# -- transforms around and inside


def test_differentiated_mapped_and_nested():
    def f(model, x):
        def positive(m, x):
            m.count[...] = m.count + 1.0
            return nnx.cond(x.sum() > 5.0, lambda m, x: m.w * x, lambda m, x: m.w * x**2, m, x)

        return nnx.cond(x.sum() > 0, positive, lambda m, x: -x, model, x).sum()

    model = Model()
    for x in (jnp.ones(2), 3.0 * jnp.ones(2), -jnp.ones(2)):
        expected = jax.grad(
            lambda w, x=x: jnp.sum((w * x**2 if x.sum() <= 5 else w * x) if x[0] > 0 else -x)
        )(model.w[...])
        np.testing.assert_array_equal(nnx.grad(f)(model, x)["w"], expected)
    assert model.count[...] == 2.0

    def read(m, x):
        return nnx.cond(x > 0, lambda m, x: m.w.sum() * x, lambda m, x: x, m, x)

    rows = nnx.vmap(read, in_axes=(None, 0))(model, jnp.array([1.0, -1.0]))
    np.testing.assert_array_equal(rows, [2.0, -1.0])


def test_a_branch_that_closes_over_tracers():
    @nnx.jit
    def f(model, x):
        def branch(m):
            m.w[...] = m.w * x

        nnx.cond(x > 0, branch, nothing, model)

    model = Model()
    f(model, 2.0)
    f(model, 3.0)
    assert model.w[0] == 6.0


# -- mistakes


def test_no_branches():
    message = error_of(ValueError, nnx.switch, 0, [], 1.0)
    assert "switch needs at least one branch: `nnx.switch(index, [f, g], x)`" in message


def test_different_results():
    def pair(m):
        return {"a": m.w, "b": (m.w[...], 1)}

    def other(m):
        return {"a": m.w, "b": (m.w[...], None)}

    message = error_of(nnx.StructureError, nnx.cond, True, pair, other, Model())
    assert "the branches of nnx.cond must return the same structure: at output.b[1]" in message
    assert "returns None (static)" in message
    assert ".other' " in message and ".pair' an array" in message


def test_different_shapes_of_results():
    longer = lambda x: {"y": jnp.ones(3)}  # noqa: E731
    message = error_of(
        nnx.StructureError, nnx.cond, True, lambda x: {"y": x}, longer, jnp.ones(2)
    )  # fmt: skip
    assert "the branches of nnx.cond leave output.y with different shapes or dtypes" in message
    assert "float32[3] in " in message
    assert "Convert it in the branch, `x.astype(dtype)`" in message


def test_different_dtypes_written():
    def half(m):
        m.w.set_value(m.w[...].astype(jnp.bfloat16))

    message = error_of(nnx.StructureError, nnx.switch, 0, [grow, half, nothing], Model())
    assert "the branches of nnx.switch leave m.w with different shapes or dtypes" in message
    assert "float32[2] in 'grow' and bfloat16[2] in " in message


def test_attributes_changed_in_one_branch():
    def flag(m):
        m.flag = True

    message = error_of(nnx.StructureError, nnx.cond, True, flag, nothing, Model())
    assert "must change structure alike: m.flag is nothing after 'nothing' and True" in message
    assert (
        "and True (static) after 'test_attributes_changed_in_one_branch.<locals>.flag'" in message
    )
    assert "Set the attribute before the call, and hold what changes in a Variable" in message
    model = Model()
    model.flag = False
    message = error_of(nnx.StructureError, nnx.cond, True, flag, nothing, model)
    assert "m.flag is False (static) after 'nothing' and True (static)" in message
    assert model.flag is False


def test_metadata_changed_in_one_branch():
    def tag(v):
        v.set_metadata(tag="t")

    message = error_of(nnx.StructureError, nnx.cond, True, tag, nothing, nnx.Variable(1.0))
    assert "leave v with different structure or metadata" in message or "leave m with" in message
    assert "metadata {'tag': 't'} in " in message
    assert "Set metadata before the call, and keep the structure" in message


def test_pytree_structure_changed_in_one_branch():
    def rename(v):
        v.set_value({"b": v["a"]})

    variable = nnx.Variable({"a": jnp.zeros(2)})
    message = error_of(nnx.StructureError, nnx.cond, True, rename, nothing, variable)
    assert "PyTreeDef({'a': *}), metadata {} in 'nothing' and PyTreeDef({'b': *})" in message


def test_what_is_no_branch_or_no_truth_value():
    message = error_of(TypeError, nnx.cond, True, jnp.ones(2), jnp.ones(2))
    assert "nnx.cond expects functions of the operands as branches, found f32[2]: give" in message
    message = error_of(TypeError, nnx.cond, jnp.ones(2) > 0, lambda: 1.0, lambda: 2.0)
    assert "found an array of shape (2,): choose by `jnp.all(...)` or `jnp.any(...)`" in message
