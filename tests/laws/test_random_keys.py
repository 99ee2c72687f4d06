"""JAX's check for keys that are used twice, over all that draws, splits, keeps and moves keys.

It finds nothing in what Weft does, and what the user does with a drawn key it finds as ever. A row
is called twice, as what is kept between calls is where a key would be used again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import weft as nnx
from tests.laws.transforms import TRANSFORMS, Transform
from tests.nn import test_meshes as layers
from weft._rng.draws import KeySource

X = jnp.ones((4, 8))
STREAMS = nnx.StateAxes({nnx.RngState: 0, ...: None})


@pytest.fixture(autouse=True)
def checked() -> Iterator[None]:
    with jax.debug_key_reuse(True):
        yield


class Net(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.linear = nnx.Linear(8, 8, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.drop(self.linear(x))


def net() -> Net:
    return Net(nnx.Rngs(0))


def call(model: Any, x: Any = X) -> Any:
    return model(x)


def loss(model: Any) -> Any:
    return model(X).sum()


# -- every layer, initializer, distribution and transform


@pytest.mark.parametrize("name", layers.LAYERS)
def test_layers(name: str) -> None:
    layer, x = layers.make(name)
    for _ in range(2):
        layer(x)
        layers.results(layer, x)


INITIALIZERS = {
    "constant": nnx.initializers.constant(2.0),
    "delta_orthogonal": nnx.initializers.delta_orthogonal(),
    "glorot_normal": nnx.initializers.glorot_normal(),
    "he_uniform": nnx.initializers.he_uniform(),
    "lecun_normal": nnx.initializers.lecun_normal(),
    "normal": nnx.initializers.normal(0.02),
    "orthogonal": nnx.initializers.orthogonal(),
    "truncated_normal": nnx.initializers.truncated_normal(),
    "uniform": nnx.initializers.uniform(),
    "variance_scaling": nnx.initializers.variance_scaling(1.0, "fan_in", "normal"),
    "zeros": nnx.initializers.zeros,
}


@pytest.mark.parametrize("name", INITIALIZERS)
def test_initializers(name: str) -> None:
    init, rngs = INITIALIZERS[name], nnx.Rngs(0)
    shape = (3, 4, 4) if name == "delta_orthogonal" else (4, 4)
    for _ in range(2):
        nnx.Param(init(rngs(), shape, jnp.float32))
        nnx.jit(lambda rngs: nnx.Param(init(rngs(), shape, jnp.float32)))(rngs)
        if name != "delta_orthogonal":
            nnx.Linear(4, 4, kernel_init=init, rngs=rngs)


ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "ball": (2,),
    "beta": (1.0, 1.0),
    "binomial": (3.0, 0.5),
    "categorical": (jnp.zeros(3),),
    "chisquare": (2.0,),
    "choice": (jnp.arange(3),),
    "dirichlet": (jnp.ones(3),),
    "double_sided_maxwell": (0.0, 1.0),
    "f": (1.0, 1.0),
    "gamma": (1.0,),
    "generalized_normal": (2.0,),
    "geometric": (0.5,),
    "loggamma": (1.0,),
    "multinomial": (3.0, jnp.ones(3) / 3.0),
    "multivariate_normal": (jnp.zeros(2), jnp.eye(2)),
    "orthogonal": (3,),
    "pareto": (1.0,),
    "permutation": (3,),
    "poisson": (3.0,),
    "rademacher": ((2,),),
    "randint": ((2,), 0, 3),
    "rayleigh": (1.0,),
    "t": (2.0,),
    "triangular": (0.0, 0.5, 1.0),
    "truncated_normal": (-1.0, 1.0),
    "wald": (1.0,),
    "weibull_min": (1.0, 1.0),
}
DRAWS = [name for name in vars(KeySource) if name in vars(jax.random) and name[0] != "_"]


def test_distributions() -> None:
    def draw_all(rngs: nnx.Rngs) -> Any:
        return [getattr(rngs, name)(*ARGUMENTS.get(name, ())) for name in DRAWS]

    assert len(DRAWS) > 30
    rngs = nnx.Rngs(0)
    jax.eval_shape(draw_all, rngs)  # the check reads what is traced
    jax.eval_shape(nnx.jit(draw_all), rngs)


@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda t: t.name)
def test_transforms(transform: Transform) -> None:
    def body(model: Any) -> Any:
        model(X)
        with nnx.fork_rngs(model):
            model(X)
        nnx.reseed(model, default=1)
        call(model)
        return jnp.zeros(())

    model = net()
    transformed = transform.wrap(body)
    for _ in range(2):
        transformed(model)
        model(X)


# -- further programs


def streams() -> None:
    for seed in (
        0,
        np.uint32(3),
        jax.random.key(0),
        jax.random.PRNGKey(0),
        nnx.RngStream(0, tag="a"),
    ):
        rngs = nnx.Rngs(seed, dropout=1)
        for _ in range(2):
            rngs.normal(())
            rngs.dropout()
            jax.random.normal(rngs.params())
            rngs.lecun_normal()((2, 2))


def prng_implementations() -> None:
    for name in ("rbg", "unsafe_rbg"):
        with jax.default_prng_impl(name):
            model = net()
            nnx.jit(call)(model)
            model(X)


def forks() -> None:
    rngs = nnx.Rngs(0)
    for derived in (rngs.fork(), rngs["a"].fork(), nnx.Rngs(rngs["default"])):
        derived.normal(())
        derived.normal(())
    for derived in (rngs.split(3), rngs.fork(split=3), rngs.broadcast(3)):
        for _ in range(2):
            nnx.vmap(lambda rngs: rngs.normal(()))(derived)
    with nnx.split_rngs(rngs, splits=1, squeeze=True):
        rngs.normal(())
    nnx.with_rngs(rngs, fork=...).normal(())
    rows = [jax.tree.map(lambda x, i=i: x[i], rngs.split(2)) for i in range(2)]
    for row in rows:
        row.normal(())


def a_key_from_jit() -> None:
    rngs = nnx.Rngs(0)
    draw = nnx.jit(lambda rngs: rngs())
    for _ in range(3):
        jax.random.normal(draw(rngs))


def models_made_in_jit() -> None:
    for seed in (3, jax.random.key(3)):
        model = nnx.jit(lambda seed: Net(nnx.Rngs(seed)))(seed)
        model(X)
        nnx.jit(call)(model)


def split_streams() -> None:
    model = net()
    mapped = nnx.vmap(call, in_axes=(STREAMS, 0))
    for inner in (mapped, nnx.vmap(nnx.jit(nnx.remat(call)), in_axes=(STREAMS, 0))):
        split = nnx.split_rngs(splits=4)(inner)
        split(model, X)
        nnx.jit(split)(model, X)
        nnx.grad(lambda m, f=split: f(m, X).sum())(model)
        nnx.cond(jnp.array(True), split, lambda m, x: x, model, X)
        nnx.fori_loop(0, 2, lambda i, c, f=split: (c[0], f(*c)), (model, X))


def layers_in_a_scan() -> None:
    make = nnx.split_rngs(nnx.vmap(Net), splits=3)
    rngs = nnx.Rngs(0)
    for body in (call, nnx.remat(call)):
        models = make(rngs)
        forward = nnx.scan(body, in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
        forward(models, X)
        nnx.jit(nnx.grad(lambda m, f=forward: f(m, X).sum()))(models)
    counted = nnx.StateAxes({nnx.RngCount: nnx.Carry, ...: None})
    again = nnx.scan(call, in_axes=(counted, nnx.Carry), out_axes=nnx.Carry, length=2)
    again(net(), X)


def stacks() -> None:
    stack = nnx.Stack(lambda rngs: Net(rngs), 3, rngs=nnx.Rngs(0))
    for _ in range(2):
        stack(X)
        nnx.jit(nnx.grad(loss))(stack)
        for layer in stack:  # whose keys are read from those of all layers
            layer(X)
        stack[1:](X)
        backup = nnx.fork_rngs(stack[0])
        nnx.restore_rngs(backup)
        nnx.restore_rngs(backup)
    blocks = nnx.unstack(stack)
    for _ in range(2):
        nnx.stack(blocks)(X)
        blocks[0](X)
    nnx.unstack(nnx.state(stack))


def new_seeds() -> None:
    model = net()
    for _ in range(2):
        backup = nnx.backup_keys(model)
        nnx.reseed(model, default=3, dropout=jax.random.key(5))
        model(X)
        nnx.restore_rngs(backup)
        nnx.jit(lambda m, s: nnx.reseed(m, default=s))(model, 5)
        model(X)
        nnx.fork_rngs(net(), split=3)
    nnx.split_rngs(model, splits=3)
    nnx.reseed(model, policy="match_shape", default=3, dropout=4)


def training() -> None:
    model = net()
    noisy = optax.chain(optax.add_noise(0.1, 0.1, 0), optax.adam(1e-3))
    optimizer = nnx.Optimizer(model, noisy, wrt=nnx.Param)

    @nnx.jit
    def step(model: Any, optimizer: Any) -> Any:
        value, grads = nnx.value_and_grad(loss)(model)
        optimizer.update(model, grads)
        return value

    kept = nnx.cached_partial(step, model, optimizer)
    for _ in range(3):
        step(model, optimizer)
        kept()


def states() -> None:
    graphdef, state = nnx.split(net())

    @jax.jit
    def step(state: Any) -> Any:
        model = nnx.merge(graphdef, state)
        return model(X), nnx.state(model)

    for _ in range(3):
        _, state = step(state)
    for _ in range(2):
        nnx.clone(nnx.merge(graphdef, state))(X)
        model = jax.jit(lambda model: (model(X), model))(nnx.merge(graphdef, state))[1]
        nnx.update(model, state)
        model(X)


def a_key_at_the_call() -> None:
    rngs, layer = nnx.Rngs(0), nnx.Dropout(0.5)
    for _ in range(2):
        layer(X, rngs=rngs())
        layer(X, rngs=rngs)
        nnx.jit(lambda x, key: layer(x, rngs=key))(X, rngs())


def over_devices() -> None:
    mesh = jax.make_mesh((4,), ("a",), axis_types=(jax.sharding.AxisType.Auto,))
    specs = {"mesh": mesh, "in_specs": (jax.P(), jax.P("a")), "out_specs": jax.P("a")}
    model = net()
    for f in (nnx.shard_map(call, **specs), nnx.pmap(call, in_axes=(None, 0))):
        f(model, X)
        f(model, X)


PROGRAMS = [
    streams,
    prng_implementations,
    forks,
    a_key_from_jit,
    models_made_in_jit,
    split_streams,
    layers_in_a_scan,
    stacks,
    new_seeds,
    training,
    states,
    a_key_at_the_call,
    over_devices,
]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_programs(program: Callable[[], None]) -> None:
    program()


# -- what the user does


def twice(key: Any) -> Any:
    return jax.random.normal(key) + jax.random.normal(key)


DROP = nnx.Dropout(0.5)
REUSES: dict[str, Callable[[nnx.Rngs], Any]] = {
    "eager": lambda rngs: twice(rngs()),
    "named": lambda rngs: twice(rngs.params()),
    "in jit": nnx.jit(lambda rngs: twice(rngs())),
    "from jit": lambda rngs: twice(nnx.jit(lambda rngs: rngs())(rngs)),
    "in grad": lambda rngs: nnx.grad(lambda x, r: x * twice(r()))(1.0, rngs),
    "split": lambda rngs: [
        jax.vmap(jax.random.normal)(k) for k in [jax.random.split(rngs(), 2)] * 2
    ],
    "layers": lambda rngs: [DROP(X, rngs=key) for key in [rngs()] * 2],
    "layers in jit": nnx.jit(lambda rngs: [DROP(X, rngs=key) for key in [rngs()] * 2]),
    "loop": lambda rngs: nnx.scan(
        lambda carry, key: carry + jax.random.normal(key),
        in_axes=(nnx.Carry, None),
        out_axes=nnx.Carry,
        length=2,
    )(0.0, rngs()),
    "from jit with a model": lambda rngs: twice(nnx.jit(lambda m, r: (m(X), r()))(net(), rngs)[1]),
}


@pytest.mark.parametrize("name", REUSES)
def test_what_the_user_does_twice_is_found(name: str) -> None:
    with pytest.raises(jax.errors.KeyReuseError):
        REUSES[name](nnx.Rngs(0))


def test_keys_are_the_same_with_and_without_the_check() -> None:
    def keys() -> Any:
        rngs = nnx.Rngs(0, dropout=jax.random.key(7))
        found = [rngs(), rngs.dropout(), rngs.fork().dropout(), *rngs.split(2).default.key[...]]
        return [jax.random.key_data(key) for key in [*found, nnx.jit(lambda r: r())(rngs)]]

    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(keys()))  # the check is of a thread
    thread.start()
    thread.join()
    jax.tree.map(np.testing.assert_array_equal, keys(), found[0])
    base = jax.random.key(0)
    np.testing.assert_array_equal(keys()[0], jax.random.key_data(jax.random.fold_in(base, 0)))
