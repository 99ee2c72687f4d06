"""Optimizer: equal to plain Optax for any transformation, and clear about what does not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, PartitionSpec

import weft as nnx
from tests.devices import make_mesh


class Net(nnx.Module):
    def __init__(self, seed: int = 0, *, width: int = 2, dtype=jnp.float32):
        rngs = nnx.Rngs(seed)
        make = lambda i, o: nnx.Linear(i, o, param_dtype=dtype, rngs=rngs)  # noqa: E731
        self.body = [make(2, width), make(width, 2)]
        self.head = make(2, 2)
        self.seen = nnx.BatchStat(jnp.zeros(()))

    def __call__(self, x):
        for layer in self.body:
            x = jax.nn.tanh(layer(x))
        return self.head(x)


X = jnp.linspace(-1.0, 1.0, 8).reshape(4, 2)


def loss_fn(model):
    return jnp.mean(model(X) ** 2)


def grads_of(model):
    """Gradients that need no model code: a fixed array per parameter."""
    keys = iter(jax.random.split(jax.random.key(7), 100))
    return nnx.map_state(
        lambda path, p: jax.random.normal(next(keys), p.shape, p.dtype), nnx.state(model, nnx.Param)
    )


def pure(model):
    return nnx.to_pure_dict(nnx.state(model, nnx.Param))


def assert_same(actual, expected):
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def is_kernel(tree):
    return jax.tree.map(lambda x: x.ndim > 1, tree)


def label(path, leaf):
    return "bias" if "bias" in jax.tree_util.keystr(path) else "kernel"


def partitioned(labels):
    return optax.partition({"kernel": optax.adam(1e-2), "bias": optax.sgd(0.1)}, labels)


LABELS = lambda tree: jax.tree.map_with_path(label, tree)  # noqa: E731

TRANSFORMATIONS = {
    "sgd": lambda: optax.sgd(0.1),
    "momentum": lambda: optax.sgd(0.1, momentum=0.9),
    "adam": lambda: optax.adam(1e-2),
    "adamw with mask": lambda: optax.adamw(1e-2, mask=is_kernel),
    "adafactor": lambda: optax.adafactor(1e-2),
    "lion": lambda: optax.lion(1e-2),
    "muon": lambda: optax.contrib.muon(1e-2, ns_steps=1),
    "clipped": lambda: optax.chain(optax.clip_by_global_norm(0.5), optax.adam(1e-2)),
    "scheduled": lambda: optax.adam(optax.linear_schedule(1e-2, 0.0, 5)),
    "hyperparameters": lambda: optax.inject_hyperparams(optax.adam)(learning_rate=1e-2),
    "masked": lambda: optax.masked(optax.adam(1e-2), is_kernel),
    "partition": lambda: partitioned(LABELS),
    "several steps": lambda: optax.MultiSteps(optax.adam(1e-2), every_k_schedule=2),
    "frozen": lambda: optax.multi_transform(
        {"kernel": optax.adam(1e-2), "bias": optax.set_to_zero()}, LABELS
    ),
}


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_equals_plain_optax_to_the_bit(name):
    model = Net()
    optimizer = nnx.Optimizer(model, TRANSFORMATIONS[name](), wrt=nnx.Param)
    tx, params = TRANSFORMATIONS[name](), pure(model)
    grads = grads_of(model)
    with jax.numpy_dtype_promotion("standard"):
        tx_state = tx.init(params)
        for _ in range(3):
            updates, tx_state = tx.update(nnx.to_pure_dict(grads), tx_state, params)
            params = optax.apply_updates(params, updates)
    for _ in range(3):
        returned = optimizer.update(model, grads)
    assert_same(pure(model), params)
    assert_same(nnx.to_pure_dict(returned), updates)
    plain = [x for x in jax.tree.leaves(tx_state) if isinstance(x, jax.Array)]
    own = jax.tree.leaves(nnx.state(optimizer)["opt_state"]) if plain else []
    assert sorted(np.asarray(x).tobytes() for x in own) == sorted(
        np.asarray(x).tobytes() for x in plain
    )
    assert optimizer.step[...] == 3


def test_hyperparameters_are_read_and_written():
    model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    tx = optax.inject_hyperparams(optax.sgd)(learning_rate=0.5)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    rate = optimizer.opt_state.hyperparams["learning_rate"]
    assert type(rate) is nnx.OptArray and rate.value == 0.5
    rate.value = jnp.asarray(0.25)
    ones = jax.tree.map(jnp.ones_like, nnx.state(model, nnx.Param))
    assert_same(optimizer.update(model, ones)["bias"], np.full(3, -0.25, np.float32))


# -- what an update keeps


def test_hooks_of_parameters_are_not_called_by_an_update():
    double = lambda variable, value: 2 * value  # noqa: E731
    model = nnx.Linear(2, 3, kernel_metadata={"on_set_value": (double,)}, rngs=nnx.Rngs(0))
    before = model.kernel[...]
    ones = jax.tree.map(jnp.ones_like, nnx.state(model, nnx.Param))
    nnx.Optimizer(model, optax.sgd(1.0), wrt=nnx.Param).update(model, ones)
    assert_same(model.kernel[...], before - 1)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_update_keeps_the_dtype(dtype):
    model = Net(dtype=dtype)
    optimizer = nnx.Optimizer(model, optax.adam(1e-2, mu_dtype=jnp.float32), wrt=nnx.Param)
    grads = jax.tree.map(lambda g: g.astype(jnp.float32), grads_of(model))
    optimizer.update(model, grads)
    assert {p.dtype for p in jax.tree.leaves(pure(model))} == {jnp.dtype(dtype)}


@pytest.mark.parametrize(
    ("axis_type", "wrap"),
    [(AxisType.Auto, lambda f: f), (AxisType.Explicit, lambda f: f), (AxisType.Explicit, nnx.jit)],
    ids=["auto", "explicit", "explicit in jit"],
)
def test_update_keeps_the_sharding(axis_type, wrap):
    mesh = make_mesh((4,), ("x",), axis_types=(axis_type,))
    replicated, rows = PartitionSpec(None, None), PartitionSpec("x", None)
    with jax.set_mesh(mesh):
        model = nnx.Linear(4, 4, use_bias=False, rngs=nnx.Rngs(0))
        before = jax.device_put(model.kernel.value, replicated)
        model.kernel.value = before
        optimizer = nnx.Optimizer(model, optax.sgd(0.1, momentum=0.9), wrt=nnx.Param)
        trace = optimizer.opt_state[0].trace["kernel"]
        trace.value = jax.device_put(trace.value, rows)
        grads = nnx.State({"kernel": jax.device_put(jnp.ones((4, 4)), rows)})
        wrap(lambda optimizer, model, grads: optimizer.update(model, grads))(
            optimizer, model, grads
        )
        assert model.kernel.value.sharding.is_equivalent_to(before.sharding, 2)
        assert trace.value.sharding.is_equivalent_to(grads["kernel"].sharding, 2)
    np.testing.assert_allclose(model.kernel.value, np.asarray(before) - 0.1, rtol=1e-6)


# -- gradients


def test_gradients_may_be_state_module_or_nested_dicts():
    results = []
    for convert in (
        lambda model, grads: grads,
        lambda model, grads: nnx.merge(nnx.graphdef(model), nnx.state(model), grads),
        lambda model, grads: nnx.to_pure_dict(grads),
    ):
        model = Net()
        optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)
        optimizer.update(model, convert(model, grads_of(model)))
        results.append(pure(model))
    assert_same(results[1], results[0])
    assert_same(results[2], results[0])


def test_wrt_selects_and_other_gradients_are_left_out():
    model = Net()
    before = pure(model)
    head = nnx.All(nnx.Param, nnx.PathContains("head"))
    optimizer = nnx.Optimizer(model, optax.sgd(0.1), wrt=head)
    updates = optimizer.update(model, grads_of(model))
    assert nnx.to_flat_state(updates).paths == (("head", "bias"), ("head", "kernel"))
    assert_same(pure(model)["body"], before["body"])
    assert (pure(model)["head"]["kernel"] != before["head"]["kernel"]).all()


def test_containers_of_models_and_shared_parameters():
    first, second = nnx.Linear(2, 2, rngs=nnx.Rngs(0)), nnx.Linear(2, 2, rngs=nnx.Rngs(1))
    second.kernel = first.kernel
    models = {"first": first, "second": second}
    optimizer = nnx.Optimizer(models, optax.sgd(1.0), wrt=nnx.Param)
    ones = jax.tree.map(jnp.ones_like, nnx.state(models, nnx.Param))
    before = first.kernel.value
    optimizer.update(models, ones)
    assert second.kernel is first.kernel
    assert_same(first.kernel.value, before - 1)


def test_pytree_valued_parameters():
    class Pair(nnx.Module):
        def __init__(self):
            self.pair = nnx.Param({"a": jnp.ones(2), "b": jnp.ones((2, 2))})
            self.z = nnx.Param(jnp.ones(()))

    model = Pair()
    optimizer = nnx.Optimizer(model, optax.adam(1.0), wrt=nnx.Param)
    grads = jax.tree.map(jnp.ones_like, nnx.state(model, nnx.Param))
    optimizer.update(model, grads)
    np.testing.assert_allclose(model.pair.value["b"], np.zeros((2, 2)), atol=1e-4)
    np.testing.assert_allclose(model.z.value, 0.0, atol=1e-4)


# -- arrays that no Variable holds


class Plain(nnx.Module):
    def __init__(self):
        self.w, self.b, self.step = jnp.ones((2, 2)), jnp.zeros(2), nnx.Variable(jnp.array(0))
        self.pair = (jnp.ones(()), "x")
        self.out = nnx.Linear(2, 1, rngs=nnx.Rngs(0))

    def __call__(self, x):
        return self.out(x @ self.w * self.pair[0] + self.b)


def is_trained(path, value):
    return isinstance(value, (jax.Array, nnx.Param))


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw with mask", "partition", "several steps"])
def test_plain_arrays_are_trained(name):
    @(nnx.jit if name in ("adam", "partition") else lambda f: f)
    def step(model, optimizer):
        grads = nnx.grad(loss_fn, argnums=nnx.DiffState(0, is_trained))(model)
        return optimizer.update(model, grads), grads

    model, tx = Plain(), TRANSFORMATIONS[name]()
    optimizer = nnx.Optimizer(model, tx, wrt=is_trained)
    values = nnx.to_pure_dict(nnx.state(model, is_trained))
    with jax.numpy_dtype_promotion("standard"):
        tx_state = tx.init(values)
        for _ in range(2):
            _, grads = step(model, optimizer)
            updates, tx_state = tx.update(nnx.to_pure_dict(grads), tx_state, values)
            values = optax.apply_updates(values, updates)
    close = lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)  # noqa: E731
    jax.tree.map(close, nnx.to_pure_dict(nnx.state(model, is_trained)), values)
    assert model.pair[1] == "x"
    assert model.step.value == 0
    assert optimizer.step.value == 2


def test_plain_arrays_that_cannot_be_written_leave_everything_as_it_was():
    model = {"plain": Plain(), "tuple": (Plain(),)}
    optimizer = nnx.Optimizer(model, optax.sgd(0.1), wrt=is_trained)
    grads = jax.tree.map(jnp.ones_like, nnx.state(model, is_trained))
    optimizer.update(model, grads)  # what holds the arrays can be changed
    root = (jnp.ones(2), nnx.Param(jnp.ones(2)))
    optimizer = nnx.Optimizer(root, optax.sgd(0.1), wrt=is_trained)
    with pytest.raises(nnx.StructureError, match=r"\[0\] is an array inside a tuple"):
        optimizer.update(root, jax.tree.map(jnp.ones_like, nnx.state(root, is_trained)))
    assert root[1].value.tolist() == [1.0, 1.0]
    assert optimizer.step.value == 0


# -- further arguments


def test_further_arguments_reach_the_transformation():
    model = Net()
    search = optax.scale_by_backtracking_linesearch(max_backtracking_steps=5)
    optimizer = nnx.Optimizer(model, optax.chain(optax.sgd(1.0), search), wrt=nnx.Param)
    graphdef, _, rest = nnx.split(model, nnx.Param, ...)
    value_fn = lambda params: loss_fn(nnx.merge(graphdef, params, rest))  # noqa: E731

    @nnx.jit
    def step(model, optimizer):
        value, grads = nnx.value_and_grad(loss_fn)(model)
        optimizer.update(model, grads, value=value, grad=grads, value_fn=value_fn)
        return value

    values = [float(step(model, optimizer)) for _ in range(3)]
    assert values[2] < values[1] < values[0]


def test_arguments_a_transformation_does_not_take_are_left_out():
    model = Net()
    plain = optax.GradientTransformation(*optax.scale(-0.1))
    optimizer = nnx.Optimizer(model, plain, wrt=nnx.Param)
    before = model.head.bias.value
    optimizer.update(model, grads_of(model), value=1.0)
    assert (model.head.bias.value != before).all()


# -- in transforms


def test_one_trace_for_fresh_but_equal_optimizers():
    traces = []

    @nnx.jit
    def step(model, optimizer):
        traces.append(1)
        loss, grads = nnx.value_and_grad(loss_fn)(model)
        optimizer.update(model, grads)
        return loss

    first = []
    for _ in range(2):
        model = Net()
        optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)
        first.append([step(model, optimizer) for _ in range(3)])
        assert optimizer.step[...] == 3
    assert len(traces) == 1
    assert_same(first[0], first[1])
    assert first[0][2] < first[0][0]


def test_graphdefs_of_equal_optimizers_are_equal():
    make = lambda rate: nnx.graphdef(nnx.Optimizer(Net(), optax.adam(rate), wrt=nnx.Param))  # noqa: E731
    assert make(1e-3) == make(1e-3)
    assert hash(make(1e-3)) == hash(make(1e-3))
    assert make(1e-3) != make(1e-2)


# -- ModelAndOptimizer


def test_model_and_optimizer_keeps_its_model():
    model, expected = Net(), Net()
    both = nnx.ModelAndOptimizer(model, optax.adam(1e-2))
    assert both.model is model
    updates = both.update(grads_of(model))
    nnx.Optimizer(expected, optax.adam(1e-2), wrt=nnx.Param).update(expected, grads_of(expected))
    assert_same(pure(model), pure(expected))
    assert nnx.to_flat_state(updates).paths == nnx.to_flat_state(nnx.state(model, nnx.Param)).paths


# -- mistakes


def test_missing_wrt_shows_the_line_to_write():
    with pytest.raises(TypeError, match=r"nnx\.Optimizer\(model, tx, wrt=nnx\.Param\)"):
        nnx.Optimizer(Net(), optax.adam(1e-3))


def test_tx_that_is_no_transformation():
    with pytest.raises(TypeError, match=r"found the function adam: call it, `optax\.adam\(1e-3\)`"):
        nnx.Optimizer(Net(), optax.adam, wrt=nnx.Param)
    with pytest.raises(TypeError, match=r"such as `optax\.adam\(1e-3\)`, found a Net$"):
        nnx.Optimizer(Net(), Net(), wrt=nnx.Param)
    for swapped in (Net(), optax.adam):
        with pytest.raises(TypeError, match=r"model and a \w+ as the transf.*in this order$"):
            nnx.Optimizer(optax.sgd(0.1), swapped, wrt=nnx.Param)


@pytest.mark.parametrize("wrt", [nnx.Cache, None])
def test_wrt_that_selects_nothing_says_what_there_is(wrt):
    with pytest.raises(
        ValueError, match=r"Param \(such as body\[0\]\.bias\), BatchStat \(such as s"
    ):
        nnx.Optimizer(Net(), optax.adam(1e-3), wrt=wrt)


def test_wrt_that_selects_nothing_says_which_arrays_to_wrap():
    model = Plain()
    del model.out
    with pytest.raises(ValueError, match=r"selects nothing of the Plain, which h") as caught:
        nnx.Optimizer(model, optax.adam(1e-3), wrt=nnx.Param)
    message = str(caught.value)
    assert "Variable (such as step), arrays that are in no Variable (b, pair[0], w)" in message
    assert "wrap these where they are set, `self.w = nnx.Param(array)`, or select them" in message
    with pytest.raises(ValueError, match=r"which holds neither Variables nor arrays: give a model"):
        nnx.Optimizer(nnx.Module(), optax.adam(1e-3), wrt=nnx.Param)


@pytest.fixture
def trio():
    model = Net()
    return model, nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param), grads_of(model)


def test_update_without_gradients(trio):
    _, optimizer, grads = trio
    with pytest.raises(TypeError, match=r"write `optimizer\.update\(model, grads\)`"):
        optimizer.update(grads)


def test_update_with_arguments_swapped(trio):
    model, optimizer, grads = trio
    for given in (grads, nnx.to_pure_dict(grads)):
        with pytest.raises(TypeError, match=r"as the model and a Net as .* in this order"):
            optimizer.update(given, model)


def test_optimizer_has_no_model(trio):
    with pytest.raises(AttributeError, match="does not keep its model"):
        trio[1].model  # noqa: B018
    with pytest.raises(AttributeError, match="no attribute 'modle'"):
        trio[1].modle  # noqa: B018


def test_gradients_that_do_not_fit_are_listed_and_nothing_is_written(trio):
    model, optimizer, grads = trio
    before = jax.tree.leaves(nnx.state((model, optimizer)))
    pure_grads = nnx.to_pure_dict(grads)
    del pure_grads["head"]["bias"]
    pure_grads["tail"] = jnp.ones(3)
    pure_grads["body"][0]["kernel"] = jnp.ones((5, 2))
    with pytest.raises(nnx.StructureError) as caught:
        optimizer.update(model, pure_grads)
    message = str(caught.value)
    assert "missing: head.bias" in message
    assert "unexpected: tail" in message
    assert "body[0].kernel: expected shape (2, 2), found (5, 2)" in message
    assert all(
        x is y for x, y in zip(before, jax.tree.leaves(nnx.state((model, optimizer))), strict=True)
    )


@pytest.mark.parametrize("name", ["momentum", "adam", "adamw with mask", "clipped"])
@pytest.mark.parametrize("change", ["new", "gone", "shape"])
def test_a_model_that_was_changed_after_its_optimizer_was_made(name, change):
    model = Net()
    optimizer = nnx.Optimizer(model, TRANSFORMATIONS[name](), wrt=nnx.Param)
    if change == "new":
        model.tail = nnx.Param(jnp.ones(3))
    elif change == "gone":
        del model.head.bias
    else:
        model.head.kernel = nnx.Param(jnp.ones((2, 5)))
    found = {
        "new": "new: tail",
        "gone": "gone: head.bias",
        "shape": "head.kernel: shape (2, 2) then, (2, 5) now",
    }
    before = jax.tree.leaves(nnx.state((model, optimizer)))
    with pytest.raises(nnx.StructureError) as caught:
        optimizer.update(model, grads_of(model))
    message = str(caught.value)
    assert f"the optimizer was made for, and nothing was written:\n  {found[change]}\n" in message
    assert "make a new Optimizer for the model as it is now: `optimizer = nnx.Opt" in message
    after = jax.tree.leaves(nnx.state((model, optimizer)))
    assert all(x is y for x, y in zip(before, after, strict=True))


def test_other_errors_of_a_transformation_are_its_own(trio):
    model, _, grads = trio

    def fails(*args):
        raise ValueError("of the transformation")

    failing = optax.GradientTransformation(optax.sgd(0.1, momentum=0.9).init, fails)
    with pytest.raises(ValueError, match=r"^of the transformation$"):
        nnx.Optimizer(model, failing, wrt=nnx.Param).update(model, grads)


def test_state_whose_structure_changes_is_refused(trio):
    model, _, grads = trio
    growing = optax.GradientTransformation(
        lambda params: jnp.zeros(2), lambda updates, state, params: (updates, jnp.zeros(3))
    )
    optimizer = nnx.Optimizer(model, growing, wrt=nnx.Param)
    with pytest.raises(nnx.StructureError, match=r"opt_state: shape \(2,\) before, \(3,\) after"):
        optimizer.update(model, grads)


def test_state_of_another_model_is_refused_and_nothing_is_written(trio):
    _, optimizer, _ = trio
    other = Net(width=1)
    before = jax.tree.leaves(nnx.state((other, optimizer)))
    with pytest.raises(nnx.StructureError, match="made for another model") as caught:
        optimizer.update(other, grads_of(other))
    assert "body[0].kernel: shape (2, 1) before, (2, 2) after" in str(caught.value)
    assert all(
        x is y for x, y in zip(before, jax.tree.leaves(nnx.state((other, optimizer))), strict=True)
    )


def test_a_model_that_lost_all_that_was_optimized():
    model = Net()
    optimizer = nnx.Optimizer(model, optax.adam(1e-3), wrt=nnx.Param)
    grads = nnx.grad(loss_fn)(model)
    model.body, model.head = [], None
    with pytest.raises(nnx.StructureError, match=r"(?s)another one than .* gone: head\.bias") as e:
        optimizer.update(model, grads)
    assert "make a new Optimizer" in str(e.value) and e.value.__cause__ is None
    optimizer = nnx.Optimizer(Net(), optax.sgd(0.1), wrt=nnx.Param)  # its state mirrors nothing
    with pytest.raises(nnx.StructureError, match="gone: all that was optimized"):
        optimizer.update(model, grads)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (nnx.value_and_grad(loss_fn), r"a tuple as the gradients: take it apart, `loss, grads = "),
        (loss_fn, r"an array of shape \(\) as the gradients: take the gradients of the loss, `gra"),
        (lambda model: nnx.grad(loss_fn), r"a function as the gradients: call what `nnx.grad` ret"),
        (lambda model: None, r"a NoneType as the gradients: take the gradients of the loss"),
    ],
)
def test_what_is_no_gradients(make, message):
    model = Net()
    optimizer = nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param)
    with pytest.raises(TypeError, match=f"Optimizer.update was given {message}"):
        optimizer.update(model, make(model))


def test_filters_are_written_as_code():
    with pytest.raises(ValueError, match=r"^wrt=\(nnx\.Cache, nnx\.LoRAParam, 'tag'\) selects not"):
        nnx.Optimizer(Net(), optax.sgd(0.1), wrt=(nnx.Cache, nnx.LoRAParam, "tag"))
