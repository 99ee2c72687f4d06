"""Numbers that are none any more: named, skipped, rolled back."""

import itertools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import weft as nnx
from tests.devices import devices
from weft import train

BAD = 7


class Network(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.mask = nnx.Variable(jnp.array([0.0, -jnp.inf]))  # not finite, and rightly so
        self.first = nnx.Linear(2, 3, rngs=rngs)
        self.last = nnx.Linear(3, 1, rngs=rngs)

    def __call__(self, x):
        return self.last(jnp.tanh(self.first(x)))


def make(*, of_loss=lambda loss, x: loss * x.mean()):
    model = Network()
    optimizer = nnx.Optimizer(model, optax.adam(0.1), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, x):
        def loss_fn(model):
            return of_loss(jnp.mean(model(jnp.ones((4, 2))) ** 2), x)

        loss, grads = nnx.value_and_grad(loss_fn)(model)
        optimizer.update(model, grads)
        return {"loss": loss}

    return {"model": model, "optimizer": optimizer}, step


def data(bad=jnp.nan, count=20):
    return [jnp.full(1, bad if i == BAD else 1.0) for i in range(1, count + 1)]


def bits(objects):
    return [np.asarray(x).tobytes() for x in jax.tree.leaves(nnx.as_pure(nnx.state(objects)))]


def go(folder, state, step, **options):
    options = {"data": data(), "steps": 20, "log_every": 5, "sinks": []} | options
    run = train.Run(folder, state=state, **options)
    states = {}
    for batch in run:
        states[run.step - 1] = bits(state)
        run.log(step(state["model"], state["optimizer"], batch))
    return run, states


# -- raise


def test_raise_names_step_metric_and_variable_and_saved_before(tmp_path):
    state, step = make()
    with pytest.raises(train.NaNError) as error:
        go(tmp_path, state, step, save_every=3)
    assert str(error.value).startswith(
        "step 7: loss is nan; the first Variable that is not finite is "
        "model.first.bias. The last "
        f"checkpoint is of step 6, in {tmp_path}. Try a lower learning rate"
    )
    assert train.Checkpoints(tmp_path / "checkpoints").latest == 6


def test_raise_without_a_folder_and_with_finite_variables():
    state, _ = make()
    del state["model"].mask
    with pytest.raises(
        train.NaNError, match=r"loss is inf; all Variables are finite\. There is no"
    ):
        go(None, state, lambda *_: {"loss": np.inf}, log_every=1)


def test_raise_names_the_step_inside_of_a_call_of_several():
    state, step = make()
    many = train.scanned(step)
    with pytest.raises(train.NaNError, match="step 7: loss is nan"):
        go(None, state, many, steps_per_call=5)


def test_first_variable_by_path():
    model = nnx.Dict(a=nnx.Param(jnp.ones(2)), b=nnx.Dict(c=nnx.Param(jnp.array([1.0, jnp.nan]))))
    rngs = nnx.Rngs(0)
    whole = {"rngs": rngs, "model": model, "number": nnx.Variable(jnp.array(3))}
    assert train.nonfinite_paths(whole) == ["model.b.c"]
    assert train.nonfinite_paths({"rngs": rngs}) == []
    whole["model"].a[...] = jnp.array([jnp.inf, 1.0])
    assert train.nonfinite_paths(whole) == ["model.b.c", "model.a"]
    tiny = nnx.Param(jnp.array([jnp.nan, 1.0], jnp.float8_e5m2))
    assert train.nonfinite_paths({"tiny": tiny, "tree": nnx.Variable({"x": jnp.nan})}) == [
        "tiny",
        "tree.x",
    ]


# -- skip


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_skip_leaves_everything_as_it_was(bad):
    state, step = make()
    with pytest.warns(RuntimeWarning, match=rf"step 7: loss is {bad}.*; the step is skipped, and"):
        run, states = go(None, state, step, data=data(bad), on_nan="skip")
    assert states[BAD] == states[BAD - 1]
    assert len(set(map(tuple, states.values()))) == len(states) - 1
    assert np.isfinite(list(run.history["loss"].values())).all()
    assert len(run.history["loss"]) == 4


def test_skip_sees_what_only_the_gradient_shows():
    state, step = make(
        of_loss=lambda loss, x: loss + 0 * jnp.sqrt(jnp.abs(x.mean() - 1) + loss * 0)
    )
    values = [jnp.full(1, 1.0 if i == BAD else 2.0) for i in range(1, 21)]
    message = r"step 7: all that was logged is finite; the first.*; the step is skipped"
    with pytest.warns(RuntimeWarning, match=message):
        _, states = go(None, state, step, data=values, on_nan="skip")
    assert states[BAD] == states[BAD - 1]


def test_skip_of_every_step_ends():
    state, step = make()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        message = r"step 11: loss is nan.*'skip' has not helped 10 times in a row"
        with pytest.raises(train.NaNError, match=message):
            go(None, state, step, data=[jnp.full(1, jnp.nan)], on_nan="skip")


# -- rollback


def test_rollback_goes_back_to_the_checkpoint_and_on_with_the_data(tmp_path):
    state, step = make()
    with pytest.warns(RuntimeWarning, match="step 7: .*; back to the state of step 6, while the"):
        run, states = go(tmp_path, state, step, save_every=3, on_nan="rollback")
    # NaN is found at step 9, which is saved; step 10 begins with the state of step 6.
    assert states[9] == states[6]
    assert all(np.isfinite(list(run.history["loss"].values())))
    assert list(run.history["loss"]) == [5, 10, 15, 20]


def test_rollback_before_the_first_checkpoint_goes_to_the_beginning(tmp_path):
    state, step = make()
    with pytest.warns(RuntimeWarning, match="back to the state of step 0"):
        _, states = go(tmp_path, state, step, on_nan="rollback")
    assert states[10] == states[0]


def test_rollback_needs_a_folder():
    with pytest.raises(ValueError, match="on_nan='rollback' needs a folder"):
        train.Run(None, state={}, data=[1], on_nan="rollback")


def test_rollback_again_and_again_ends(tmp_path):
    state, step = make()
    endless = itertools.repeat(jnp.full(1, jnp.nan))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(train.NaNError, match="'rollback' has not helped 10 times in a row"):
            go(tmp_path, state, step, data=endless, steps=100, on_nan="rollback")


def test_variables_on_several_devices_are_judged():
    here, there, *_ = devices(2)
    state = {
        "b": nnx.Variable(jax.device_put(jnp.array([1.0, jnp.inf]), there)),
        "a": nnx.Variable(jax.device_put(jnp.array(jnp.nan), here)),
        "c": nnx.Variable(jax.device_put(jnp.array([jnp.nan]), there)),
        "d": nnx.Variable(float("nan")),
        "e": nnx.Variable(jnp.ones(2)),
        "f": nnx.Variable(np.array(1e300)),
        "g": nnx.Variable(1e300),
        "h": nnx.Variable(np.array([np.nan]).astype(jnp.bfloat16)),
        "i": nnx.Variable(np.array([np.nan]).astype(jnp.float8_e5m2)),
    }
    assert train.nonfinite_paths(state) == ["a", "c", "d", "h", "i", "b"]
    run = train.Run(None, state={"e": state["e"], "b": state["b"]}, data=[1.0], sinks=[], steps=3)
    with pytest.raises(train.NaNError, match=r"step 1: loss is nan; the first .* is b\."):
        for _ in run:
            run.log(jnp.nan)


def test_another_action_is_an_error():
    with pytest.raises(ValueError, match="on_nan must be 'raise', 'skip' or 'rollback', found 'x'"):
        train.Run(None, state={}, data=[1], on_nan="x")
