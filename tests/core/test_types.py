"""What several parts share: sentinels, types of numbers, a loop that runs in C."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from weft._core.types import HELD, MISSING, SCALAR_TYPES, exhaust


def test_sentinels_are_themselves_in_another_process() -> None:
    assert repr(MISSING) == "<missing>"
    for sentinel in (MISSING, HELD):
        assert pickle.loads(pickle.dumps(sentinel)) is sentinel


def test_numbers_of_every_kind() -> None:
    assert all(isinstance(x, SCALAR_TYPES) for x in (True, 1, 1.0, 1j, np.float32(1), np.bool(1)))
    assert not any(isinstance(x, SCALAR_TYPES) for x in (None, "1", np.ones(()), (1,)))


def test_an_iterator_runs_to_its_end_or_its_error() -> None:
    seen: list[int] = []
    exhaust(map(seen.append, range(3)))
    assert seen == [0, 1, 2]
    with pytest.raises(ZeroDivisionError):
        exhaust(1 // x for x in (1, 0, 2))
