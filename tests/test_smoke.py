"""A bit of everything, in seconds: build, train under jit, take apart, save, evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import weft as nnx


class Classifier(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.conv = nnx.Conv(1, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, momentum=0.9, rngs=rngs)
        self.blocks = [nnx.Linear(4, 4, rngs=rngs) for _ in range(2)]
        self.drop = nnx.Dropout(0.1, rngs=rngs)
        self.head = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        x = nnx.relu(self.norm(self.conv(x)))
        x = nnx.avg_pool(x, (4, 4)).reshape(len(x), -1)
        for block in self.blocks:
            x = x + nnx.relu(block(x))
        return self.head(self.drop(x))


def loss_fn(model: Classifier, images: Any, labels: Any) -> Any:
    logits = model(images)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), logits


@nnx.jit
def train_step(model: Any, optimizer: Any, metrics: Any, images: Any, labels: Any) -> Any:
    differentiated = nnx.value_and_grad(loss_fn, has_aux=True)
    (loss, logits), grads = differentiated(model, images, labels)
    metrics.update(loss=loss, logits=logits, labels=labels)
    optimizer.update(model, grads)
    return loss


def make(seed: int) -> tuple[Any, ...]:
    model = Classifier(nnx.Rngs(seed))
    optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)
    metrics = nnx.MultiMetric(accuracy=nnx.metrics.Accuracy(), loss=nnx.metrics.Average("loss"))
    return model, optimizer, metrics


def test_train_save_restore_evaluate(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    labels = jnp.array(generator.integers(0, 3, 24))
    images = jnp.array(generator.normal(size=(24, 4, 4, 1)), jnp.float32)
    images = images + labels.astype(jnp.float32)[:, None, None, None]

    # Train.
    model, optimizer, metrics = make(0)
    kernel = model.conv.kernel
    before = nnx.clone(model)
    losses = [float(train_step(model, optimizer, metrics, images, labels)) for _ in range(60)]
    assert losses[-1] < losses[0] / 2
    assert float(metrics.compute()["accuracy"]) > 0.5
    assert model.conv.kernel is kernel
    assert int(optimizer.step[...]) == 60
    assert not (model.norm.mean[...] == before.norm.mean[...]).all()

    # A fresh but equal model hits the same trace.
    other, other_optimizer, other_metrics = make(1)
    train_step(other, other_optimizer, other_metrics, images, labels)

    # Take apart, put together, save, restore.
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    assert nnx.graphdef(nnx.merge(graphdef, params, rest)) == graphdef
    saved = {"model": model, "optimizer": optimizer}
    nnx.save(tmp_path / "run.safetensors", meta={"steps": 60}, **saved)
    fresh, fresh_optimizer, _ = make(5)
    restored = {"model": fresh, "optimizer": fresh_optimizer}
    assert nnx.restore(tmp_path / "run.safetensors", **restored) == {"steps": 60}
    assert int(fresh_optimizer.step[...]) == 60
    np.testing.assert_array_equal(
        train_step(fresh, fresh_optimizer, metrics, images, labels),
        train_step(model, optimizer, metrics, images, labels),
    )

    # Evaluate.
    merged = nnx.merge(*nnx.split(model))
    for module in (model, merged, fresh):
        module.eval()
    forward = nnx.jit(lambda model, x: model(x))
    logits = forward(model, images)
    assert (logits.argmax(-1) == labels).mean() > 0.8
    np.testing.assert_array_equal(forward(merged, images), logits)
    np.testing.assert_array_equal(forward(fresh, images), logits)

    # A model is a pytree.
    stacked = jax.tree.map(lambda *xs: jnp.stack(xs), *[make(s)[0].head for s in range(2)])
    assert jax.vmap(lambda m, x: m(x), (0, None))(stacked, jnp.ones((5, 4))).shape == (2, 5, 3)
    assert "Classifier(" in repr(model)
