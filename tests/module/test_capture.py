"""Captures: what functions sow and perturb, as outputs instead of in the model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx
from tests.module.blocks import NUDGES, SOWN, Block, Model, X, paths, values


@pytest.mark.parametrize(
    "call",
    [
        lambda model: nnx.capture(model, nnx.Intermediate)(X),
        lambda model: nnx.capture(model.__call__, nnx.Intermediate)(X),
        lambda model: nnx.capture(lambda m, x: m(x), nnx.Intermediate)(model, X),
        lambda model: nnx.capture(lambda x, m: m(x), nnx.Intermediate)(X, model),
        lambda model: nnx.capture(lambda x, m: m(x), nnx.Intermediate)(X, m=model),
        lambda model: nnx.capture(nnx.Intermediate)(lambda m, x: m(x))(model, X),
        lambda model: nnx.capture(nnx.jit(lambda m, x: m(x)), nnx.Intermediate)(model, X),
        lambda model: nnx.jit(lambda m, x: nnx.capture(m, nnx.Intermediate)(x))(model, X),
        lambda model: jax.jit(lambda m, x: nnx.capture(m, nnx.Intermediate)(x))(model, X),
    ],
    ids="module method function later keyword decorator of_jit in_jit in_plain_jit".split(),
)
def test_sown_values_come_out_and_the_model_stays_free_of_them(call):
    model = Model()
    if call.__code__.co_names[:1] == ("jax",):  # plain JAX sees a shared block as two
        model.rest[1] = Block(2.0)
    before = paths(model)
    y, sown = call(model)
    np.testing.assert_array_equal(y, [12.0, 12.0])
    assert type(sown) is nnx.State
    if len(before) == len(paths(Model())):
        assert values(sown) == SOWN
    assert paths(model) == before


def test_reduce_and_init_functions_are_used():
    class Counter(nnx.Module):
        def __call__(self, x):
            for _ in range(3):
                self.sow(nnx.Intermediate, "n", 1, reduce_fn=lambda a, b: a + b, init_fn=lambda: 0)
            return x

    assert nnx.capture(Counter(), nnx.Intermediate)(X)[1].n.value == 3


def test_what_the_model_holds_already_stays():
    model = Model()
    model(X)
    kept = model.first.scaled.value
    _, sown = nnx.capture(model, nnx.Intermediate)(X)
    assert values(sown) == SOWN
    assert model.first.scaled.value is kept


def test_modules_in_containers():
    model = Model()
    _, sown = nnx.capture(lambda tree: tree["m"][0](X), nnx.Intermediate)({"m": [model]})
    assert values(sown) == {("m", 0, *path): value for path, value in SOWN.items()}
    heads = nnx.Dict(a=Block(2.0))
    _, sown = nnx.capture(lambda heads: [head(X) for head in heads.values()], nnx.Intermediate)(
        heads
    )
    assert list(nnx.to_flat_state(sown).paths) == [("a", "scaled")]


# -- perturbations
def test_gradients_of_intermediate_values():
    model = Model()
    _, nudges = nnx.capture(model, nnx.Perturbation)(X)

    def loss(nudges, model, x):
        y, sown = nnx.capture(model, nnx.Intermediate, init=nudges)(x)
        return y.sum(), sown

    grads, sown = nnx.grad(loss, has_aux=True)(nudges, model, X)
    # first is called twice, before times 3 and times 2 and at the end
    assert values(grads) == {("first", "nudge"): [7.0, 7.0], ("rest", 0, "nudge"): [2.0, 2.0]}
    assert values(sown) == SOWN


def test_perturbations_may_be_given_as_plain_values():
    init = {"first": {"nudge": jnp.ones(2)}}
    y, nudges = nnx.capture(Model(), nnx.Perturbation, init=init)(X)
    np.testing.assert_array_equal(y, [19.0, 19.0])
    assert values(nudges) == {**NUDGES, ("first", "nudge"): [1.0, 1.0]}
    np.testing.assert_array_equal(nnx.capture(Model(), init=init)(X), [19.0, 19.0])


def test_perturbations_of_another_model():
    with pytest.raises(nnx.StructureError, match=r"perturbations at model\.last, where"):
        nnx.capture(Model(), init={"last": {"nudge": jnp.ones(2)}})(X)


# -- transforms inside
def test_inside_grad():
    def f(model, x):
        return nnx.grad(lambda m, x: m(x).sum())(model, x)

    grads, sown = nnx.capture(f, nnx.Intermediate)(Model(), X)
    assert values(sown) == SOWN
    assert grads.rest[0].scale.value == 8.0


def test_inside_vmap():
    axes = nnx.StateAxes({nnx.Intermediate: 0, ...: None})
    each = nnx.vmap(lambda m, x: m(x), in_axes=(axes, 0))
    y, sown = nnx.capture(each, nnx.Intermediate)(Model(), jnp.ones((3, 2)))
    assert y.shape == (3, 2)
    assert [x.shape for x in sown.first.scaled.value] == [(3, 2), (3, 2)]


@pytest.mark.parametrize("options", [{}, {"graph_updates": False}, {"graph": False}], ids=str)
@pytest.mark.parametrize("transform", [nnx.vmap, nnx.scan])
def test_inside_maps_and_loops_over_blocks(options, transform):
    class Blocks(nnx.Module):
        def __init__(self):
            self.blocks = nnx.vmap(lambda scale: Block(scale))(jnp.arange(3.0))

        def __call__(self, x):
            axes = {"in_axes": (0, 0), "out_axes": 0}
            return transform(lambda block, x: block(x), **axes, **options)(self.blocks, x)

    x = jnp.ones((3, 2))
    y, sown, nudges = nnx.capture(Blocks(), nnx.Intermediate, nnx.Perturbation)(x)
    (scaled,) = sown.blocks.scaled.value
    np.testing.assert_array_equal(scaled, y)
    np.testing.assert_array_equal(nudges.blocks.nudge.value, 0 * x)


def test_a_shared_model_that_sows_inside_vmap_is_told_to_map_it():
    share = nnx.vmap(lambda m, x: m(x), in_axes=(None, 0))
    found = (
        r"written to what m sows, shared .*`nnx\.StateAxes\(\{nnx\.Intermediate: 0, \.\.\.: None"
    )
    with pytest.raises(nnx.PrefixError, match=found):
        nnx.capture(share, nnx.Intermediate)(Block(2.0), jnp.ones((3, 2)))


def test_a_shared_model_that_sows_inside_scan_is_refused():
    axes = {"in_axes": (None, nnx.Carry, 0), "out_axes": (nnx.Carry, 0)}
    share = nnx.scan(lambda m, c, x: (c, m(x)), **axes)
    with pytest.raises(nnx.StructureError, match="must keep its structure"):
        nnx.capture(share, nnx.Intermediate)(Block(2.0), jnp.zeros(()), jnp.ones((3, 2)))


def test_inside_jit_that_writes_back_nothing_but_variables():
    f = nnx.jit(lambda m, x: m(x), graph_updates=False)
    for _ in range(3):
        assert values(nnx.capture(f, nnx.Intermediate)(Model(), X)[1]) == SOWN


def test_what_a_plain_jax_transform_would_leak_is_refused():
    with pytest.raises(nnx.TraceContextError, match=r"cannot write Intermediate .*as an argument"):
        nnx.capture(lambda m, x: jax.vmap(m)(x), nnx.Intermediate)(Block(2.0), jnp.ones((3, 2)))


def test_a_jitted_function_is_traced_once_for_equal_captures():
    traces = []

    @nnx.jit
    def f(model, x):
        traces.append(None)
        return model(x)

    model = Model()
    for _ in range(3):
        _, sown = nnx.capture(f, nnx.Intermediate)(model, X)
    assert values(sown) == SOWN and len(traces) == 1
    f(model, X)
    assert len(traces) == 2


# -- outputs of methods
def test_outputs_of_all_public_methods():
    class Talker(Block):
        def __call__(self, x):
            self.describe(), self.itself()
            return super().__call__(x)

    model = nnx.Dict(a=Talker(2.0))
    f = nnx.capture(lambda m: m.a(X), nnx.Intermediate, method_outputs=nnx.Intermediate)
    _, sown = f(model)
    assert values(sown.a) == {
        ("__call__",): [[2.0, 2.0]],
        ("times",): [[2.0, 2.0]],
        ("scaled",): [[2.0, 2.0]],
    }
    assert type(model.a) is Talker


def test_outputs_of_methods_need_no_further_type():
    _, outputs = nnx.capture(Model(), method_outputs=nnx.Intermediate)(X)
    assert values(outputs)[("rest", 0, "times")] == [[6.0, 6.0]]


def test_outputs_of_methods_inside_jit_and_of_jitted_methods():
    class Jitted(nnx.Module):
        @nnx.jit
        def __call__(self, x):
            return self.inner(x)

        def inner(self, x):
            return 2 * x

    model = Jitted()
    for _ in range(2):
        _, outputs = nnx.capture(model, method_outputs=nnx.Intermediate)(X)
        assert values(outputs) == {("__call__",): [[2.0, 2.0]], ("inner",): [[2.0, 2.0]]}
    assert type(model) is Jitted


# -- failures
def test_after_an_error_the_model_is_as_before():
    model = Model()

    def fail(model):
        model(X)
        raise KeyError

    with pytest.raises(KeyError):
        nnx.capture(fail, nnx.Intermediate, method_outputs=nnx.Intermediate)(model)
    assert paths(model) == paths(Model())
    assert type(model.first) is Block and not hasattr(model, "_taps")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nnx.capture(3, nnx.Intermediate), TypeError, "a Module, a method or a function"),
        (lambda: nnx.capture(Model(), "x"), TypeError, "capture expects Variable types, found 'x'"),
        (lambda: nnx.capture(Model(), method_outputs=int), TypeError, "found <class 'int'>"),
        (lambda: nnx.capture(abs, nnx.Intermediate)(1), ValueError, "no Module among .* 'abs'"),
    ],
)
def test_wrong_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_one_name_for_two_types():
    class Sower(nnx.Module):
        def __call__(self):
            self.sow(nnx.Intermediate, "x", 1)
            self.sow(nnx.BatchStat, "x", 1)

    with pytest.raises(ValueError, match=r"Sower\.x: expected a BatchStat, found a Intermediate"):
        nnx.capture(Sower(), nnx.Variable)()
    _, *states = nnx.capture(Sower(), nnx.Intermediate, nnx.BatchStat)()
    assert [type(state.x) for state in states] == [nnx.Intermediate, nnx.BatchStat]


def test_a_captured_model_inside_a_trace_is_refused():
    model = Model()
    with pytest.raises(nnx.TraceContextError, match="Pass it as an argument"):
        jax.jit(lambda x: nnx.capture(model, nnx.Intermediate)(x))(X)
