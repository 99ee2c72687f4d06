"""The user's facts come back as they were, or are refused."""

import jax.numpy as jnp
import numpy as np
import pytest

from weft._saving.meta import check_meta

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
