"""A profile of some steps, written where profilers look for it."""

import jax.numpy as jnp
import pytest

import weft as nnx
from weft import train


def run_of(tmp_path, profile, steps=6):
    total = nnx.Variable(jnp.array(0.0))

    @nnx.jit
    def step(total, x):
        total[...] += x
        return total[...]

    run = train.Run(
        tmp_path, state={"total": total}, data=[1.0], steps=steps, sinks=[], profile=profile
    )
    for x in run:
        run.log(step(total, x))
        yield run.step, list(tmp_path.glob("profile/**/*.xplane.pb"))


def test_is_there_after_its_last_step(tmp_path):
    found = dict(run_of(tmp_path, (2, 4)))
    assert [len(found[step]) for step in range(1, 7)] == [0, 0, 0, 1, 1, 1]


def test_is_there_when_the_run_ends_before(tmp_path):
    assert not any(files for _, files in run_of(tmp_path, (2, 100)))
    assert len(list(tmp_path.glob("profile/**/*.xplane.pb"))) == 1


def test_what_is_over_is_not_profiled_again(tmp_path):
    list(run_of(tmp_path, (2, 4)))
    list(run_of(tmp_path, (2, 4), steps=9))
    assert len(list(tmp_path.glob("profile/**/*.xplane.pb"))) == 1


@pytest.mark.parametrize("window", [(0, 2), (3, 3), (5, 2)])
def test_what_is_no_window_is_an_error(tmp_path, window):
    with pytest.raises(ValueError, match=r"profile must be.*`profile=\(100, 105\)`, found \("):
        train.Run(tmp_path, state={}, data=[1], profile=window)
    train.Run(tmp_path, state={}, data=[1]).close()


def test_a_window_within_a_call_is_that_call(tmp_path):
    run = train.Run(
        tmp_path,
        state={},
        data=[1.0],
        steps=40,
        steps_per_call=10,
        log_every=10,
        save_every=10,
        sinks=[],
        profile=(12, 15),
    )
    found = [len(list(tmp_path.glob("profile/**/*.xplane.pb"))) for _ in run]
    assert found == [0, 0, 1, 1]


def test_a_window_after_the_last_step_is_an_error(tmp_path):
    with pytest.raises(
        ValueError, match=r"profile=\(100, 105\) begins after .* steps=50: .*`profile=\(50"
    ):
        train.Run(tmp_path, state={}, data=[1], steps=50, profile=(100, 105))


@pytest.mark.parametrize("window", [5, (1, 2, 3), ("a", "b"), (1.0, 2.0), "ab"])
def test_what_is_no_pair_of_steps_is_an_error(tmp_path, window):
    with pytest.raises(ValueError, match=r"profile must be the first step, from 1, and the one"):
        train.Run(tmp_path, state={}, data=[1], profile=window)


def test_without_a_folder_is_an_error():
    with pytest.raises(ValueError, match="a profile needs a folder"):
        train.Run(None, state={}, data=[1], profile=(1, 2))
