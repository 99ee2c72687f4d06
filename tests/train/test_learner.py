"""Learner: one declaration of what is trained, equal to plain Optax written by hand."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import weft as nnx
from weft import train


class Net(nnx.Module):
    def __init__(self, seed=0, dtype=None):
        rngs = nnx.Rngs(seed, dropout=1)
        self.encoder = nnx.Linear(3, 4, rngs=rngs, dtype=dtype)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)
        self.head = nnx.Linear(4, 1, rngs=rngs, dtype=dtype)

    def __call__(self, x):
        return self.head(self.dropout(self.norm(nnx.relu(self.encoder(x)))))


def loss_fn(model, x, y):
    return jnp.mean((model(x) - y) ** 2)


def batches(count=6):
    rng = np.random.default_rng(0)
    return [
        (rng.normal(size=(5, 3)).astype(np.float32), rng.normal(size=(5, 1)).astype(np.float32))
        for _ in range(count)
    ]


def train_step(learner, x, y):
    loss, norms = learner.step(loss_fn, x, y)
    return {"loss": loss, **norms}


ENCODER = nnx.PathContains("encoder")


def by_hand(tx, wrt=nnx.Param, ema=None, accumulate=1):
    """Trains with `nnx.value_and_grad`, plain Optax and an average, all written out."""
    model = Net()
    graphdef, params, rest = nnx.split(model, wrt, ...)
    params, average = nnx.pure(params), nnx.pure(params)
    state = tx.init(params)
    losses = []

    @jax.jit
    def step(params, rest, state, x, y):
        def loss_of(params):
            merged = nnx.merge(graphdef, params, rest)
            return loss_fn(merged, x, y), nnx.state(merged, nnx.Not(wrt))

        (loss, rest), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), rest, state, loss, grads, updates

    with jax.numpy_dtype_promotion("standard"):
        for i, (x, y) in enumerate(batches()):
            params, rest, state, loss, grads, updates = step(params, rest, state, x, y)
            losses.append((loss, optax.tree.norm(grads), optax.tree.norm(updates)))
            if ema is not None and (i + 1) % accumulate == 0:
                average = jax.tree.map(lambda a, b: ema * a + (1 - ema) * b, average, params)
    return params, average, np.array(losses, np.float32)


def learned(tx, jitted=True, **options):
    learner = train.Learner(Net(), tx, **options)
    step = nnx.jit(train_step, max_traces=1) if jitted else train_step
    with jax.numpy_dtype_promotion("standard"):
        values = [step(learner, *batch) for batch in batches()]
    rows = [[v["loss"], v["grad_norm"], v["update_norm"]] for v in values]
    return learner, np.array(rows, np.float32), values


def assert_close(found, expected):
    found, expected = (dict(nnx.to_flat_state(tree)) for tree in (found, expected))
    assert found.keys() == expected.keys()
    for path, value in expected.items():
        np.testing.assert_allclose(
            np.asarray(found[path]), np.asarray(value), rtol=2e-5, atol=1e-6, err_msg=str(path)
        )


ADAMW = optax.chain(optax.clip_by_global_norm(0.5), optax.adamw(1e-2))
NOT_ENCODER = nnx.All(nnx.Param, nnx.Not(ENCODER))
PLAIN = {
    "plain": (ADAMW, {}, ADAMW, {}),
    "frozen": (ADAMW, {"frozen": ENCODER}, ADAMW, {"wrt": NOT_ENCODER}),
    "average": (ADAMW, {"ema": 0.9}, ADAMW, {"ema": 0.9}),
    "accumulated": (ADAMW, {"accumulate": 3}, optax.MultiSteps(ADAMW, 3), {}),
    "MultiSteps": (optax.MultiSteps(ADAMW, 2), {}, optax.MultiSteps(ADAMW, 2), {}),
    "all": (
        ADAMW,
        {"frozen": ENCODER, "ema": 0.9, "accumulate": 2},
        optax.MultiSteps(ADAMW, 2),
        {"wrt": NOT_ENCODER, "ema": 0.9, "accumulate": 2},
    ),
}


@pytest.mark.parametrize("case", PLAIN)
@pytest.mark.parametrize("jitted", [True, False])
def test_equals_plain_optax(case, jitted):
    tx, options, plain, more = PLAIN[case]
    params, average, rows = by_hand(plain, **more)
    learner, found, _ = learned(tx, jitted, **options)
    np.testing.assert_allclose(found, rows, rtol=2e-5)
    assert_close(nnx.state(learner.model, learner.trained), params)
    if learner.ema is not None:
        assert_close(nnx.state(learner.averaged(), learner.trained), average)


def test_groups_equal_optax_partition():
    sgd, adam = optax.sgd(0.1, momentum=0.9), optax.adamw(1e-2, weight_decay=0.1)
    is_bias = nnx.PathContains("bias")
    labels = nnx.map_state(
        lambda path, p: "bias" if path[-1] == "bias" else "rest", nnx.state(Net(), nnx.Param)
    )
    params, _, rows = by_hand(optax.partition({"bias": sgd, "rest": adam}, nnx.as_pure(labels)))
    learner, found, _ = learned([(is_bias, sgd), (..., adam)])
    np.testing.assert_allclose(found, rows, rtol=2e-5)
    assert_close(nnx.state(learner.model, nnx.Param), params)


def test_groups_of_what_is_not_frozen():
    kernels = nnx.PathContains("kernel")
    learner, _, _ = learned(
        [(kernels, optax.adam(0.1)), (nnx.PathContains("bias"), optax.sgd(0.1)), (..., ADAMW)],
        frozen=nnx.PathContains("head"),
    )
    fresh = Net()
    for path, leaf in nnx.to_flat_state(nnx.state(learner.model, nnx.Param)):
        old = dict(nnx.to_flat_state(nnx.state(fresh, nnx.Param)))[path]
        assert (leaf[...] == old[...]).all() == (path[0] == "head"), path


# -- what is frozen costs nothing


def shapes_in(jaxpr):
    """The shapes of all that a program computes, those within its calls too."""
    found = []
    for equation in jaxpr.eqns:
        found += [(str(equation.primitive), v.aval.shape) for v in equation.outvars]
        for value in equation.params.values():
            for inner in jax.tree.leaves(value, is_leaf=lambda x: hasattr(x, "jaxpr")):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    found += shapes_in(inner)
    return found


class Deep(nnx.Module):
    """Shapes that nothing else has: 7 × 11 is frozen, 11 × 13 is trained."""

    def __init__(self):
        self.frozen = nnx.Linear(7, 11, rngs=nnx.Rngs(0))
        self.head = nnx.Linear(11, 13, rngs=nnx.Rngs(1))

    def __call__(self, x):
        return self.head(nnx.relu(self.frozen(x)))


@pytest.mark.parametrize("frozen", [None, nnx.PathContains("frozen")])
def test_frozen_variables_have_neither_gradients_nor_state(frozen):
    learner = train.Learner(Deep(), optax.adam(1e-3), frozen=frozen, ema=0.9)

    def step(learner, x):
        return learner.step(lambda m, x: jnp.sum(m(x) ** 2), x)

    made = [shape for _, shape in shapes_in(nnx.make_jaxpr(step)(learner, jnp.ones((2, 7))).jaxpr)]
    held = [
        x.shape for x in jax.tree.leaves((nnx.state(learner.optimizer), nnx.state(learner.ema)))
    ]
    assert (11, 13) in made and (11, 13) in held
    assert ((7, 11) in made or (11, 7) in made) == (frozen is None)
    assert ((7, 11) in held) == (frozen is None)


def test_what_is_frozen_is_no_output_of_the_program():
    learner = train.Learner(Deep(), optax.sgd(0.1), frozen=nnx.PathContains("frozen"))
    step = nnx.jit(lambda learner, x: learner.step(lambda m, x: jnp.sum(m(x)), x)[0])
    text = step.lower(learner, jnp.ones((2, 7))).as_text()
    (result,) = re.findall(r"func.func public @main\(.*\) -> \((.*)\) \{", text)
    assert "7x11" not in result and "11x13" in result


# -- loss scale


def test_a_loss_scale_changes_nothing_where_all_is_finite():
    _, rows, _ = learned(ADAMW)
    learner, found, values = learned(ADAMW, loss_scale=train.LossScale(8.0, interval=4))
    np.testing.assert_allclose(found, rows, rtol=2e-5)
    assert [float(v["loss_scale"]) for v in values] == [8, 8, 8, 16, 16, 16]
    assert [float(v["skipped"]) for v in values] == [0] * 6
    assert int(learner.loss_scale.good_steps[...]) == 2


def all_values(learner):
    def plain(x):
        is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(x) if is_key else x)

    leaves = nnx.to_flat_state(nnx.state(learner))
    return {path: plain(leaf.get_raw_value()) for path, leaf in leaves}


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_that_overflows_changes_the_scale_and_random_streams_alone(accumulate):
    learner = train.Learner(Net(), ADAMW, ema=0.9, accumulate=accumulate, loss_scale=True)
    (x, y), *_ = batches()
    step = nnx.jit(train_step)
    step(learner, x, y)
    before = all_values(learner)
    bad = x.copy()
    bad[0, 0] = np.inf
    values = step(learner, bad, y)
    after = all_values(learner)
    changed = {path for path in before if not np.array_equal(before[path], after[path])}
    assert changed == {
        ("loss_scale", "value"),
        ("loss_scale", "good_steps"),
        ("model", "dropout", "rngs", "count"),
    }
    assert float(values["loss_scale"]) == 2.0**14 and float(values["skipped"]) == 1
    assert float(step(learner, x, y)["skipped"]) == 0


def test_what_is_new_in_a_model_after_a_step_stays():
    class Sowing(Net):
        def __call__(self, x):
            self.seen = nnx.BatchStat(jnp.float32(1))
            return super().__call__(x)

    learner = train.Learner(Sowing(), ADAMW, loss_scale=True)
    nnx.jit(train_step)(learner, *batches()[0])
    assert float(learner.model.seen[...]) == 1


def test_small_gradients_in_float16_need_a_scale():
    class Tiny(nnx.Module):
        def __init__(self):
            self.w = nnx.Param(jnp.float32(1))

        def __call__(self, x):
            return self.w.astype(jnp.float16) * x

    def tiny_loss(model, x):
        return model(x) * x

    x = jnp.float16(1e-4)  # the gradient, 1e-8, is none of float16
    found = {}
    for scale in (False, True):
        learner = train.Learner(Tiny(), optax.sgd(1.0), loss_scale=scale)
        _, norms = nnx.jit(lambda learner, x: learner.step(tiny_loss, x))(learner, x)
        found[scale] = float(norms["grad_norm"])
    assert found[False] == 0
    np.testing.assert_allclose(found[True], 1e-8, rtol=1e-2)


# -- one state


def test_is_one_state_for_jit_and_saving(tmp_path):
    options = {"ema": 0.9, "accumulate": 2, "loss_scale": True, "frozen": ENCODER}
    data = batches()
    step = nnx.jit(train_step, max_traces=1)
    with jax.numpy_dtype_promotion("standard"):
        learner = train.Learner(Net(), ADAMW, **options)
        for batch in data[:3]:
            step(learner, *batch)
        nnx.save(tmp_path / "learner", learner=learner)
        rest = [float(step(learner, *batch)["loss"]).hex() for batch in data[3:]]
        other = train.Learner(Net(seed=5), ADAMW, **options)
        nnx.restore(tmp_path / "learner", learner=other)
        again = [float(step(other, *batch)["loss"]).hex() for batch in data[3:]]
    assert again == rest


def test_gradients_and_update_apart():
    whole, _, _ = learned(ADAMW, loss_scale=True)
    learner = train.Learner(Net(), ADAMW, loss_scale=True)

    @nnx.jit
    def step(learner, x, y):
        loss, grads = learner.value_and_grad(loss_fn)(x, y=y)
        return loss, learner.update(grads)

    for batch in batches():
        step(learner, *batch)
    assert_close(nnx.state(learner.model, nnx.Param), nnx.pure(nnx.state(whole.model, nnx.Param)))


def test_further_results_of_a_loss():
    learner = train.Learner(Net(), ADAMW)
    x, y = batches()[0]
    with_aux = lambda model, x, y: (loss_fn(model, x, y), model.norm.mean[...])  # noqa: E731
    for scale in (False, True):
        learner = train.Learner(Net(), ADAMW, loss_scale=scale)
        (loss, mean), norms = learner.step(with_aux, x, y, has_aux=True)
        assert loss.shape == () and mean.shape == (4,) and "grad_norm" in norms


def test_a_transformation_is_given_the_loss():
    tx = optax.chain(
        optax.sgd(0.1), optax.contrib.reduce_on_plateau(factor=0.5, patience=1, cooldown=0)
    )
    x, y = batches()[0]
    for options in ({}, {"loss_scale": True}, {"accumulate": 2}):
        learner = train.Learner(Net(), tx, **options)
        step = nnx.jit(
            lambda learner, x: learner.step(lambda model, x: 1.0 + 0 * model(x).sum(), x)
        )
        values = [step(learner, x) for _ in range(6)]
        state = learner.optimizer.opt_state
        state = state.inner_opt_state if "accumulate" in options else state
        assert float(state[1].scale[...]) < 1 and values[0][0] == 1
    learner.update(nnx.grad(loss_fn)(learner.model, x, y), value=jnp.float32(2))


def test_loss_scale_and_accumulation_equal_optax_written_by_hand():
    """Steps that overflow take no part in an accumulation, in the schedule and in the average."""
    rate = optax.linear_schedule(0.5, 0.1, 4)
    overflows = [0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 0, 0]
    tx = optax.MultiSteps(optax.adam(rate), 2)
    model = nnx.Linear(3, 1, rngs=nnx.Rngs(0))
    params = average = nnx.pure(nnx.state(model))
    state, scale = tx.init(params), 2.0**15
    x, y = batches()[0]

    def loss(params, bad):
        made = x @ params["kernel"] + params["bias"]
        return jnp.mean((made - y) ** 2) * jnp.where(bad, jnp.inf, 1.0)

    def of_model(model, bad):
        return loss(nnx.pure(nnx.state(model)), bad)

    def body(learner, bad):
        return learner, learner.step(of_model, bad)[1]["loss_scale"]

    learners = [
        train.Learner(
            nnx.clone(model),
            optax.adam(rate),
            accumulate=2,
            ema=0.5,
            loss_scale=train.LossScale(interval=3),
        )
        for _ in range(2)
    ]
    alone = nnx.jit(lambda learner, bad: body(learner, bad)[1])
    scales = [float(alone(learners[0], bad)) for bad in overflows]
    _, scanned = nnx.jit(nnx.scan(body))(learners[1], jnp.array(overflows))

    good, expected = 0, []
    with jax.numpy_dtype_promotion("standard"):
        for bad in overflows:
            good += 1
            if bad:
                scale, good = scale / 2, 0
            else:
                updates, state = tx.update(jax.grad(loss)(params, 0), state, params)
                params = optax.apply_updates(params, updates)
                if tx.has_updated(state):
                    average = jax.tree.map(lambda a, b: 0.5 * a + 0.5 * b, average, params)
                if good == 3:
                    scale, good = scale * 2, 0
            expected.append(scale)
    assert scales == scanned.tolist() == expected
    for learner in learners:
        assert_close(nnx.state(learner.model), params)
        assert_close(nnx.state(learner.averaged()), average)


class Counting(nnx.Module):
    def __init__(self):
        self.layer = nnx.Linear(3, 1, rngs=nnx.Rngs(0))
        self.calls = nnx.data(jnp.zeros((), jnp.int32))
        self.seen = nnx.Variable(jnp.zeros((), jnp.int32))

    def __call__(self, x):
        self.calls = self.calls + 1
        self.seen[...] += 1
        return self.layer(x)


@pytest.mark.parametrize("jitted", [True, False])
def test_arrays_that_a_step_wrote_in_vain_are_as_before(jitted):
    learner = train.Learner(Counting(), ADAMW, loss_scale=True)

    def step(learner, x, factor):
        return learner.step(lambda model, x: model(x).sum() * factor, x)[1]["skipped"]

    step = nnx.jit(step) if jitted else step
    x = batches()[0][0]
    found = [float(step(learner, x, factor)) for factor in (1.0, jnp.inf, 1.0)]
    assert found == [0, 1, 0]
    assert learner.model.calls == 2 and learner.model.seen[...] == 2


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_parameters_in_low_precision_have_moments_in_float32(dtype):
    def net():
        return nnx.Linear(3, 1, param_dtype=dtype, dtype=dtype, rngs=nnx.Rngs(0))

    for accumulate in (1, 2):
        learner = train.Learner(net(), ADAMW, loss_scale=True, accumulate=accumulate, ema=0.9)
        step = nnx.jit(train_step, max_traces=1)
        x, y = batches()[0]
        for _ in range(4):
            step(learner, x.astype(dtype), y.astype(dtype))
        assert learner.model.kernel.dtype == dtype
        kinds = nnx.state(learner.optimizer, nnx.OptVariable)
        assert {leaf.dtype for leaf in nnx.to_flat_state(kinds).leaves} == {jnp.dtype("float32")}
        assert not np.array_equal(learner.model.kernel[...], net().kernel[...])
    abstract = nnx.eval_shape(lambda: train.Learner(net(), ADAMW, loss_scale=True))
    assert abstract.optimizer.opt_state[1][0].mu["kernel"].dtype == jnp.float32


@pytest.mark.parametrize("dtype", ["float64", "complex64"])
def test_wide_and_complex_parameters(dtype):
    with jax.enable_x64(True):
        model = nnx.Linear(2, 1, use_bias=False, param_dtype=dtype, dtype=dtype, rngs=nnx.Rngs(0))
        learner = train.Learner(model, optax.sgd(0.1), loss_scale=True)
        x = np.ones((1, 2), dtype) * (1 + 1j if dtype == "complex64" else 1)
        real = lambda model, x: jnp.sum(jnp.abs(model(x)) ** 2)  # noqa: E731
        grads = nnx.grad(real)(model, x)
        norms = learner.step(real, x)[1]
    assert model.kernel.dtype == dtype
    expected = np.sqrt(np.sum(np.abs(np.asarray(grads["kernel"][...])) ** 2))
    np.testing.assert_allclose(norms["grad_norm"], expected, rtol=1e-5)


# -- what is wrong


@pytest.mark.parametrize("scale", [False, True])
def test_losses_that_are_none(scale):
    learner = train.Learner(Net(), ADAMW, loss_scale=scale)
    for result, message in (
        (None, "must return a scalar array, found None: it ends without `return loss`"),
        (jnp.ones(2), r"must return a scalar array, found an array of shape \(2,\): take the mean"),
        ((jnp.ones(()), 1), "must return .* tuple; for `return loss, aux` pass `has_aux=True`"),
        (jnp.ones((), int), "must return a real scalar array, found one of dtype int32"),
    ):
        with pytest.raises(TypeError, match=f"lambda>' is differentiated and {message}"):
            learner.step(lambda model, result=result: result)
    with pytest.raises(TypeError, match="has_aux=True and must return a pair"):
        learner.step(lambda model: jnp.ones(()), has_aux=True)


def test_gradients_that_are_none():
    learner = train.Learner(Net(), ADAMW)
    with pytest.raises(TypeError, match="was given a NoneType as the gradients: take the gradien"):
        learner.update(None)
    with pytest.raises(nnx.StructureError, match=r"missing: encoder\.bias"):
        learner.update({"a": 1})


FAULTS = {
    "frozen": (
        {"frozen": nnx.PathContains("decoder")},
        r"frozen=PathContains\(key='decoder'.* selects nothing .*: give a filter such as",
    ),
    "accumulate": ({"accumulate": 0}, "accumulate=0 of a .*: give a number of steps from 1"),
    "MultiSteps": (
        {"tx": optax.MultiSteps(ADAMW, 2), "accumulate": 2},
        "accumulate=2 of a MultiSteps: .* or `optax.MultiSteps` and no number",
    ),
    "no group": (
        {"tx": [(nnx.PathContains("bias"), ADAMW)]},
        r"no group has encoder.kernel, head.kernel, norm.scale: end the groups with `\(\.\.\., ",
    ),
    "empty group": (
        {"tx": [(..., ADAMW), (nnx.PathContains("bias"), ADAMW)]},
        "the group of PathContains.* has no parameter: .* there are encoder.bias, ",
    ),
    "all frozen": ({"frozen": ...}, "wrt=All.* selects nothing of the Net"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_what_cannot_be_declared(case):
    options, message = FAULTS[case]
    with pytest.raises(ValueError, match=message):
        train.Learner(Net(), options.pop("tx", ADAMW), **options)


def test_wrong_types():
    with pytest.raises(TypeError, match="groups are pairs of a filter and an Optax"):
        train.Learner(Net(), [ADAMW, 3])
    for groups in ([ADAMW], [(..., 0.1)]):
        with pytest.raises(TypeError, match="groups are pairs of a filter and an Optax"):
            train.Learner(Net(), groups)
    with pytest.raises(TypeError, match="tx must be an Optax transformation"):
        train.Learner(Net(), optax.adam)
    for accumulate in (1.5, True, None):
        with pytest.raises(TypeError, match=r"accumulate is a number of steps, found .*: `accumul"):
            train.Learner(Net(), ADAMW, accumulate=accumulate)
    with pytest.raises(TypeError, match=r"ema is the decay of an average, found True: `ema=0.999`"):
        train.Learner(Net(), ADAMW, ema=True)
    with pytest.raises(TypeError, match=r"found 1024.0: `loss_scale=train.LossScale\(1024.0\)`"):
        train.Learner(Net(), ADAMW, loss_scale=1024.0)
    with pytest.raises(
        TypeError, match=r"found 'dynamic': `loss_scale=train.LossScale\(32768.0\)`"
    ):
        train.Learner(Net(), ADAMW, loss_scale="dynamic")
    with pytest.raises(ValueError, match=r"keeps no average: `train.Learner\(model, tx, ema="):
        train.Learner(Net(), ADAMW).averaged()
