"""Random streams: which keys they give, and what they say when asked wrongly."""

import copy
import inspect
import pickle
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx

# -- the derivation of keys, frozen


def draws(source, n=2):
    return [source() for _ in range(n)]


def after_draw(nnx):
    """Streams of which each has given one key."""
    rngs = nnx.Rngs(0, params=1, dropout=2)
    for stream in (rngs.default, rngs.params, rngs.dropout):
        stream()
    return rngs


def base_keys(rngs):
    return [rngs[name].key[...] for name in ("default", "params", "dropout")]


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


def data(key):
    return np.asarray(jax.random.key_data(key))


@pytest.mark.parametrize("name", DERIVATIONS)
def test_golden_keys(name):
    keys = DERIVATIONS[name](nnx)
    assert len(keys) == len(GOLDEN[name])
    for key, expected in zip(keys, GOLDEN[name], strict=True):
        np.testing.assert_array_equal(data(key), np.array(expected, np.uint32))


def test_the_nth_key_folds_n_into_the_base_key():
    stream, base = nnx.RngStream(7, tag="noise"), jax.random.key(7)
    for n in range(3):
        np.testing.assert_array_equal(data(stream()), data(jax.random.fold_in(base, n)))
    assert stream.count[...] == 3


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


def test_a_draw_is_one_fold_in_and_one_addition():
    def draw(stream):
        return stream(), stream

    program = jax.make_jaxpr(draw)(nnx.RngStream(0, tag="noise"))
    assert [str(eqn.primitive) for eqn in program.eqns] == ["random_fold_in", "add"]


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


def test_a_stream_as_seed_keeps_its_counter():
    """As for `split`: the peer starts it over at 0."""
    stream = nnx.Rngs(1).default
    stream()
    for copied in (nnx.Rngs(noise=stream).noise, nnx.RngStream(stream, tag="noise")):
        assert copied.tag == copied.key.tag == copied.count.tag == "noise"
        assert copied.count[...] == 1
        assert copied.key is not stream.key


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


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies(copied):
    rngs = after_draw(nnx)
    new = copied(rngs)
    assert list(new) and set(new) == set(rngs)
    np.testing.assert_array_equal(data(new.params()), data(rngs.params()))
    new.params()
    assert (rngs.params.count[...], new.params.count[...]) == (2, 3)


def test_a_stream_is_a_pytree():
    rngs = nnx.Rngs(0).split(3)
    second = jax.tree.map(lambda x: x[1], rngs)
    keys = jax.vmap(lambda rngs: rngs())(rngs)
    np.testing.assert_array_equal(data(second()), data(keys)[1])
    assert (rngs.default.count[...] == 0).all()


def test_a_private_name_is_no_stream():
    rngs = nnx.Rngs(0)
    assert not hasattr(rngs, "_repr_html_")
    with pytest.raises(AttributeError, match="'Rngs' object has no attribute '_hidden'"):
        _ = rngs._hidden


def test_a_stream_may_bear_the_name_of_a_distribution():
    rngs = nnx.Rngs(0, gamma=1)
    np.testing.assert_array_equal(data(rngs.gamma()), data(nnx.Rngs(1)()))


# -- distributions and initializers


def test_distributions_draw_the_next_key():
    rngs = nnx.Rngs(0, noise=1)
    expected = jax.random.normal(jax.random.fold_in(jax.random.key(1), 0), (2,))
    np.testing.assert_array_equal(rngs.noise.normal((2,)), expected)
    expected = jax.random.randint(jax.random.fold_in(jax.random.key(0), 0), (3,), 0, maxval=9)
    np.testing.assert_array_equal(rngs.randint((3,), 0, maxval=9), expected)
    assert (rngs.default.count[...], rngs.noise.count[...]) == (1, 1)


def test_distributions_show_their_signature():
    assert list(inspect.signature(nnx.Rngs(0).uniform).parameters)[:2] == ["shape", "dtype"]
    assert nnx.Rngs.uniform.__name__ == "uniform"
    assert "jax.random.uniform" in nnx.Rngs.uniform.__doc__


def test_a_name_that_jax_drops_is_missed_by_one_method_alone():
    code = (
        "import jax\n"
        "del jax.random.ball, jax.nn.initializers.he_normal\n"
        "import weft as nnx\n"
        "rngs = nnx.Rngs(0)\n"
        "assert rngs.uniform((2,)).shape == (2,) and rngs.he_uniform()((2, 2)).shape == (2, 2)\n"
        "for draw in (rngs.ball, rngs.kaiming_normal):\n"
        "    try: draw(2)\n"
        "    except AttributeError as error: print(error)\n"
        "assert rngs.default.count[...] == 2\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "module 'jax.random' has no attribute 'ball'",
        "module 'jax.nn.initializers' has no attribute 'he_normal'",
    ]


def test_initializers_draw_a_key_per_call():
    rngs = nnx.Rngs(0)
    init = rngs.he_normal(in_axis=0, out_axis=1)
    assert rngs.default.count[...] == 0
    first, second = init((2, 3)), init([2, 3], jnp.bfloat16)
    key = jax.random.fold_in(jax.random.key(0), 0)
    np.testing.assert_array_equal(first, jax.nn.initializers.he_normal(0, 1)(key, (2, 3)))
    assert second.dtype == jnp.bfloat16
    assert rngs.default.count[...] == 2


# -- errors: each says what was found and how to go on

PARAMS = nnx.Rngs(params=0, dropout=1)
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
    call, kind, message = ERRORS[name]
    with pytest.raises(kind) as caught:
        call()
    assert message in str(caught.value)
    assert [int(stream.count[...]) for _, stream in PARAMS.items()] == [0, 0]


def test_an_unknown_stream_is_an_attribute_error_and_a_key_error():
    rngs = nnx.Rngs(params=0)
    assert not hasattr(rngs, "dropout")
    for kind in (AttributeError, KeyError, nnx.WeftError):
        with pytest.raises(kind, match="this Rngs has no stream 'dropout'"):
            rngs["dropout"]


def test_key_data_in_place_of_a_key():
    stream = nnx.RngStream(0, tag="noise")
    stream.key.set_value(jax.random.PRNGKey(0))
    with pytest.raises(
        ValueError, match=r"holds uint32 data of shape \(2,\) in place of a typed key"
    ):
        stream()


def test_no_stream_is_drawn_from_when_one_of_them_is_split():
    rngs = nnx.Rngs(a=0, b=jax.random.split(jax.random.key(0), 2))
    with pytest.raises(ValueError, match="stream 'b' was split"):
        rngs.split(2)
    assert rngs.a.count[...] == 0


def test_a_stream_captured_by_a_plain_jit():
    stream = nnx.RngStream(0, tag="noise")
    with pytest.raises(nnx.TraceContextError, match=r"cannot write RngCount of shape \(\)"):
        jax.jit(lambda: stream())()
    assert stream.count[...] == 0
