"""`Rngs`: streams by name, what they become, and what is said when asked wrongly."""

import copy
import pickle

import jax
import numpy as np
import pytest

import weft as nnx
from tests.rng.streams import after_draw, check_error, data, draws

# -- streams that are passed on go on where they stand


@pytest.mark.parametrize("method", ["split", "broadcast"])
@pytest.mark.parametrize("rules", [{"params": 5}, {"params": 5, "dropout": None}])
def test_streams_not_derived_keep_their_counter(method, rules):
    """The peer starts them over at 0 and hands the used keys out again."""
    rngs = nnx.Rngs(params=0, dropout=1)
    used = [data(key) for key in draws(rngs.dropout)]
    derived = getattr(rngs, method)(rules)
    assert derived.dropout.count[...] == 2
    key = data(derived.dropout())
    assert not any((key == old).all() for old in used)
    np.testing.assert_array_equal(key, data(jax.random.fold_in(jax.random.key(1), 2)))
    assert rngs.dropout.count[...] == 2  # a copy: drawing from it leaves the old one alone


def test_broadcast_none_copies_all_streams_with_their_counters():
    rngs = after_draw(nnx).broadcast(None)
    assert [int(stream.count[...]) for _, stream in rngs.items()] == [1, 1, 1]


# -- Rngs


def test_streams_by_name():
    rngs = nnx.Rngs(0, params=1, dropout=2)
    assert list(rngs) == ["params", "dropout", "default"]
    assert [name for name, stream in rngs.items() if isinstance(stream, nnx.RngStream)] == list(
        rngs
    )
    assert len(rngs) == 3
    assert "params" in rngs and "noise" not in rngs and 3 not in rngs
    assert rngs["params"] is rngs.params
    assert rngs.noise is rngs["noise"] is rngs.default
    assert len(nnx.Rngs()) == 0


def test_a_mapping_of_seeds_yields_to_keywords():
    rngs = nnx.Rngs({"params": 1, "default": 2}, dropout=3, params=4)
    assert [int(data(stream.key[...])[1]) for _, stream in rngs.items()] == [4, 2, 3]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies(copied):
    rngs = after_draw(nnx)
    new = copied(rngs)
    assert list(new) and set(new) == set(rngs)
    np.testing.assert_array_equal(data(new.params()), data(rngs.params()))
    new.params()
    assert (rngs.params.count[...], new.params.count[...]) == (2, 3)


def test_a_private_name_is_no_stream():
    rngs = nnx.Rngs(0)
    assert not hasattr(rngs, "_repr_html_")
    with pytest.raises(AttributeError, match="'Rngs' object has no attribute '_hidden'"):
        _ = rngs._hidden


def test_a_stream_may_bear_the_name_of_a_distribution():
    rngs = nnx.Rngs(0, gamma=1)
    np.testing.assert_array_equal(data(rngs.gamma()), data(nnx.Rngs(1)()))


# -- errors: each says what was found and how to go on

ERRORS = {
    "unknown stream": (
        lambda: nnx.Rngs(params=0).dropout(),
        AttributeError,
        "this Rngs has no stream 'dropout' and no default stream (it has 'params'): give it that "
        "stream, `nnx.Rngs(params=..., dropout=0)`, or a default for all other names, "
        "`nnx.Rngs(0, params=...)`",
    ),
    "unknown stream by item": (
        lambda: nnx.Rngs()["noise"],
        KeyError,
        "this Rngs has no stream 'noise' and no default stream (it has no streams): give it that "
        "stream, `nnx.Rngs(noise=0)`, or a default for all other names, `nnx.Rngs(0)`",
    ),
    "no default": (
        lambda: nnx.Rngs(params=0, dropout=1).normal((2,)),
        AttributeError,
        "this Rngs has no default stream (it has 'params', 'dropout'): draw from a named one, "
        "`rngs.params()`, or give it one, `nnx.Rngs(0, params=..., dropout=...)`",
    ),
    "name that is no text": (
        lambda: nnx.Rngs({3: 0}),
        TypeError,
        "stream names are strings, found 3 of type int; write `nnx.Rngs({'dropout': 0})`",
    ),
    "name of a method": (
        lambda: nnx.Rngs(items=0),
        ValueError,
        "a stream cannot be named 'items', which is an attribute of nnx.Rngs; choose another name, "
        "`nnx.Rngs(items_rng=0)`",
    ),
    "special name": (lambda: nnx.Rngs(__len__=0), ValueError, "cannot be named '__len__'"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    check_error(*ERRORS[name])


def test_an_unknown_stream_is_an_attribute_error_and_a_key_error():
    rngs = nnx.Rngs(params=0)
    assert not hasattr(rngs, "dropout")
    for kind in (AttributeError, KeyError, nnx.WeftError):
        with pytest.raises(kind, match="this Rngs has no stream 'dropout'"):
            rngs["dropout"]


def test_no_stream_is_drawn_from_when_one_of_them_is_split():
    rngs = nnx.Rngs(a=0, b=jax.random.split(jax.random.key(0), 2))
    with pytest.raises(ValueError, match="stream 'b' was split"):
        rngs.split(2)
    assert rngs.a.count[...] == 0
