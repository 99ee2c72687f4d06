"""Streams inside a model: splitting and forking them."""

import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx
from tests.rng.streams import PARAMS, check_error, data, make_model, shapes, snapshot


def test_split_rngs_and_back():
    model = make_model()
    before = snapshot(model)
    backups = nnx.split_rngs(model, splits=(2, 3), only="dropout")
    assert list(shapes(model).values()) == [(2, 3), (2, 3), (), (2, 3)]
    assert all(x.count.shape == x.key.shape for x, *_ in backups)
    nnx.restore_rngs(backups)
    after = snapshot(model)
    assert [(path, key) for path, key, _ in after] == [(path, key) for path, key, _ in before]
    counted = [new - old for (*_, new), (*_, old) in zip(after, before, strict=True)]
    assert counted == [1, 1, 0, 1]  # the key that was split is not drawn again


def decorator(function, **kwargs):
    return lambda f, **options: getattr(nnx, function)(**kwargs, **options)(f)


def given_function(function, **kwargs):
    return lambda f, **options: getattr(nnx, function)(f, **kwargs, **options)


DECORATED = {
    "split_rngs": {"splits": 2, "only": "default"},
    "fork_rngs": {"split": {"default": 2}},
    "with_rngs": {"split": {"default": 2}},
}


@pytest.mark.parametrize("updates", [True, False])
@pytest.mark.parametrize("form", [decorator, given_function])
@pytest.mark.parametrize("name", DECORATED)
def test_decorators(name, form, updates):
    decorate = form(name, **DECORATED[name])

    def call(model, text, *, rngs):
        model.blocks[0].scale[...] = jnp.full((), 2.0)
        return model.rngs.default.key.shape, model.rngs.dropout.key.shape, text, rngs().shape

    model, rngs = make_model(), nnx.Rngs(dropout=0, default=1)
    decorated = decorate(call, graph_updates=updates)
    assert decorated.__name__ == "call"
    with pytest.raises(
        ValueError, match=r"stream 'default' was split and holds keys of shape \(2,\)"
    ):
        decorated(model, "x", rngs=rngs)

    def shape(model, text, *, rngs):
        return (
            model.rngs.default.key.shape,
            model.rngs.dropout.key.shape,
            text,
            rngs.default.key.shape,
        )

    assert decorate(shape, graph_updates=updates)(model, "x", rngs=rngs) == ((2,), (), "x", (2,))
    assert model.blocks[0].scale == 2.0  # Variables are shared, also with a copy
    assert (model.rngs.default.count[...], rngs.default.count[...]) == (2, 2)
    assert model.rngs.default.key.shape == ()


def test_bare_fork_rngs_decorates():
    @nnx.fork_rngs
    def draw(rngs):
        return rngs()

    rngs = nnx.Rngs(0)
    np.testing.assert_array_equal(data(draw(rngs)), data(nnx.Rngs(0).fork()()))


@pytest.mark.parametrize("options", [{"graph_updates": False}, {"graph": False}])
def test_split_rngs_of_a_copy(options):
    rngs = nnx.Rngs(0, dropout=1)
    new = nnx.split_rngs(rngs, splits=2, only="dropout", **options)
    assert (new.dropout.key.shape, rngs.dropout.key.shape) == ((2,), ())
    assert new.default.key is rngs.default.key  # what is not split is shared
    assert rngs.dropout.count[...] == 1
    setting = nnx.set_graph_updates if "graph_updates" in options else nnx.set_graph_mode
    with setting(False):
        assert nnx.fork_rngs(rngs) is not rngs


def test_with_rngs():
    model = make_model()
    new = nnx.with_rngs(
        model, split={"dropout": 2}, fork=..., broadcast={"default": 3}, only=nnx.Not("nothing")
    )
    assert new is not model and set(shapes(model).values()) == {()}
    assert list(shapes(new).values()) == [(2,), (2,), (3,), (2,)]
    assert new.blocks[1].scale is model.blocks[1].scale
    assert isinstance(new.blocks, list) and new.blocks is not model.blocks
    assert [count for *_, count in snapshot(model)] == [1, 1, 1, 3]
    untouched = nnx.with_rngs(model, split={"dropout": None}, fork="dropout", only="dropout")
    assert snapshot(untouched) == snapshot(model)


def test_a_shared_stream_is_changed_once():
    stream = nnx.Rngs(0).default
    nnx.split_rngs({"a": stream, "b": [stream]}, splits=2)
    assert stream.key.shape == (2,)
    rngs = nnx.Rngs(0)
    new = nnx.with_rngs([rngs, rngs.default], split=2)
    assert new[0].default is new[1] and rngs.default.count[...] == 1


# -- errors: each says what was found and how to go on

ERRORS = {
    "mapping of splits": (
        lambda: nnx.split_rngs(PARAMS, splits={"params": 2}),
        TypeError,
        "`nnx.split_rngs(model, splits=4, only='dropout')` for those inside a model",
    ),
    "negative split_rngs": (lambda: nnx.split_rngs(PARAMS, splits=-2), ValueError, "into -2 keys"),
    "negative fork_rngs": (lambda: nnx.fork_rngs(PARAMS, split=-2), ValueError, "into -2 keys"),
    "no filter": (
        lambda: nnx.split_rngs(PARAMS, splits=2, only=3),
        nnx.FilterError,
        "3 of type int",
    ),
    "squeeze": (
        lambda: nnx.split_rngs(PARAMS, splits=2, squeeze=True),
        ValueError,
        "squeeze=True is for splits=1, found splits=2",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    check_error(*ERRORS[name])


SPLIT_TWICE = {
    "node": (
        lambda m: nnx.split_rngs(m, splits=3),
        r"stream 'dropout' at blocks\[1\]\.noise was split",
    ),
    "argument": (
        lambda m: nnx.split_rngs(splits=3)(lambda x, m: None)(0, m),
        r"at args\[1\]\.blocks\[1\]\.noise was split",
    ),
    "keyword": (
        lambda m: nnx.fork_rngs(lambda x, m: None)(0, m=m),
        r"at m\.blocks\[1\]\.noise was split",
    ),
    "copy": (lambda m: nnx.with_rngs(m, fork=...), r"at blocks\[1\]\.noise was split"),
    "rngs": (
        lambda m: nnx.Rngs(a=nnx.Rngs(0).default, b=m.blocks[1].noise).fork(),
        "stream 'b' was split",
    ),
}


@pytest.mark.parametrize("name", SPLIT_TWICE)
def test_a_split_stream_is_named_and_nothing_is_changed(name):
    call, message = SPLIT_TWICE[name]
    model = make_model()
    nnx.split_rngs(model.blocks[1], splits=2)
    before = snapshot(model)
    with pytest.raises(ValueError, match=message):
        call(model)
    assert snapshot(model) == before
