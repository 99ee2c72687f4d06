# pyright: strict, reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnnecessaryTypeIgnoreComment=true
"""What objects are to a type checker: instances of their classes, with typed parts."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, assert_type

import jax
import jax.numpy as jnp
import optax

import weft as nnx

X = jnp.ones((4, 2))


class Block(nnx.Module):
    def __init__(self, features: int, *, rngs: nnx.Rngs):
        self.linear = nnx.Linear(features, features, rngs=rngs)
        self.scale = nnx.Param(jnp.ones(features))
        self.calls = nnx.Variable(0)

    def __call__(self, x: jax.Array) -> jax.Array:
        self.calls.value += 1
        return self.linear(x) * self.scale


@nnx.dataclass
class Scale(nnx.Module):
    factor: nnx.Data[jax.Array]
    name: nnx.Static[str] = "scale"
    steps: list[int] = nnx.static(default_factory=list[int], kw_only=True)
    calls: int = nnx.data(init=False, default=0)

    def __call__(self, x: jax.Array) -> jax.Array:
        return x * self.factor


@nnx.dataclass(frozen=False)
class Pair(nnx.Pytree):
    a: int = dataclasses.field(default=1)
    b: jax.Array | None = nnx.data(default=None)


def names() -> None:
    assert_type(nnx.object.Object(), nnx.Object)
    assert_type(nnx.helpers.List([1]), nnx.List[int])
    assert_type(nnx.compat.graphdef(Marked()), nnx.GraphDef[Marked])
    assert_type(nnx.bridge.ToNNX.__name__, str)
    assert_type(nnx.training.metrics.Average(), nnx.metrics.Average)
    assert_type(nnx.statelib.State({}), nnx.State)


def constructors() -> None:
    block = Block(2, rngs=nnx.Rngs(0))
    assert_type(block, Block)
    assert_type(block(X), jax.Array)
    assert_type(block.linear, nnx.Linear)
    assert_type(block.linear.kernel, nnx.Param[jax.Array])
    assert_type(block.linear.bias, nnx.Param[jax.Array] | None)
    assert_type(block.linear.kernel.shape, tuple[int, ...])
    assert_type(block.scale[...], jax.Array)
    assert_type(block.perturb("x", X), jax.Array)


def dataclass_modules() -> None:
    scale = Scale(jnp.ones(()), "half", steps=[1])
    assert_type(scale, Scale)
    assert_type(scale.factor, jax.Array)
    assert_type(scale.name, str)
    assert_type(scale.steps, list[int])
    assert_type(scale.calls, int)
    assert_type(scale(X), jax.Array)
    assert_type(Pair(b=X).b, jax.Array | None)


class Marked(nnx.Module):
    def __init__(self) -> None:
        self.rate = nnx.data(0.5)
        self.table = nnx.static(X)


def marks() -> None:
    assert_type(Marked().rate, float)
    assert_type(Marked().table, jax.Array)


def layers() -> None:
    rngs = nnx.Rngs(0)
    assert_type(nnx.Conv(2, 3, kernel_size=(3,), rngs=rngs).kernel, nnx.Param[jax.Array])
    assert_type(nnx.LayerNorm(2, rngs=rngs).scale, nnx.Param[jax.Array] | None)
    assert_type(nnx.BatchNorm(2, rngs=rngs).mean, nnx.BatchStat[jax.Array])
    assert_type(nnx.Embed(4, 2, rngs=rngs)(jnp.zeros(3, int)), jax.Array)
    attention = nnx.MultiHeadAttention(2, 2, decode=False, rngs=rngs)
    assert_type(attention.query, nnx.LinearGeneral)
    assert_type(attention(X), jax.Array)
    assert_type(nnx.relu(X), jax.Array)


def containers() -> None:
    rngs = nnx.Rngs(0)
    blocks = nnx.List([Block(2, rngs=rngs) for _ in range(2)])
    assert_type(blocks, nnx.List[Block])
    assert_type(blocks[0], Block)
    assert_type(blocks[:1], list[Block])
    assert_type(iter(blocks), Iterator[Block])
    blocks.append(Block(2, rngs=rngs))
    heads = nnx.Dict(a=Block(2, rngs=rngs), b=Block(2, rngs=rngs))
    assert_type(heads, nnx.Dict[Block])
    assert_type(heads["a"], Block)
    assert_type(heads.b, Block)
    assert_type(nnx.Dict({"a": 1}), nnx.Dict[int])


def sequences() -> None:
    rngs = nnx.Rngs(0)
    model = nnx.Sequential(Block(2, rngs=rngs), nnx.relu, nnx.Dropout(0.0), jnp.sum)
    assert_type(model, nnx.Sequential[jax.Array])
    assert_type(model(X), jax.Array)
    assert_type(model.layers[0], Callable[..., Any])
    same = [Block(2, rngs=rngs), Block(2, rngs=rngs)]
    assert_type(nnx.Sequential(same)(X), jax.Array)
    unsaid: nnx.Sequential = model
    assert_type(unsaid(X), Any)


def stacks() -> None:
    trunk = nnx.Stack(lambda rngs: Block(2, rngs=rngs), 3, rngs=nnx.Rngs(0))
    assert_type(trunk, nnx.Stack[Block])
    assert_type(trunk[0], Block)
    assert_type(trunk[1:], nnx.Stack[Block])
    assert_type(trunk.stacked, Block)
    assert_type([block for block in trunk], list[Block])  # noqa: C416
    assert_type(nnx.unstack(trunk), nnx.List[Block])
    assert_type(nnx.stack(nnx.unstack(trunk)), nnx.Stack[Block])


def streams() -> None:
    rngs = nnx.Rngs(0, dropout=1)
    assert_type(rngs(), jax.Array)
    assert_type(rngs.params, nnx.RngStream)
    assert_type(rngs["dropout"], nnx.RngStream)
    assert_type(rngs.params(), jax.Array)
    assert_type(rngs.normal((2,)), jax.Array)
    assert_type(rngs.dropout.key, nnx.RngKey[jax.Array])
    assert_type(rngs.dropout.count[...], jax.Array)
    assert_type(rngs.fork(), nnx.Rngs)
    assert_type(rngs.split(2), nnx.Rngs)
    assert_type(nnx.with_rngs(Block(2, rngs=rngs), fork="dropout"), Block)
    with nnx.split_rngs(rngs, splits=2):
        pass


def optimizers() -> None:
    model = Block(2, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param)
    assert_type(optimizer, nnx.Optimizer[Block])
    assert_type(optimizer.step[...], jax.Array)
    assert_type(optimizer.update(model, nnx.state(model, nnx.Param)), nnx.State)
    keeping = nnx.ModelAndOptimizer(model, optax.sgd(0.1))
    assert_type(keeping, nnx.ModelAndOptimizer[Block])
    assert_type(keeping.model, Block)
    assert_type(nnx.EMA(model, 0.9).apply_to(model), Block)


class Largest(nnx.Metric):
    def __init__(self) -> None:
        self.best = nnx.metrics.MetricState(jnp.zeros(()))

    def reset(self) -> None:
        self.best[...] = jnp.zeros(())

    def update(self, *, values: jax.Array) -> None:
        self.best[...] = jnp.maximum(self.best[...], values.max())

    def compute(self) -> jax.Array:
        return self.best[...]


def metrics() -> None:
    assert_type(Largest().compute(), jax.Array)
    Largest().update(values=X)
    loss = nnx.metrics.Average("loss")
    loss.update(loss=X)
    assert_type(loss.compute(), jax.Array)
    assert_type(nnx.metrics.Welford().compute().mean, jax.Array)
    several = nnx.MultiMetric(loss=loss, accuracy=nnx.metrics.Accuracy())
    assert_type(several.loss, nnx.Metric)
    assert_type(several.compute(), dict[str, Any])
