# pyright: strict, reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnnecessaryTypeIgnoreComment=true
"""What a new user writes first: a model, a step, an optimizer, metrics, a model taken apart."""

from collections.abc import Iterator
from typing import assert_type

import jax
import jax.numpy as jnp
import optax

import weft as nnx


@nnx.dataclass
class Settings(nnx.Pytree):
    scale: nnx.Data[jax.Array]
    hidden: int = nnx.static(default=8)


class Classifier(nnx.Module):
    def __init__(self, settings: Settings, *, rngs: nnx.Rngs):
        self.scale = nnx.Param(settings.scale)
        self.body = nnx.Sequential(nnx.Linear(2, settings.hidden, rngs=rngs), nnx.relu)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)
        self.head = nnx.Linear(settings.hidden, 2, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(self.dropout(self.body(x * self.scale)))


def loss_fn(model: Classifier, x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    logits = model(x)
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), logits


@nnx.jit
def train_step(
    model: Classifier,
    optimizer: nnx.Optimizer[Classifier],
    metrics: nnx.MultiMetric,
    x: jax.Array,
    y: jax.Array,
) -> jax.Array:
    (loss, logits), grads = nnx.value_and_grad(loss_fn, has_aux=True)(model, x, y)
    assert_type(loss, jax.Array)
    assert_type(grads, nnx.State)
    metrics.update(loss=loss, logits=logits, labels=y)
    optimizer.update(model, grads)
    return loss


def batches(number: int) -> Iterator[tuple[jax.Array, jax.Array]]:
    for key in jax.random.split(jax.random.key(0), number):
        x = jax.random.normal(key, (16, 2))
        yield x, (x.sum(axis=1) > 0).astype(jnp.int32)


def train() -> None:
    model = Classifier(Settings(scale=jnp.ones(())), rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)
    metrics = nnx.MultiMetric(loss=nnx.metrics.Average("loss"), accuracy=nnx.metrics.Accuracy())
    assert_type(model, Classifier)
    assert_type(optimizer, nnx.Optimizer[Classifier])
    for x, y in batches(10):
        loss = train_step(model, optimizer, metrics, x, y)
        assert_type(loss, jax.Array)
    assert float(metrics.accuracy.compute()) > 0.5

    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    assert_type(params, nnx.State)
    copy = nnx.merge(graphdef, params, rest)
    assert_type(copy, Classifier)
    copy.eval()
    assert_type(copy(jnp.ones((1, 2))), jax.Array)
    assert_type(copy.head.kernel * 2 + copy.scale, jax.Array)
    assert copy.head.kernel.shape == (8, 2)
