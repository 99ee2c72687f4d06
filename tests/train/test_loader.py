"""Batches of arrays: their order, and going on in the midst of it."""

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


@pytest.mark.parametrize("size", [0, -1, 11])
def test_a_size_that_makes_no_batch_is_an_error(size):
    message = f"no batch of {size} in 10 examples: give a batch_size from 1 to 10"
    with pytest.raises(ValueError, match=message):
        loader(batch_size=size)
