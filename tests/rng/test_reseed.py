"""New seeds for the streams inside a model."""

import jax
import numpy as np
import pytest

import weft as nnx
from tests.rng.streams import PARAMS, check_error, data, draws, make_model, snapshot


def test_reseed():
    model = make_model()
    other = nnx.Rngs(9, dropout=nnx.Rngs(3).default)
    nnx.reseed([model, other], dropout=3, unknown=4)
    expected = draws(nnx.Rngs(3), 4)
    found = [x for _, x in nnx.iter_graph([model, other]) if isinstance(x, nnx.RngStream)]
    found = [x for x in found if x.tag == "dropout"]
    for stream, key in zip(found, expected, strict=True):
        np.testing.assert_array_equal(data(stream.key[...]), data(key))
        assert stream.count[...] == 0
    assert other.default.count[...] == 0


def test_reseed_by_a_policy():
    rngs = nnx.Rngs(a=0, b=1).split({"a": 2})
    seen = []

    def policy(path, key, shape):
        seen.append((path, shape))
        return jax.random.fold_in(key, 1) if shape else key

    nnx.reseed(rngs, a=1, b=2, policy=policy)
    assert seen == [(("a",), (2,)), (("b",), ())]
    assert rngs.a.key.shape == rngs.a.count.shape == ()


# -- errors: each says what was found and how to go on

ERRORS = {
    "policy": (
        lambda: nnx.reseed(PARAMS, policy="shape", params=0),
        ValueError,
        "unknown policy 'shape': expected 'scalars_only' or 'match_shape', or a function "
        "`(path, key, shape) -> key`",
    ),
    "policy without a key": (
        lambda: nnx.reseed(PARAMS, policy=lambda *_: None, params=0),
        TypeError,
        "stream 'params': expected a seed (an integer), a key",
    ),
    "reseed with a float": (lambda: nnx.reseed(PARAMS, params=0.5), TypeError, "stream 'params'"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    check_error(*ERRORS[name])


def test_a_split_stream_is_named_and_nothing_is_changed():
    model = make_model()
    nnx.split_rngs(model.blocks[1], splits=2)
    before = snapshot(model)
    message = (
        r"cannot reseed the stream at blocks\[1\]\.noise with one key: it was split and holds keys "
        r"of shape \(2,\)\. Write `nnx\.reseed\(model, policy='match_shape', \.\.\.\)`"
    )
    with pytest.raises(ValueError, match=message):
        nnx.reseed(model, default=0, dropout=0)
    assert snapshot(model) == before
