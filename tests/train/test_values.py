"""What is logged: fetched together, judged, and made into means."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx
from weft import train
from weft._core.errors import StructureError
from weft.train.values import Logged, Mean


def test_mean_of_batches():
    batches = [{"loss": jnp.array(1.0), "acc": 1}, {"loss": np.float32(2.0), "acc": 0}]
    assert train.mean(batches) == {"loss": 1.5, "acc": 0.5}


def test_every_element_of_an_array_counts():
    assert train.mean([jnp.array([1.0, 2.0, 3.0]), jnp.array([6.0])]) == {"loss": 3.0}
    assert train.mean([jnp.array([True, True, False, False])]) == {"loss": 0.5}


def test_mean_of_many_batches_and_low_precision():
    found = train.mean(jnp.array(1.001, jnp.bfloat16) for _ in range(600))
    assert found == {"loss": 1.0}
    assert train.mean([1e8, 1.0, -1e8]) == {"loss": 1 / 3}


def test_mean_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="given no batch: an iterator that was used up has none"):
        train.mean(iter([]))


def test_a_mean_is_the_same_however_its_numbers_come():
    numbers = np.random.default_rng(0).normal(size=100).tolist()
    whole = Mean().plus(numbers)
    for cut in range(100):
        first = Mean(*tuple(Mean().plus(numbers[:cut])))
        assert first.plus(numbers[cut:]) == whole
    assert np.isnan(Mean().value)


def test_means_since_the_last_row():
    logged = Logged()
    for step in (1, 2):
        logged.add(step, 1, "", {"loss": jnp.array(float(step))})
    logged.add(2, 1, "val/", {"loss": 7.0})
    assert logged.fetch() is None
    assert logged.take() == {"loss": 1.5, "val/loss": 7.0}
    assert logged.fetch() is None and logged.take() == {}


def test_the_first_step_that_is_not_finite():
    logged = Logged()
    for step, loss in enumerate([1.0, 2.0, np.nan, 4.0], 1):
        logged.add(step, 1, "", {"loss": loss})
    assert logged.fetch() == (3, "loss is nan")
    assert logged.take() == {"loss": 1.5}
    logged.add(40, 10, "", {"loss": jnp.ones(10), "norm": jnp.ones(10).at[6].set(-jnp.inf)})
    assert logged.fetch() == (37, "norm is -inf")
    assert logged.take() == {}


def test_with_a_prefix_nan_is_let_pass():
    logged = Logged()
    logged.add(1, 1, "val/", {"auc": np.nan})
    assert logged.fetch() is None
    assert np.isnan(logged.take()["val/auc"])


def test_what_is_no_number_is_an_error():
    logged = Logged()
    logged.add(1, 1, "", {"losses": jnp.ones((2, 3))})
    with pytest.raises(
        StructureError, match=r"'losses' is logged as float32\[2, 3\].*`\.mean\(\)`"
    ):
        logged.fetch()
    logged.add(1, 1, "", {"name": "abc"})
    with pytest.raises(StructureError, match="expected a number"):
        logged.fetch()


NO_NUMBERS = [None, "x", 1j, 10**400, (1.0, np.ones(3)), {"b": 1}, jax.random.key(0), object()]


@pytest.mark.parametrize("value", NO_NUMBERS, ids=lambda value: type(value).__name__)
def test_what_is_no_number_is_named(value):
    logged = Logged()
    logged.add(1, 1, "val/", {"a": value})
    for call in (logged.fetch, lambda: train.mean([{"a": value}])):
        with pytest.raises(StructureError, match=r"^'a' is .*: expected a number or an array of"):
            call()


def test_a_pair_of_a_loss_and_more_is_told_to_have_names():
    with pytest.raises(StructureError, match=r"'loss' is a tuple: .*by its name: `{'loss': loss"):
        train.mean([(jnp.array(1.0), jnp.ones(3))])


def test_the_numbers_of_one_batch_alone_are_an_error():
    with pytest.raises(TypeError, match=r"found those of one: `train\.mean\(eval_step"):
        train.mean({"loss": 1.0})


@pytest.mark.parametrize("value", [1.5, np.float16(1.5), jnp.bfloat16(1.5), jnp.float8_e4m3fn(1.5)])
def test_numbers_of_any_width(value):
    logged = Logged()
    logged.add(1, 1, "", {"a": value, "b": jnp.int4(3), "c": nnx.Variable(jnp.ones((1, 1)))})
    assert logged.fetch() is None
    assert logged.take() == {"a": 1.5, "b": 3.0, "c": 1.0}
    assert train.mean([value, True]) == {"loss": 1.25}


def test_what_is_no_name_is_an_error_at_once():
    logged = Logged()
    with pytest.raises(TypeError, match=r"numbers have names, found 1 for one"):
        logged.add(1, 1, "", {1: 2.0})
    with pytest.raises(TypeError, match=r"prefix must be what names begin with, .*; found None"):
        logged.add(1, 1, None, 1.0)
    for name in ("step", "time"):
        with pytest.raises(ValueError, match=f"'{name}' cannot be logged: each row has a {name} "):
            logged.add(1, 1, "", {"loss": 1.0, name: 2.0})
        logged.add(1, 1, "val/", {name: 2.0})
    assert logged.fetch() is None and logged.take() == {"val/step": 2.0, "val/time": 2.0}


def test_one_number_for_several_steps_is_an_error():
    logged = Logged()
    logged.add(10, 10, "", jnp.array(1.0))
    with pytest.raises(StructureError, match=r"each of 10 steps.*train\.scanned\(train_step\)"):
        logged.fetch()
