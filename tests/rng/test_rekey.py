"""Streams inside a model: splitting, forking, reseeding, and putting the keys back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx


def data(key):
    return np.asarray(jax.random.key_data(key))


def draws(source, n=2):
    return [source() for _ in range(n)]


class Block(nnx.Module):
    def __init__(self, rngs):
        self.noise = rngs.dropout.fork()
        self.scale = nnx.Param(jnp.ones(()))


class Model(nnx.Module):
    def __init__(self, rngs):
        self.rngs = rngs
        self.blocks = [Block(rngs), Block(rngs)]


def make_model():
    return Model(nnx.Rngs(0, dropout=1))


def snapshot(node):
    return [
        (path, data(x.key[...]).tolist(), x.count[...].tolist())
        for path, x in nnx.iter_graph(node)
        if isinstance(x, nnx.RngStream)
    ]


def shapes(node):
    return {path: x.key.shape for path, x in nnx.iter_graph(node) if isinstance(x, nnx.RngStream)}


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


def test_a_block_or_call_puts_the_keys_back_when_it_raises():
    model = make_model()
    with pytest.raises(ZeroDivisionError), nnx.split_rngs(model, splits=2):
        raise ZeroDivisionError

    @nnx.fork_rngs(split=3)
    def fail(model):
        assert model.rngs.default.key.shape == (3,)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail(model)
    assert set(shapes(model).values()) == {()}


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


def test_backup_keys():
    rngs = nnx.Rngs(4)
    backups = nnx.backup_keys(rngs)
    nnx.reseed(rngs, default=5)
    rngs()
    nnx.restore_rngs(backups)
    assert data(rngs.default.key[...]).tolist() == [0, 4] and rngs.default.count[...] == 1


# -- errors: each says what was found and how to go on

PARAMS = nnx.Rngs(params=0, dropout=1)
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
    "no backups": (
        lambda: nnx.restore_rngs(None),
        TypeError,
        "expected what nnx.split_rngs, nnx.fork_rngs or nnx.backup_keys returned, found NoneType",
    ),
    "streams as backups": (lambda: nnx.restore_rngs(PARAMS), TypeError, "returned, found str"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    call, kind, message = ERRORS[name]
    with pytest.raises(kind) as caught:
        call()
    assert message in str(caught.value)
    assert [int(stream.count[...]) for _, stream in PARAMS.items()] == [0, 0]
    assert set(shapes(PARAMS).values()) == {()}


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
    "reseed": (
        lambda m: nnx.reseed(m, default=0, dropout=0),
        r"cannot reseed the stream at blocks\[1\]\.noise with one key: it was split and holds keys "
        r"of shape \(2,\)\. Write `nnx\.reseed\(model, policy='match_shape', \.\.\.\)`",
    ),
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


def test_restoring_a_key_without_its_counter():
    rngs = nnx.Rngs(a=0, b=1)
    backups = nnx.backup_keys(rngs)
    nnx.reseed(rngs, a=5)
    nnx.split_rngs(rngs, splits=2, only="b")
    with pytest.raises(ValueError, match="stream 'b' was split after its key was backed up"):
        nnx.restore_rngs(backups)
    assert data(rngs.a.key[...]).tolist() != [0, 0]  # the first was not put back either
