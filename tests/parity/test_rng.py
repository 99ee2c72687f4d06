"""Random streams against flax.nnx: the same calls give the same keys, counters and values."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft

nnx_flax = pytest.importorskip("flax.nnx", reason="flax is not installed")

pytestmark = pytest.mark.filterwarnings(
    "ignore:The 'split' argument of 'fork' is deprecated:DeprecationWarning"
)


@functools.cache
def model_type(nnx):
    """A model with streams of two names at several depths, one of them shared."""

    class Block(nnx.Module):
        def __init__(self, rngs):
            self.noise = rngs.dropout.fork()

    class Model(nnx.Module):
        def __init__(self, rngs):
            self.rngs = rngs
            self.again = rngs.default
            self.blocks = nnx.List([Block(rngs) for _ in range(11)])
            self.head = Block(rngs)

    return Model


def make_model(nnx):
    return model_type(nnx)(nnx.Rngs(0, dropout=1))


def plain(value):
    """Streams, keys and containers of them as plain data."""
    if isinstance(value, (weft.RngStream, nnx_flax.RngStream)):
        return {"tag": value.tag, "key": plain(value.key[...]), "count": plain(value.count[...])}
    if hasattr(value, "items"):
        return {name: plain(x) for name, x in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(x) for x in value]
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        return str(jax.random.key_impl(value)), np.asarray(jax.random.key_data(value))
    return np.asarray(value) if isinstance(value, jax.Array) else value


def streams(nnx, node):
    found = [(path, x) for path, x in nnx.iter_graph(node) if isinstance(x, nnx.RngStream)]
    return [[list(path), plain(stream)] for path, stream in found]


def assert_same(found, expected):
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        for name in expected:
            assert_same(found[name], expected[name])
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected)
        for f, e in zip(found, expected, strict=True):
            assert_same(f, e)
    elif isinstance(expected, np.ndarray):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
    else:
        assert found == expected


def draws(source, n=3):
    return [source() for _ in range(n)]


def drawn(rngs):
    draws(rngs.params)
    rngs.dropout()
    return rngs


def rngs_of(*seeds, **named):
    """The streams of an `Rngs`, and the next keys of each."""

    def scenario(nnx):
        rngs = nnx.Rngs(*seeds, **named)
        return [rngs, [draws(stream) for _, stream in rngs.items()], rngs]

    return scenario


def derived(method, *args, names=("params", "dropout"), **kwargs):
    """What a method of an `Rngs` returns, and the old streams after it."""

    def scenario(nnx):
        rngs = nnx.Rngs(0, params=1, dropout=2)
        for name in names:
            rngs[name]()
        return [getattr(rngs, method)(*args, **kwargs), rngs]

    return scenario


def derived_stream(method, *args, **kwargs):
    def scenario(nnx):
        stream = nnx.RngStream(5, tag="noise")
        draws(stream)
        return [getattr(stream, method)(*args, **kwargs), stream]

    return scenario


def rekeyed(function, **kwargs):
    """The streams of a model during and after a function on it, and the next keys after it."""

    def scenario(nnx):
        model = make_model(nnx)
        options = {k: v(nnx) if callable(v) else v for k, v in kwargs.items()}
        with getattr(nnx, function)(model, **options) as backups:
            during = streams(nnx, model)
            held = [[stream.tag, key, count] for stream, key, count in backups]
        return [during, held, streams(nnx, model), draws(model.rngs.dropout)]

    return scenario


def decorated(function, **kwargs):
    def scenario(nnx):
        seen = []

        @getattr(nnx, function)(**kwargs)
        def call(first, *, second):
            seen.extend([streams(nnx, first), streams(nnx, second)])
            return 7

        model, rngs = make_model(nnx), nnx.Rngs(8)
        result = call(model, second=rngs)
        return [result, seen, streams(nnx, model), rngs]

    return scenario


def copied(function, **kwargs):
    """What a function returns in place of changing the model, and the model after it."""

    def scenario(nnx):
        model = make_model(nnx)
        copy = getattr(nnx, function)(model, **{"graph_updates": False, **kwargs})
        return [copy is model, streams(nnx, copy), streams(nnx, model)]

    return scenario


def reseeded(split=None, **kwargs):
    def scenario(nnx):
        model = make_model(nnx)
        draws(model.head.noise)
        if split:
            nnx.split_rngs(model, splits=split, only="dropout")
        nnx.reseed(model, **kwargs)
        return streams(nnx, model)

    return scenario


def backed_up(nnx):
    model = make_model(nnx)
    backups = (nnx if nnx is weft else nnx.rnglib).backup_keys(model)
    nnx.reseed(model, default=3)
    draws(model.head.noise)
    nnx.restore_rngs(backups)
    return [[[stream.tag, key] for stream, key in backups], streams(nnx, model)]


def mapped(nnx):
    """Draws from split streams under JAX's vmap, by way of the pytree."""
    rngs = nnx.Rngs(0, dropout=1).split({"dropout": 3, "default": (3,)})
    keys = jax.vmap(lambda rngs: (rngs(), rngs.dropout(), rngs.dropout()))(rngs)
    first = jax.tree.map(lambda x: x[0], rngs)
    return [list(keys), draws(first.dropout)]


SCENARIOS = {
    "seed": rngs_of(0),
    "negative seed": rngs_of(-1),
    "seed over 32 bits": rngs_of(2**40 + 3),
    "bool seed": rngs_of(True),
    "named": rngs_of(0, params=1, dropout=2),
    "only named": rngs_of(params=1, dropout=2),
    "default by name": rngs_of(params=1, default=2),
    "mapping": rngs_of({"params": 1, "default": 2}, dropout=3, params=4),
    "none": rngs_of(),
    "key": rngs_of(jax.random.key(3)),
    "rbg key": rngs_of(jax.random.key(3, impl="rbg")),
    "unsafe_rbg key": rngs_of(noise=jax.random.key(3, impl="unsafe_rbg")),
    "legacy key": rngs_of(0, params=jax.random.PRNGKey(3)),
    "keys": lambda nnx: nnx.Rngs(jax.random.split(jax.random.key(3), 2)),
    "legacy keys": lambda nnx: nnx.Rngs(jax.random.split(jax.random.PRNGKey(3), 2)),
    "stream": lambda nnx: nnx.Rngs(params=nnx.Rngs(7).default),
    "stream of keys": lambda nnx: nnx.Rngs(params=nnx.Rngs(7).split(2).default),
    "other name": lambda nnx: [(r := nnx.Rngs(0, a=1)), r.noise(), r["noise"](), r(), r],
    "membership": lambda nnx: [
        (r := nnx.Rngs(0, a=1)) and len(r),
        list(r),
        ["a" in r, "b" in r, 3 in r, "default" in r],
        hasattr(nnx.Rngs(a=1), "b"),
    ],
    "added stream": lambda nnx: [
        (r := nnx.Rngs(0)) and setattr(r, "new", nnx.RngStream(4, tag="new")),
        r,
        r.new(),
    ],
    "split": derived("split", 3),
    "split by shape": derived("split", (2, 3)),
    "split into none": derived("split", 0),
    "split without axis": derived("split", ()),
    "split one": derived("split", {"params": 3}, names=("params",)),
    "split by filters": derived("split", {("params", "default"): 2, ...: (1, 2)}),
    "split by a callable": derived("split", {lambda path, s: s.tag != "params": 2, ...: 3}),
    "broadcast": derived("broadcast", 3),
    "broadcast by shape": derived("broadcast", (2, 3)),
    "broadcast none": derived("broadcast", None, names=()),
    "broadcast one": derived("broadcast", {"params": 3, "dropout": None}, names=("params",)),
    "fork": derived("fork"),
    "fork split": derived("fork", split=2),
    "fork split one": derived("fork", split={"dropout": 2, "params": None}),
    "stream split": derived_stream("split", 3),
    "stream split by shape": derived_stream("split", (2, 2)),
    "stream broadcast": derived_stream("broadcast", 3),
    "stream fork": derived_stream("fork"),
    "stream fork split": derived_stream("fork", split=(1, 2)),
    "model": lambda nnx: streams(nnx, make_model(nnx)),
    "mapped": mapped,
    "split_rngs": rekeyed("split_rngs", splits=3),
    "split_rngs by shape": rekeyed("split_rngs", splits=(2, 2)),
    "split_rngs one name": rekeyed("split_rngs", splits=3, only="dropout"),
    "split_rngs by path": rekeyed(
        "split_rngs", splits=3, only=lambda nnx: nnx.PathContains("blocks")
    ),
    "split_rngs by type": rekeyed("split_rngs", splits=3, only=lambda nnx: nnx.RngState),
    "split_rngs of half a stream": rekeyed("split_rngs", splits=3, only=lambda nnx: nnx.RngKey),
    "split_rngs squeeze": rekeyed("split_rngs", splits=1, squeeze=True),
    "split_rngs decorator": decorated("split_rngs", splits=2),
    "split_rngs decorator one name": decorated("split_rngs", splits=2, only="default"),
    "split_rngs copy": copied("split_rngs", splits=2, only="dropout"),
    "split_rngs copied arguments": decorated("split_rngs", splits=2, graph_updates=False),
    "fork_rngs": rekeyed("fork_rngs"),
    "fork_rngs split": rekeyed("fork_rngs", split=2),
    "fork_rngs by shape": rekeyed("fork_rngs", split=(1, 2)),
    "fork_rngs by filter": rekeyed("fork_rngs", split={"dropout": 2, "default": None}),
    "fork_rngs only": rekeyed("fork_rngs", split={"default": None}),
    "fork_rngs decorator": decorated("fork_rngs"),
    "fork_rngs decorator by filter": decorated("fork_rngs", split={"default": 2}),
    "fork_rngs copy": copied("fork_rngs", split={"dropout": 2}),
    "with_rngs": copied("with_rngs"),
    "with_rngs split": copied("with_rngs", split=2),
    "with_rngs split one": copied("with_rngs", split={"dropout": 2}),
    "with_rngs fork": copied("with_rngs", fork="dropout"),
    "with_rngs fork two": copied("with_rngs", fork=["dropout", "default"]),
    "with_rngs fork all": copied("with_rngs", fork=...),
    "with_rngs broadcast": copied("with_rngs", broadcast=(2, 2)),
    "with_rngs split first": copied("with_rngs", split={"dropout": 2}, fork=..., broadcast=3),
    "with_rngs only": copied("with_rngs", split=2, only="dropout"),
    "with_rngs by path": copied("with_rngs", split=2, only=lambda path, s: path[0] == "blocks"),
    "with_rngs decorator": decorated("with_rngs", split={"default": 2}, graph_updates=False),
    "reseed": reseeded(dropout=5),
    "reseed by key": reseeded(dropout=jax.random.key(5), default=3),
    "reseed by legacy key": reseeded(default=jax.random.PRNGKey(5)),
    "reseed other name": reseeded(params=5),
    "reseed split": reseeded(split=(2, 3), policy="match_shape", dropout=5),
    "reseed by policy": reseeded(
        split=2, policy=lambda path, key, shape: jax.random.fold_in(key, len(path)), dropout=5
    ),
    "backup_keys": backed_up,
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_keys_and_counters(name):
    found, expected = (plain(SCENARIOS[name](nnx)) for nnx in (weft, nnx_flax))
    assert_same(found, expected)


DISTRIBUTIONS = {
    "ball": ((3,), {"shape": (2,)}),
    "bernoulli": ((0.3, (4,)), {}),
    "beta": ((1.0, 2.0, (3,)), {}),
    "binomial": ((10, 0.5, (3,)), {}),
    "bits": (((3,),), {"dtype": jnp.uint8}),
    "categorical": ((jnp.log(jnp.array([0.2, 0.8])),), {"shape": (4,)}),
    "cauchy": (((3,),), {}),
    "chisquare": ((2.0, (3,)), {}),
    "choice": ((5, (3,)), {"replace": False}),
    "dirichlet": ((jnp.ones(3), (2,)), {}),
    "double_sided_maxwell": ((0.0, 1.0, (3,)), {}),
    "exponential": (((3,),), {}),
    "f": ((2.0, 3.0, (3,)), {}),
    "gamma": ((2.0, (3,)), {}),
    "generalized_normal": ((1.5, (3,)), {}),
    "geometric": ((0.3, (3,)), {}),
    "gumbel": (((3,),), {}),
    "laplace": (((3,),), {}),
    "loggamma": ((2.0, (3,)), {}),
    "logistic": (((3,),), {}),
    "lognormal": ((0.5, (3,)), {}),
    "maxwell": (((3,),), {}),
    "multinomial": ((5.0, jnp.array([0.2, 0.8])), {}),
    "multivariate_normal": ((jnp.zeros(2), jnp.eye(2)), {"shape": (3,)}),
    "normal": (((2, 3),), {"dtype": jnp.bfloat16}),
    "orthogonal": ((3,), {}),
    "pareto": ((2.0, (3,)), {}),
    "permutation": ((5,), {}),
    "poisson": ((2.0, (3,)), {}),
    "rademacher": (((3,),), {}),
    "randint": (((3,), 0, 10), {}),
    "rayleigh": ((1.0, (3,)), {}),
    "t": ((2.0, (3,)), {}),
    "triangular": ((0.0, 0.5, 1.0, (3,)), {}),
    "truncated_normal": ((-1.0, 1.0), {"shape": (3,)}),
    "uniform": ((), {"shape": (3,), "minval": 1.0, "maxval": 2.0}),
    "wald": ((1.0, (3,)), {}),
    "weibull_min": ((1.0, 2.0, (3,)), {}),
}
INITIALIZERS = {
    "delta_orthogonal": (),
    "glorot_normal": (),
    "glorot_uniform": (),
    "he_normal": (),
    "he_uniform": (),
    "kaiming_normal": (),
    "kaiming_uniform": (),
    "lecun_normal": (),
    "lecun_uniform": (),
    "variance_scaling": (2.0, "fan_avg", "uniform"),
    "xavier_normal": (),
    "xavier_uniform": (),
}


KEY = jax.random.key(3)


def sources(nnx, key):
    return [nnx.Rngs(key, other=4), nnx.Rngs(3, other=key).other]


def assert_same_program(scenario):
    """Compares what is traced: the same program on the same key has the same bits.

    Compiling each distribution would take most of the time of this file.
    """
    programs = [jax.make_jaxpr(functools.partial(scenario, nnx))(KEY) for nnx in (weft, nnx_flax)]
    assert str(programs[0]) == str(programs[1])


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_distribution(name):
    args, kwargs = DISTRIBUTIONS[name]
    assert_same_program(
        lambda nnx, key: [[getattr(s, name)(*args, **kwargs), s()] for s in sources(nnx, key)]
    )


def test_values():
    def run(nnx):
        rngs = nnx.Rngs(3, other=4)
        return [
            rngs.normal((2, 3)),
            rngs.uniform((3,), dtype=jnp.bfloat16),
            rngs.other.bernoulli(0.3, (4,)),
            rngs.choice(5, (3,), replace=False),
            rngs.lecun_normal()((2, 3)),
        ]

    assert_same(plain(run(weft)), plain(run(nnx_flax)))


@pytest.mark.parametrize("name", INITIALIZERS)
def test_initializer(name):
    # QR, which makes matrices orthogonal, knows no bfloat16.
    orthogonal = name == "delta_orthogonal"
    shape, dtype = ((3, 3, 2, 4), jnp.float32) if orthogonal else ((2, 3), jnp.bfloat16)

    def scenario(nnx, key):
        results = []
        for source in sources(nnx, key):
            init = getattr(source, name)(*INITIALIZERS[name])
            results.append([init(shape), init(shape, dtype), source()])
        return results

    assert_same_program(scenario)


def test_every_method_of_the_peer_is_there():
    for peer, own in ((nnx_flax.Rngs, weft.Rngs), (nnx_flax.RngStream, weft.RngStream)):
        names = [n for n in dir(peer) if not n.startswith("_") and callable(getattr(peer, n))]
        base = set(dir(nnx_flax.Pytree))
        assert [n for n in names if n not in base and not hasattr(own, n)] == []
    methods = {n for n in dir(weft.Rngs) if n not in dir(weft.Pytree) and not n.startswith("_")}
    own = {"items", "split", "fork", "broadcast"}
    assert methods == own | DISTRIBUTIONS.keys() | INITIALIZERS.keys()
