"""Batches of arrays: their order, and going on in the midst of it."""

import json

import numpy as np
import pytest

from weft import train
from weft._core.errors import StructureError


def loader(count=10, **options):
    options = {"batch_size": 3, "seed": 5} | options
    return train.Loader((np.arange(count), np.arange(count) * 2.0), **options)


def drawn(loader, epochs):
    return [batch[0].tolist() for _ in range(epochs) for batch in loader]


def test_every_epoch_has_all_examples_but_the_rest_in_another_order():
    found = loader()
    first, second = drawn(found, 1), drawn(found, 1)
    assert len(first) == len(found) == 3 and found.epoch == 2
    assert first != second
    assert len({x for batch in first for x in batch}) == 9
    np.testing.assert_array_equal(
        np.concatenate(first), np.random.default_rng([5, 0]).permutation(10)[:9]
    )


def test_arrays_stay_together():
    assert all((2 * x == y).all() for x, y in loader())


@pytest.mark.parametrize("options", [{}, {"drop_last": False}, {"shuffle": False}, {"seed": 2}])
def test_goes_on_from_every_position_over_three_epochs(options):
    whole = drawn(loader(**options), 3)
    for position in range(len(whole) + 1):
        first = loader(**options)
        before = []
        while len(before) < position:
            for batch in first:
                before.append(batch[0].tolist())
                if len(before) == position:
                    break
        state = first.state_dict()
        second = loader(**options)
        second.load_state_dict(state)
        epochs = 3 - second.epoch
        assert before + drawn(second, epochs) == whole


def test_without_drop_last_the_last_batch_is_smaller():
    found = loader(drop_last=False)
    assert len(found) == 4
    assert [len(batch) for batch in drawn(found, 1)] == [3, 3, 3, 1]
    assert len(loader(9, drop_last=False)) == 3


def test_without_shuffling_the_order_is_that_of_the_arrays():
    assert drawn(loader(6, shuffle=False), 2) == [[0, 1, 2], [3, 4, 5]] * 2


@pytest.mark.parametrize(
    "other, fault",
    [
        ({"seed": 6}, "seed: then 5, now 6"),
        ({"batch_size": 2}, "batch_size: then 3, now 2"),
        ({"count": 11}, "examples: then 10, now 11"),
        ({"shuffle": False}, "shuffle: then True, now False"),
        ({"drop_last": False}, "drop_last: then True, now False"),
    ],
)
def test_the_state_of_another_loader_is_an_error(other, fault):
    state = loader().state_dict() | {"position": 2}
    changed = loader(**other)
    with pytest.raises(StructureError, match=rf"(?s)does not give.*{fault}.*same arguments"):
        changed.load_state_dict(state)
    assert changed.position == 0


def test_arrays_of_different_lengths_are_an_error():
    with pytest.raises(ValueError, match=r"as many examples each.*found lengths \[3, 4\]"):
        train.Loader((np.zeros(3), np.zeros(4)), batch_size=1)
    with pytest.raises(ValueError, match="found no array"):
        train.Loader((), batch_size=1)


def test_a_size_that_makes_no_batch_is_an_error():
    with pytest.raises(ValueError, match="no batch of 11 in 10 examples: give a batch_size from 1"):
        loader(batch_size=11)
    for size in (0, -1, 2.5, "2", None, True):
        with pytest.raises(ValueError, match="batch_size must be a whole number from 1 on; found"):
            loader(batch_size=size)
    with pytest.raises(ValueError, match="Loader finds no examples"):
        train.Loader(np.ones((0, 2)), batch_size=1)


@pytest.mark.parametrize("seed", [-1, None, 1.5, "x"])
def test_a_seed_is_a_whole_number(seed):
    with pytest.raises(ValueError, match="seed must be a whole number from 0 on; found"):
        loader(seed=seed)


def test_the_state_is_plain_whatever_was_given():
    given = loader(seed=np.int64(3), batch_size=np.int64(2), shuffle=np.bool_(True))
    plain = loader(seed=3, batch_size=2)
    assert json.dumps(given.state_dict()) == json.dumps(plain.state_dict())


@pytest.mark.parametrize(
    "what", [[[1, 2], [3, 4]], np.float32(3), "abc", range(9), {"x": np.ones(3), "n": 3}], ids=str
)
def test_what_is_no_array_is_an_error(what):
    with pytest.raises(TypeError, match=r"Loader takes arrays, .*; found a \w+: `np.asarray"):
        train.Loader(what, batch_size=1)


@pytest.mark.parametrize("position", [None, -1, "x", 1.5])
def test_a_state_that_is_none_changes_nothing(position):
    changed = loader()
    next(iter(changed))
    with pytest.raises(ValueError, match="position in a Loader's state must be a whole number"):
        changed.load_state_dict({**changed.state_dict(), "position": position})
    with pytest.raises(TypeError, match="expected what `state_dict` returned, found a list"):
        changed.load_state_dict([])
    assert changed.position == 1
