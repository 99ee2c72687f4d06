"""The user's facts come back as they were, or are refused."""

import jax.numpy as jnp
import numpy as np
import pytest

from weft._saving.meta import check_meta, metrics_of

CYCLE: list = []
CYCLE.append(CYCLE)


def test_what_json_says():
    shared = [1]
    check_meta({"a": [1, 2.5, "x", None, True, (1, 2)], "b": {"c": shared, "d": shared}})
    check_meta(None)


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        ({"a": [{1: 2}]}, r"meta\['a'\]\[0\] has the key 1; in JSON keys are texts"),
        (
            {"a": np.float32(1)},
            r"meta\['a'\] is of type float32: expected what JSON says.*`float",
        ),
        ({"a": jnp.ones(2)}, r"meta\['a'\] is of type ArrayImpl"),
        ([{1}], r"meta\[0\] is of type set"),
        (CYCLE, r"meta\[0\] is something that it is in itself"),
    ],
    ids=["key", "numpy", "array", "set", "cycle"],
)
def test_what_json_does_not_say(meta, message):
    with pytest.raises(TypeError, match=message):
        check_meta(meta)


def test_metrics_are_numbers_by_name():
    given = {"a": 1, "b": np.float32(0.5), "c": jnp.array(2.0), "d": True}
    assert metrics_of(given) == {"a": 1.0, "b": 0.5, "c": 2.0, "d": 1.0}
    for wrong in ({"a": None}, {"a": "x"}, {"a": jnp.ones(2)}, {1: 2.0}):
        with pytest.raises(TypeError, match="metrics must be numbers by name; found"):
            metrics_of(wrong)
    with pytest.raises(TypeError, match=r"`metrics={'accuracy': 0\.9}`; found a list"):
        metrics_of([1.0])
