"""The cases of dispatch.py: steps and forward passes of a small network, in all ways.

A *case* is a function from a depth to variants that do the same work: raw JAX twice, the API of
nnx in Weft and in flax, and equinox. The network is a multilayer perceptron of 8 x 8 layers, the
step is one of Adam.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import harness
import jax
import jax.numpy as jnp
import optax
from harness import Variant
from jax.sharding import AxisType, NamedSharding, PartitionSpec

WIDTH, BATCH = 8, 4
COPIES = 8
ADAM = optax.adam(1e-3)
RAW, TWIN, WEFT = "raw jax.jit", "raw jax.jit again", "weft nnx.jit"
Step = Callable[..., Any]


def data() -> tuple[jax.Array, jax.Array]:
    x = jnp.linspace(0.0, 1.0, BATCH * WIDTH, dtype=jnp.float32).reshape(BATCH, WIDTH)
    return x, x[::-1]


def error(y: jax.Array, target: jax.Array) -> jax.Array:
    return jnp.mean((y - target) ** 2)


# -- by hand


def raw_params(depth: int) -> dict[str, jax.Array]:
    """Returns the parameters, one flat dict."""
    init = jax.nn.initializers.lecun_normal()
    kernels = {
        f"{i:03}.kernel": init(jax.random.key(i), (WIDTH, WIDTH), jnp.float32) for i in range(depth)
    }
    return kernels | {f"{i:03}.bias": jnp.zeros(WIDTH) for i in range(depth)}


def raw_forward(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    for i in range(len(params) // 2):
        x = jnp.tanh(x @ params[f"{i:03}.kernel"] + params[f"{i:03}.bias"])
    return x


def raw_step(params: Any, state: Any, x: jax.Array, y: jax.Array) -> Any:
    loss, grads = jax.value_and_grad(lambda p: error(raw_forward(p, x), y))(params)
    updates, state = ADAM.update(grads, state, params)
    return loss, optax.apply_updates(params, updates), state


def raw_step_of_four(params: Any, state: Any, metrics: Any, rngs: Any, x: Any, y: Any) -> Any:
    key = jax.random.fold_in(rngs["key"], rngs["count"])
    x = x + jax.random.normal(key, x.shape)
    loss, params, state = raw_step(params, state, x, y)
    metrics = {"total": metrics["total"] + loss, "count": metrics["count"] + 1}
    return loss, params, state, metrics, {"key": rngs["key"], "count": rngs["count"] + 1}


def stepping(step: Step, states: tuple[Any, ...], given: tuple[Any, ...]) -> Callable[[], Any]:
    """Returns a call of a step that takes states and returns (loss, *states)."""

    def call() -> Any:
        nonlocal states
        loss, *states = step(*states, *given)
        return loss

    return call


def bound(f: Step, *given: Any) -> Callable[[], Any]:
    return lambda: f(*given)


def in_copies(name: str, make: Callable[[], Callable[[], Any]]) -> Variant:
    """Returns a variant of which each copy has its own data."""
    first, *others = (make() for _ in range(COPIES))
    return Variant(name, first, copies=tuple(others))


def twice(f: Callable[..., Any], make: Callable[[Any], Callable[[], Any]], **options: Any):
    """Returns the variants of raw JAX, each of which compiles for itself: that too is noise.

    Args:
      f: the function.
      make: makes a call of the compiled function, with new data.
      **options: those of `jax.jit`.
    """
    jitted = [jax.jit(lambda *given: f(*given), **options) for _ in range(2)]
    return [
        in_copies(name, functools.partial(make, g))
        for name, g in zip((RAW, TWIN), jitted, strict=True)
    ]


# -- the API of nnx, for Weft and for flax


@functools.cache
def mlp_class(nnx: Any) -> Any:
    class MLP(nnx.Module):
        def __init__(self, depth: int, rngs: Any):
            self.layers = nnx.List([nnx.Linear(WIDTH, WIDTH, rngs=rngs) for _ in range(depth)])

        def __call__(self, x: jax.Array) -> jax.Array:
            for layer in self.layers:
                x = jnp.tanh(layer(x))
            return x

    return MLP


def mlp(nnx: Any, depth: int) -> Any:
    return mlp_class(nnx)(depth, nnx.Rngs(0))


def nnx_forward(model: Any, x: jax.Array) -> jax.Array:
    return model(x)


def nnx_step(nnx: Any, **mode: Any) -> Step:
    def train_step(model: Any, optimizer: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        loss, grads = nnx.value_and_grad(lambda m: error(m(x), y), **mode)(model)
        optimizer.update(model, grads)
        return loss

    return train_step


def model_and_optimizer(nnx: Any, depth: int) -> tuple[Any, Any]:
    model = mlp(nnx, depth)
    return model, nnx.Optimizer(model, ADAM, wrt=nnx.Param)


def nnx_variants(objects: Callable[[Any], tuple], step: Callable[..., Step], given: tuple):
    """Returns the variants of the API of nnx.

    Args:
      objects: makes the objects that are passed first, given the library.
      step: makes the function, given the library and its modes.
      given: the other arguments.
    """
    import weft

    jitted = weft.jit(step(weft))
    variants = [in_copies(WEFT, lambda: bound(jitted, *objects(weft), *given))]
    if flax := harness.peer("flax.nnx"):
        tree: dict[str, Any] = {"graph": False}
        make = lambda: objects(flax)  # noqa: E731
        calls = {
            "flax nnx.jit": bound(flax.jit(step(flax)), *make(), *given),
            "flax nnx.jit, graph=False": bound(
                flax.jit(step(flax, **tree), **tree), *make(), *given
            ),
            "flax jit_partial": bound(
                flax.jit_partial(step(flax, **tree), *make(), **tree), *given
            ),
            "flax cached_partial": bound(
                flax.cached_partial(flax.jit(step(flax)), *make()), *given
            ),
        }
        variants += [Variant(name, call) for name, call in calls.items()]
    return variants


# -- equinox


def equinox_mlp(eqx: Any, depth: int) -> Any:
    class Linear(eqx.Module):  # as nnx.Linear: for a batch, not for one example
        kernel: jax.Array
        bias: jax.Array

    class MLP(eqx.Module):
        layers: list[Linear]

        def __call__(self, x: jax.Array) -> jax.Array:
            for layer in self.layers:
                x = jnp.tanh(x @ layer.kernel + layer.bias)
            return x

    params = raw_params(depth)
    pairs = ((params[f"{i:03}.kernel"], params[f"{i:03}.bias"]) for i in range(depth))
    return MLP([Linear(kernel, bias) for kernel, bias in pairs])


def equinox_step(eqx: Any) -> Step:
    def train_step(given: tuple[jax.Array, jax.Array], model: Any, state: Any) -> Any:
        x, y = given
        loss, grads = eqx.filter_value_and_grad(lambda m: error(m(x), y))(model)
        updates, state = ADAM.update(grads, state, eqx.filter(model, eqx.is_array))
        return loss, eqx.apply_updates(model, updates), state

    return eqx.filter_jit(train_step, donate="all-except-first")


# -- the cases


def train_step(depth: int) -> list[Variant]:
    def raw(jitted: Step) -> Callable[[], Any]:
        params = raw_params(depth)
        return stepping(jitted, (params, ADAM.init(params)), data())

    variants = twice(raw_step, raw, donate_argnums=(0, 1))
    variants += nnx_variants(lambda nnx: model_and_optimizer(nnx, depth), nnx_step, data())
    if eqx := harness.peer("equinox"):
        model, step = equinox_mlp(eqx, depth), equinox_step(eqx)
        states = (model, ADAM.init(eqx.filter(model, eqx.is_array)))
        call = stepping(lambda model, state, *given: step(given, model, state), states, data())
        variants.append(Variant("equinox filter_jit", call))
    return variants


def forward(depth: int, given: Any = None) -> list[Variant]:
    """Forward passes; `given` replaces the array that goes in, by a dict of which is the sum."""
    x = data()[0] if given is None else given

    def of_sum(f: Callable[..., Any]) -> Callable[..., Any]:
        return f if given is None else lambda model, batch: f(model, sum(batch.values()))

    raw = lambda jitted: bound(jitted, raw_params(depth), x)  # noqa: E731
    objects = lambda nnx: (mlp(nnx, depth),)  # noqa: E731
    variants = twice(of_sum(raw_forward), raw)
    variants += nnx_variants(objects, lambda nnx, **_: of_sum(nnx_forward), (x,))
    if eqx := harness.peer("equinox"):
        model, f = equinox_mlp(eqx, depth), eqx.filter_jit(of_sum(nnx_forward))
        variants.append(Variant("equinox filter_jit", lambda: f(model, x)))
    return variants


def batch_of_20(depth: int) -> list[Variant]:
    return forward(depth, {f"input_{i:02}": data()[0] / 20 for i in range(20)})


def four_objects(nnx: Any, depth: int) -> tuple[Any, ...]:
    metrics, rngs = nnx.metrics.Average("loss"), nnx.Rngs(noise=0)
    return *model_and_optimizer(nnx, depth), metrics, rngs


def step_of_four(nnx: Any, **mode: Any) -> Step:
    step = nnx_step(nnx, **mode)

    def train_step(model: Any, optimizer: Any, metrics: Any, rngs: Any, x: Any, y: Any) -> Any:
        loss = step(model, optimizer, x + jax.random.normal(rngs.noise(), x.shape), y)
        metrics.update(loss=loss)
        return loss

    return train_step


def raw_objects(depth: int) -> tuple[Any, ...]:
    params = raw_params(depth)
    metrics = {"total": jnp.zeros(()), "count": jnp.zeros((), jnp.int32)}
    rngs = {"key": jax.random.key(0), "count": jnp.zeros((), jnp.uint32)}
    return params, ADAM.init(params), metrics, rngs


def four_roots(depth: int) -> list[Variant]:
    raw = lambda jitted: stepping(jitted, raw_objects(depth), data())  # noqa: E731
    variants = twice(raw_step_of_four, raw, donate_argnums=(0, 1, 2, 3))
    return variants + nnx_variants(lambda nnx: four_objects(nnx, depth), step_of_four, data())


@functools.cache
def training_class(nnx: Any) -> Any:
    class Training(nnx.Module):
        def __init__(self, depth: int):
            self.model, self.optimizer, self.metrics, self.rngs = four_objects(nnx, depth)

    return Training


def one_root(depth: int) -> list[Variant]:
    """The same four, held by one object."""

    def raw_of_one(states: tuple[Any, ...], x: jax.Array, y: jax.Array) -> Any:
        loss, *states = raw_step_of_four(*states, x, y)
        return loss, tuple(states)

    def objects(nnx: Any) -> tuple[Any]:
        return (training_class(nnx)(depth),)

    def step(nnx: Any, **mode: Any) -> Step:
        f = step_of_four(nnx, **mode)
        return lambda t, x, y: f(t.model, t.optimizer, t.metrics, t.rngs, x, y)

    raw = lambda jitted: stepping(jitted, (raw_objects(depth),), data())  # noqa: E731
    return twice(raw_of_one, raw, donate_argnums=0) + nnx_variants(objects, step, data())


def fresh_modules(depth: int) -> list[Variant]:
    """Forward passes with objects on each call that no call has seen; making them is not timed."""
    x, _ = data()
    jitted = jax.jit(raw_forward)

    def copies(count: int) -> list[tuple[Any]]:
        params = raw_params(depth)
        return [(dict(params),) for _ in range(count)]

    def modules(nnx: Any) -> Callable[[int], list[tuple[Any]]]:
        graphdef, state = nnx.split(mlp(nnx, depth))
        return lambda count: [(nnx.merge(graphdef, state),) for _ in range(count)]

    def variant(name: str, nnx: Any) -> Variant:
        f = nnx.jit(nnx_forward)
        return Variant(name, lambda model: f(model, x), modules(nnx))

    import weft

    variants = [Variant(name, lambda params: jitted(params, x), copies) for name in (RAW, TWIN)]
    variants.append(variant(WEFT, weft))
    if flax := harness.peer("flax.nnx"):
        variants.append(variant("flax nnx.jit", flax))
    return variants


def two_forms(depth: int) -> list[Variant]:
    """Forward passes of Weft, with a mask and without in turn; `RAW` is Weft without it, twice."""
    import weft

    x, _ = data()

    def calls(mask: dict[str, Any]) -> Callable[[], Callable[[], Any]]:
        def make() -> Callable[[], Any]:
            f = weft.jit(lambda model, x, mask=None: model(x))
            model = mlp(weft, depth)

            def call() -> Any:
                f(model, x, **mask)
                return f(model, x)

            return call

        return make

    given = {RAW: {}, TWIN: {}, WEFT: {"mask": x}}
    return [in_copies(name, calls(mask)) for name, mask in given.items()]


def shardings(depth: int) -> list[Variant]:
    """Steps with shardings given for all arguments, over all devices."""
    import weft

    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
    specs = PartitionSpec(), PartitionSpec("data")
    replicated, split = (NamedSharding(mesh, spec) for spec in specs)
    given = jax.device_put(data(), split)

    def raw(jitted: Step) -> Callable[[], Any]:
        params = raw_params(depth)
        states = jax.device_put((params, ADAM.init(params)), replicated)
        return stepping(jitted, states, given)

    where = (replicated, replicated, split, split)
    options = {"in_shardings": where, "out_shardings": replicated, "donate_argnums": (0, 1)}
    step = weft.jit(nnx_step(weft), in_shardings=where, out_shardings=replicated)
    make = lambda: bound(step, *model_and_optimizer(weft, depth), *given)  # noqa: E731
    return [*twice(raw_step, raw, **options), in_copies(WEFT, make)]


# -- a Module as a plain pytree

LIBRARIES = ("raw", "weft", "flax")


def jitted(x: Any) -> Callable[[], Any]:
    f, batch = jax.jit(lambda model, batch: model(batch)), data()[0]
    return lambda: f(x, batch)


def with_call(params: dict[str, jax.Array]) -> Any:
    """Returns parameters as what `jax.jit` can be given and called: raw JAX has no objects."""
    return jax.tree_util.Partial(raw_forward, params)


PYTREE_CALLS: dict[str, Callable[[Any], Callable[[], Any]]] = {
    "jax.jit(f)(model, x)": jitted,
    "jax.tree.leaves(model)": lambda model: lambda: jax.tree.leaves(model),
    "jax.tree.map(f, model)": lambda model: lambda: jax.tree.map(lambda x: x, model),
}


def as_pytree(name: str, depth: int) -> list[Variant]:
    """Returns the variants of one of these calls, of a model of some depth."""
    import weft

    models = [with_call(raw_params(depth)), mlp(weft, depth)]
    if flax := harness.peer("flax.nnx"):
        models.append(mlp(flax, depth))
    call = PYTREE_CALLS[name]
    return [Variant(n, call(model)) for n, model in zip(LIBRARIES, models, strict=False)]
