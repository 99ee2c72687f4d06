"""The folder of a run: what one commit holds, and what comes back."""

import jax.numpy as jnp
import pytest

import weft as nnx
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
