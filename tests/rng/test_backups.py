"""Putting back what the streams inside a model held."""

import pytest

import weft as nnx
from tests.rng.streams import PARAMS, check_error, data, make_model, shapes


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


def test_backup_keys():
    rngs = nnx.Rngs(4)
    backups = nnx.backup_keys(rngs)
    nnx.reseed(rngs, default=5)
    rngs()
    nnx.restore_rngs(backups)
    assert data(rngs.default.key[...]).tolist() == [0, 4] and rngs.default.count[...] == 1


# -- errors: each says what was found and how to go on

ERRORS = {
    "no backups": (
        lambda: nnx.restore_rngs(None),
        TypeError,
        "expected what nnx.split_rngs, nnx.fork_rngs or nnx.backup_keys returned, found NoneType",
    ),
    "streams as backups": (lambda: nnx.restore_rngs(PARAMS), TypeError, "returned, found str"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    check_error(*ERRORS[name])


def test_restoring_a_key_without_its_counter():
    rngs = nnx.Rngs(a=0, b=1)
    backups = nnx.backup_keys(rngs)
    nnx.reseed(rngs, a=5)
    nnx.split_rngs(rngs, splits=2, only="b")
    with pytest.raises(ValueError, match="stream 'b' was split after its key was backed up"):
        nnx.restore_rngs(backups)
    assert data(rngs.a.key[...]).tolist() != [0, 0]  # the first was not put back either
