"""Calls of a compiled function: how their errors speak."""

from __future__ import annotations

import jax
import pytest

from tests.devices import devices
from tests.lift.donated import add, step, trained


def test_errors_of_jax_name_the_path() -> None:
    m = trained()
    m.w.set_value(jax.device_put(m.w[...], jax.devices()[0]))
    m.frozen.set_value(jax.device_put(m.frozen[...], devices(2)[1]))
    with pytest.raises(ValueError, match="incompatible devices") as raised:
        step(m)
    assert "m.frozen" in str(raised.value) and "kept[" not in str(raised.value)
    assert "donate=None" not in "".join(raised.value.__notes__)  # nothing is lost
    with pytest.raises(TypeError, match=r"function at path x\."):
        add(m, "text")
