"""One stream: what a draw does, what it holds, and when it cannot be drawn from."""

import jax
import numpy as np
import pytest

import weft as nnx
from tests.rng.streams import check_error, data


def test_the_nth_key_folds_n_into_the_base_key():
    stream, base = nnx.RngStream(7, tag="noise"), jax.random.key(7)
    for n in range(3):
        np.testing.assert_array_equal(data(stream()), data(jax.random.fold_in(base, n)))
    assert stream.count[...] == 3


def test_a_draw_is_one_fold_in_and_one_addition():
    def draw(stream):
        return stream(), stream

    program = jax.make_jaxpr(draw)(nnx.RngStream(0, tag="noise"))
    assert [str(eqn.primitive) for eqn in program.eqns] == ["random_fold_in", "add"]


def test_a_stream_as_seed_keeps_its_counter():
    """As for `split`: the peer starts it over at 0."""
    stream = nnx.Rngs(1).default
    stream()
    for copied in (nnx.Rngs(noise=stream).noise, nnx.RngStream(stream, tag="noise")):
        assert copied.tag == copied.key.tag == copied.count.tag == "noise"
        assert copied.count[...] == 1
        assert copied.key is not stream.key


def test_state_and_tags():
    rngs = nnx.Rngs(0, dropout=1)
    flat = dict(nnx.to_flat_state(nnx.state(rngs)))
    assert {path: type(variable) for path, variable in flat.items()} == {
        ("default", "count"): nnx.RngCount,
        ("default", "key"): nnx.RngKey,
        ("dropout", "count"): nnx.RngCount,
        ("dropout", "key"): nnx.RngKey,
    }
    assert issubclass(nnx.RngCount, nnx.RngState) and issubclass(nnx.RngKey, nnx.RngState)
    tagged = dict(nnx.to_flat_state(nnx.state(rngs, "dropout")))
    assert list(tagged) == [("dropout", "count"), ("dropout", "key")]
    assert nnx.graphdef(rngs) == nnx.graphdef(nnx.Rngs(5, dropout=jax.random.key(7)))


def test_a_stream_is_a_pytree():
    rngs = nnx.Rngs(0).split(3)
    second = jax.tree.map(lambda x: x[1], rngs)
    keys = jax.vmap(lambda rngs: rngs())(rngs)
    np.testing.assert_array_equal(data(second()), data(keys)[1])
    assert (rngs.default.count[...] == 0).all()


# -- errors: each says what was found and how to go on

ERRORS = {
    "draw from a split stream": (
        lambda: nnx.Rngs(dropout=0).split(3).dropout(),
        ValueError,
        "stream 'dropout' was split and holds keys of shape (3,), but a scalar key is expected "
        "here. Draw inside the transform that maps over the split axis, "
        "`nnx.vmap(f, in_axes=0)(rngs)`; or take the stream of one index, "
        "`jax.tree.map(lambda x: x[0], rngs)`; or split only for the length of a call or block, "
        "after which the scalar key is back: `@nnx.split_rngs(splits=N)`, "
        "`with nnx.split_rngs(model, splits=N):`",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    check_error(*ERRORS[name])


def test_key_data_in_place_of_a_key():
    stream = nnx.RngStream(0, tag="noise")
    stream.key.set_value(jax.random.PRNGKey(0))
    with pytest.raises(
        ValueError, match=r"holds uint32 data of shape \(2,\) in place of a typed key"
    ):
        stream()


def test_a_stream_captured_by_a_plain_jit():
    stream = nnx.RngStream(0, tag="noise")
    with pytest.raises(nnx.TraceContextError, match=r"cannot write RngCount of shape \(\)"):
        jax.jit(lambda: stream())()
    assert stream.count[...] == 0
