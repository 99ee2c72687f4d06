"""Seeds and derivations: which keys they give, and what is none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx
from tests.rng.streams import PARAMS, after_draw, base_keys, check_error, data, draws

# -- the derivation of keys, frozen


def layer(nnx):
    """What a layer does: draws for its parameters, and forks a stream to keep."""
    rngs = nnx.Rngs(params=0, dropout=1)
    own = [rngs.params(), rngs.params()]
    kept = [rngs.dropout.fork(), rngs.dropout.fork()]
    return [*own, *(key for stream in kept for key in draws(stream)), rngs.dropout()]


def split_in_place(nnx, **kwargs):
    rngs = after_draw(nnx)
    with nnx.split_rngs(rngs, **kwargs):
        during = base_keys(rngs)
    return [*during, rngs(), rngs.params()]


def forked_in_place(nnx):
    rngs = after_draw(nnx)
    with nnx.fork_rngs(rngs, split={"params": 2, "dropout": None}):
        during = base_keys(rngs)
    return [*during, rngs.params()]


def reseeded(nnx):
    rngs = [after_draw(nnx), after_draw(nnx).split({"params": 2})]
    nnx.reseed(rngs, params=5, dropout=6, policy="match_shape")
    return [key for each in rngs for key in base_keys(each)]


DERIVATIONS = {
    "seed": lambda nnx: draws(nnx.Rngs(0), 3),
    "negative seed": lambda nnx: draws(nnx.Rngs(-1)),
    "seed over 32 bits": lambda nnx: draws(nnx.Rngs(2**40 + 3)),
    "named": lambda nnx: draws(nnx.Rngs(0, dropout=1).dropout),
    "other name": lambda nnx: draws(nnx.Rngs(0, dropout=1).params),
    "key": lambda nnx: draws(nnx.Rngs(jax.random.key(3))),
    "legacy key": lambda nnx: draws(nnx.Rngs(params=jax.random.PRNGKey(3)).params),
    "layer": layer,
    "fork": lambda nnx: base_keys(after_draw(nnx).fork()),
    "fork of fork": lambda nnx: draws(nnx.Rngs(0).fork().fork()),
    "split": lambda nnx: base_keys(after_draw(nnx).split(2)),
    "split by shape": lambda nnx: base_keys(after_draw(nnx).split({"params": (2, 1)})),
    "broadcast": lambda nnx: base_keys(after_draw(nnx).broadcast(2)),
    "mapped": lambda nnx: [jax.vmap(lambda stream: stream())(nnx.Rngs(0).split(2).default)],
    "split_rngs": lambda nnx: split_in_place(nnx, splits=2, only="params"),
    "split_rngs squeeze": lambda nnx: split_in_place(nnx, splits=1, squeeze=True),
    "fork_rngs": forked_in_place,
    "reseed": reseeded,
}


# Key data as uint32. These hold for every supported version of JAX; a change of one of them would
# silently change the result of every program that starts from a seed.
GOLDEN = {
    "seed": [[1797259609, 2579123966], [928981903, 3453687069], [4146024105, 2718843009]],
    "negative seed": [[2973345818, 897673333], [3461607691, 1112781462]],
    "seed over 32 bits": [[3716834203, 3481239269], [1946498123, 2217676430]],
    "named": [[507451445, 1853169794], [1948878966, 4237131848]],
    "other name": [[1797259609, 2579123966], [928981903, 3453687069]],
    "key": [[3716834203, 3481239269], [1946498123, 2217676430]],
    "legacy key": [[3716834203, 3481239269], [1946498123, 2217676430]],
    "layer": [
        [1797259609, 2579123966],
        [928981903, 3453687069],
        [3704974950, 1863054868],
        [2705940334, 2639757084],
        [3276925600, 2751771740],
        [2215249346, 143550061],
        [2441914641, 3819641963],
    ],
    "fork": [[928981903, 3453687069], [1948878966, 4237131848], [637334850, 3278974502]],
    "fork of fork": [[683029726, 1624662641], [3531307783, 465290248]],
    "split": [
        [[346279018, 360566543], [3968330031, 3923691647]],
        [[3276925600, 2751771740], [2215249346, 143550061]],
        [[4250454937, 62775254], [2584188353, 406674365]],
    ],
    "split by shape": [[0, 0], [[[3276925600, 2751771740]], [[2215249346, 143550061]]], [0, 2]],
    "broadcast": [
        [[928981903, 3453687069], [928981903, 3453687069]],
        [[1948878966, 4237131848], [1948878966, 4237131848]],
        [[637334850, 3278974502], [637334850, 3278974502]],
    ],
    "mapped": [[[683029726, 1624662641], [2882751927, 2975959832]]],
    "split_rngs": [
        [0, 0],
        [[3276925600, 2751771740], [2215249346, 143550061]],
        [0, 2],
        [928981903, 3453687069],
        [2441914641, 3819641963],
    ],
    "split_rngs squeeze": [
        [346279018, 360566543],
        [3276925600, 2751771740],
        [4250454937, 62775254],
        [4146024105, 2718843009],
        [2441914641, 3819641963],
    ],
    "fork_rngs": [
        [0, 0],
        [[3276925600, 2751771740], [2215249346, 143550061]],
        [637334850, 3278974502],
        [2441914641, 3819641963],
    ],
    "reseed": [
        [0, 0],
        [2724472204, 3573582090],
        [2216260512, 580592727],
        [0, 0],
        [[843925894, 658080391], [1989812028, 1278715772]],
        [3579880020, 2648185591],
    ],
}


@pytest.mark.parametrize("name", DERIVATIONS)
def test_golden_keys(name):
    keys = DERIVATIONS[name](nnx)
    assert len(keys) == len(GOLDEN[name])
    for key, expected in zip(keys, GOLDEN[name], strict=True):
        np.testing.assert_array_equal(data(key), np.array(expected, np.uint32))


# -- seeds


@pytest.mark.parametrize("seed", [0, -1, True, 2**31, 2**32 + 5, -(2**40), 2**63 - 1, -(2**63)])
@pytest.mark.parametrize("offset", [0, 3])
def test_an_integer_gives_the_key_that_jax_makes_of_it(seed, offset):
    before = jax.config.jax_random_seed_offset
    jax.config.update("jax_random_seed_offset", offset)
    try:
        for impl in ("threefry2x32", "rbg", "unsafe_rbg"):
            with jax.default_prng_impl(impl):
                found, expected = nnx.Rngs(seed).default.key[...], jax.random.key(seed)
                assert found.dtype == expected.dtype
                np.testing.assert_array_equal(data(found), data(expected))
    finally:
        jax.config.update("jax_random_seed_offset", before)


SEEDS = {
    "numpy integer": lambda: np.int64(5),
    "numpy array": lambda: np.array(5, np.uint8),
    "array": lambda: jnp.uint32(5),
    "key": lambda: jax.random.key(5),
    "legacy key": lambda: jax.random.PRNGKey(5),
    "legacy numpy key": lambda: np.asarray(jax.random.PRNGKey(5)),
    "variable of a key": lambda: nnx.RngKey(jax.random.key(5)),
    "variable of a seed": lambda: nnx.Variable(jnp.int32(5)),
    "stream": lambda: nnx.RngStream(5, tag="other"),
}


@pytest.mark.parametrize("name", SEEDS)
def test_seeds(name):
    stream = nnx.Rngs(noise=SEEDS[name]()).noise
    assert jnp.issubdtype(stream.key.dtype, jax.dtypes.prng_key)
    np.testing.assert_array_equal(data(stream.key[...]), [0, 5])
    assert stream.count.dtype == jnp.uint32 and stream.count.shape == ()


def test_a_traced_seed():
    key = jax.jit(lambda seed: nnx.Rngs(seed)())(5)
    np.testing.assert_array_equal(data(key), data(nnx.Rngs(5)()))


def test_an_array_of_keys_makes_a_stream_of_several():
    typed = nnx.Rngs(jax.random.split(jax.random.key(0), 3)).default
    legacy = nnx.Rngs(jax.random.split(jax.random.PRNGKey(0), 3)).default
    np.testing.assert_array_equal(data(typed.key[...]), data(legacy.key[...]))
    assert typed.key.shape == legacy.count.shape == (3,)


# -- errors: each says what was found and how to go on

ERRORS = {
    "float seed": (
        lambda: nnx.Rngs(1.5),
        TypeError,
        "stream 'default': expected a seed (an integer), a key (`jax.random.key(0)`), legacy "
        "uint32 key data or an RngStream, found 1.5 of type float. Write `nnx.Rngs(default=0)`",
    ),
    "text seed": (lambda: nnx.Rngs(params="a"), TypeError, "found 'a' of type str"),
    "no seed": (lambda: nnx.Rngs(params=None), TypeError, "found None of type NoneType"),
    "list seed": (lambda: nnx.RngStream([1, 2], tag="a"), TypeError, "found [1, 2] of type list"),
    "float array seed": (
        lambda: nnx.Rngs(jnp.ones((3,))),
        TypeError,
        "found an array float32[3]. Write `nnx.Rngs(default=0)`",
    ),
    "integer array seed": (lambda: nnx.Rngs(jnp.arange(2)), TypeError, "an array int32[2]"),
    "variable seed": (lambda: nnx.Rngs(nnx.Param(0.5)), TypeError, "found 0.5 of type float"),
    "long seed": (
        lambda: nnx.Rngs(2**70),
        ValueError,
        f"seed {2**70} of stream 'default' does not fit into 64 bits: give a smaller one, "
        "`nnx.Rngs(default=seed % 2**32)`",
    ),
    "legacy key of another PRNG": (
        lambda: nnx.Rngs(np.zeros((2, 4), np.uint32)),
        ValueError,
        "stream 'default': uint32 data of shape (2, 4) is no key of the PRNG 'threefry2x32': name "
        "the one it was made with, `jax.random.wrap_key_data(data, impl=...)`",
    ),
    "negative splits": (
        lambda: PARAMS.split(-1),
        ValueError,
        "cannot split a stream into -1 keys: the number is negative",
    ),
    "negative splits of a stream": (
        lambda: PARAMS.params.fork(split=(2, -1)),
        ValueError,
        "(2, -1)",
    ),
    "text splits": (
        lambda: PARAMS.split("params"),
        TypeError,
        "expected the number of splits as an int, or a tuple of ints for several axes, found "
        "'params' of type str; to split only some streams, write `rngs.split({'dropout': 4})`",
    ),
    "float splits": (
        lambda: PARAMS.broadcast({"params": 2.0}),
        TypeError,
        "found 2.0 of type float",
    ),
    "splits of a stream": (
        lambda: PARAMS.params.split(None),
        TypeError,
        "found None of type NoneType",
    ),
    "filter after the rest": (
        lambda: PARAMS.split({...: 2, "params": 3}),
        nnx.FilterError,
        "`...` matches everything",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    check_error(*ERRORS[name])
