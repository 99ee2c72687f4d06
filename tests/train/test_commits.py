"""The folder of a run: what one commit holds, and what comes back."""

import os

import jax.numpy as jnp
import optax
import pytest

import weft as nnx
from tests.train.loops import counter, go
from weft import train
from weft._core.errors import StructureError
from weft.train.commits import Commits
from weft.train.feed import Feed


def opened(folder, count=0, facts=None):
    state = {"count": nnx.Variable(jnp.array(count))}
    feed = Feed(list(range(10)))
    return Commits(folder, state, feed, facts or {}, keep=2, best=None, mode="max"), state, feed


def test_objects_data_and_rows_come_back_together(tmp_path):
    commits, state, feed = opened(tmp_path)
    assert commits.resume(None) is None and commits.where() == "There is no checkpoint."
    for step in (1, 2, 3):
        feed.draw()
        state["count"][...] += 1
        commits.history.append(step, {"loss": float(step)})
        if step < 3:
            commits.save(step, more=[step])
    assert commits.where() == f"The last checkpoint is of step 2, in {tmp_path}."
    assert commits.roll_back() == 2 and int(state["count"][...]) == 2
    commits.close()

    commits, state, feed = opened(tmp_path, count=7)
    meta = commits.resume(None)
    assert meta["step"] == commits.last == 2 and meta["more"] == [2]
    assert int(state["count"][...]) == 2
    assert feed.draw() == 2
    assert commits.history["loss"] == {1: 1.0, 2: 2.0}
    commits.close()


def test_a_step_is_saved_once(tmp_path):
    commits, state, _ = opened(tmp_path)
    commits.save(1)
    state["count"][...] += 1
    commits.save(1)
    assert commits.roll_back() == 1 and int(state["count"][...]) == 0
    commits.close()


def test_other_facts_change_nothing(tmp_path):
    commits, *_ = opened(tmp_path, count=1, facts={"seed": 1, "sizes": (1, 2)})
    commits.save(1)
    commits.close()
    commits, state, feed = opened(tmp_path, count=7, facts={"seed": 2, "sizes": [1, 2]})
    with pytest.raises(StructureError, match=r"other facts:\n  seed: then 1, now 2\ngive the same"):
        commits.resume(0)  # which are too few besides, and no cure
    assert int(state["count"][...]) == 7 and feed.drawn == 0 and commits.last is None
    commits.close()


def test_a_folder_that_is_further_changes_nothing(tmp_path):
    commits, *_ = opened(tmp_path, count=1)
    commits.save(3)
    commits.close()
    commits, state, feed = opened(tmp_path, count=7)
    with pytest.raises(ValueError, match=r"at step 3 already, and steps=2 is less.*`steps=3`"):
        commits.resume(2)
    assert int(state["count"][...]) == 7 and feed.drawn == 0 and commits.last is None
    assert (commits.resume(3) or {})["step"] == 3 and int(state["count"][...]) == 1
    commits.close()


def test_without_a_folder_nothing_is_kept():
    commits, *_ = opened(None)
    commits.take_lock()
    commits.save(1)
    assert commits.resume(None) is None and commits.last is None
    commits.close()


def test_the_folder_is_held_until_it_is_closed(tmp_path):
    first, *_ = opened(tmp_path)
    with pytest.raises(train.FolderInUseError):
        opened(tmp_path)
    first.close()
    second, *_ = opened(tmp_path)
    second.close()


WRONG_STATE = {
    "array": ({"x": jnp.ones(2)}, "^x is an array that no loop can change in place: hold it in an"),
    "tuple": ({"x": optax.scale_by_adam().init({})}, r"^x\.count is an array that no loop can ch"),
    "number": ({"x": 3}, r"^x is a plain number or text, .* give it as `facts=\{'x': \.\.\.\}`"),
    "function": ({"x": nnx.relu}, "^x is a function, in which nothing can be saved"),
    "text": ({"x": nnx.Variable("a")}, "^x: expected an array of numbers, .*found a str"),
    "name": ({"step": nnx.Variable(1)}, "^'step' is an option of `Checkpoints.restore`"),
    "self": ({"self": nnx.Variable(1)}, "^'self' is an option of `Checkpoints.restore`"),
    "number as name": ({1: nnx.Variable(1)}, "^objects are saved by names, found 1 for one"),
}


@pytest.mark.parametrize("name", WRONG_STATE)
def test_state_that_could_not_be_saved_is_an_error_before_the_first_step(tmp_path, name):
    state, message = WRONG_STATE[name]
    with pytest.raises(TypeError, match=message):
        train.Run(tmp_path, state=state, data=[1])
    assert not os.listdir(tmp_path)
    train.Run(None, state=state, data=[1])  # which saves nothing


@pytest.mark.parametrize("name", ["metrics", "meta", "state", "", "a/b"])
def test_objects_of_a_run_may_have_any_other_name(tmp_path, name):
    for steps in (5, 10):
        state = {name: nnx.metrics.Average(), "count": nnx.Variable(jnp.array(0))}
        run = train.Run(tmp_path, state=state, data=[1.0, 2.0, 3.0], steps=steps, sinks=[])
        for x in run:
            state["count"][...] += 1
            state[name].update(values=x)
        assert int(state["count"][...]) == run.step == steps
    assert float(state[name].compute()) == pytest.approx(1.9)


def test_facts_that_are_not_json(tmp_path):
    with pytest.raises(TypeError, match=r"facts\['a'\] is of type object: expected what JSON"):
        train.Run(tmp_path, state={}, data=[1], facts={"a": object()})
    with pytest.raises(TypeError, match=r"facts must be named, .*; found a list"):
        train.Run(tmp_path, state={}, data=[1], facts=[1])
    assert not os.listdir(tmp_path)


def test_facts_that_are_no_number_are_equal(tmp_path):
    for _ in range(2):
        commits, *_ = opened(tmp_path, facts={"clip": float("nan")})
        meta = commits.resume(None)
        commits.save(1)
        commits.close()
    assert meta["step"] == 1


# -- damage


def half_a_run(folder):
    """Breaks off in step 7; leaves checkpoints of steps 2, 4 and 6, and their manifests."""

    def body(run, batch):
        run.log(batch)
        if run.step == 7:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        go(folder, body=body, save_every=2, log_every=1)
    return sorted(folder.glob("checkpoints/*/manifest.json"))


def test_a_damaged_checkpoint_is_passed_over_and_the_numbers_are_the_same(tmp_path):
    whole = go(tmp_path / "whole", log_every=1)
    *_, newest = half_a_run(tmp_path / "part")
    (array, *_) = sorted(newest.parent.glob("arrays/**/d/*"))
    array.write_bytes(bytes(array.stat().st_size))
    state, begun = counter(), []

    def body(run, batch):
        begun.append(run.step)
        run.log(batch)

    with pytest.warns(UserWarning, match="0000000006 is damaged: .*passed over"):
        run = go(tmp_path / "part", state, body=body, save_every=2, log_every=1)
    assert begun == list(range(5, 11)) and int(state["count"][...]) == 10
    assert run.history.rows == whole.history.rows
    assert train.Checkpoints(tmp_path / "part" / "checkpoints").steps == [6, 8, 10]


def test_no_run_begins_anew_where_all_checkpoints_are_damaged(tmp_path):
    manifests = half_a_run(tmp_path)
    kept = [file.read_bytes() for file in (tmp_path / "history.jsonl", *manifests)]
    for file in manifests:
        file.unlink()
    state = counter()
    with (
        pytest.warns(UserWarning, match="manifest.json is missing"),
        pytest.raises(nnx.CheckpointError, match=r"all steps in .* are damaged: .*begin in ano"),
    ):
        go(tmp_path, state)
    assert int(state["count"][...]) == 0
    assert (tmp_path / "history.jsonl").read_bytes() == kept[0]
    for file, data in zip(manifests, kept[1:], strict=True):
        file.write_bytes(data)
    assert go(tmp_path, save_every=2).step == 10  # nothing was removed, and the folder is free
