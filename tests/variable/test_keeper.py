"""Keepers: who is told before the array of a Variable is read or replaced."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx
from tests.variable.summed import Model, called, total
from weft._variable import reads
from weft._variable.keeper import Keeper, check_kept, is_part
from weft._variable.storage import set_keeper


def test_an_interrupt_before_or_after_a_write(monkeypatch: pytest.MonkeyPatch) -> None:
    m = Model()
    real = reads.forget

    def interrupted_at(number: int) -> Any:
        calls: list[int] = []

        def forget() -> None:
            calls.append(1)
            if len(calls) == number:
                raise KeyboardInterrupt
            real()

        return forget

    for number, expected in ((1, 3.0), (2, 9.0)):
        called(m)
        with monkeypatch.context() as patch:
            patch.setattr("weft._variable.keeper.forget", interrupted_at(number))
            patch.setattr("weft._variable.keeper.readers", [0])
            with pytest.raises(KeyboardInterrupt):
                m.a[...] = jnp.full(2, 7.0)
        np.testing.assert_array_equal(total(m), np.full(2, expected))


class Noting(Keeper):
    """Notes what it is told, and refuses metadata and values that are texts."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def expose(self, variable: Any) -> None:
        self.told.append("read or replaced")

    def write(self, raw: Any) -> None:
        self.told.append(raw)

    def check(self, variable: Any, raw: Any, metadata: Any) -> None:
        if isinstance(raw, str) or (metadata is not None and "text" in metadata.value):
            raise ValueError("no texts")


class Passing(Noting):
    """Lets go of a Variable once it is used."""

    stays = False

    def expose(self, variable: Any) -> None:
        super().expose(variable)
        set_keeper(variable, None)


def test_a_keeper_that_stays_is_told_each_time() -> None:
    variable, keeper = nnx.Param(1.0, tag="a"), Noting()
    set_keeper(variable, keeper)
    assert variable.value == variable.get_raw_value() == 1.0
    assert keeper.told == ["read or replaced"] * 2
    variable.value = 2.0
    assert keeper.told[2:] == [2.0]
    variable.set_metadata(tag="b")
    with pytest.raises(ValueError, match="no texts"):
        variable.set_metadata(text="c")
    with pytest.raises(ValueError, match="no texts"):
        check_kept(variable, "text", None)
    assert (variable.value, variable.get_metadata()) == (2.0, {"tag": "b"})


@pytest.mark.parametrize(
    "use", [lambda v: v.value, lambda v: v.set_value(3.0)], ids=["read", "write"]
)
def test_a_keeper_that_passes_is_told_once(use: Any) -> None:
    variable, keeper = nnx.Param(1.0), Passing()
    set_keeper(variable, keeper)
    for _ in range(2):
        use(variable)
    assert keeper.told == ["read or replaced"]


def test_parts_are_told_from_other_values() -> None:
    stack = nnx.Stack(lambda rngs: nnx.Linear(2, 2, rngs=rngs), 3, rngs=nnx.Rngs(0))
    found = [is_part(x) for x in (stack[1].kernel, nnx.Param(1.0), jnp.ones(1), None)]
    assert found == [True, False, False, False]
