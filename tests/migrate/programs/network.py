"""A network with statistics, dropout and metrics; the module is imported by its whole name."""

import flax.nnx as nnx
import jax
import jax.numpy as jnp
import optax


class Network(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs):
        self.conv = nnx.Conv(1, 4, kernel_size=(3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.dropout = nnx.Dropout(rate=0.5, rngs=rngs)
        self.out = nnx.Linear(64, 3, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm(self.conv(x)))
        return self.out(self.dropout(nnx.avg_pool(x, (2, 2), (2, 2)).reshape(len(x), -1)))


model = Network(rngs=nnx.Rngs(0, dropout=1))
optimizer = nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param)
metrics = nnx.MultiMetric(accuracy=nnx.metrics.Accuracy(), loss=nnx.metrics.Average("loss"))


def loss_fn(model, x, y):
    logits = model(x)
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), logits


@nnx.jit
def train_step(model, optimizer, metrics, x, y):
    (loss, logits), grads = nnx.value_and_grad(loss_fn, has_aux=True)(model, x, y)
    metrics.update(loss=loss, logits=logits, labels=y)
    optimizer.update(model, grads)


x = jax.random.normal(jax.random.key(0), (6, 8, 8, 1))
for _ in range(2):
    train_step(model, optimizer, metrics, x, jnp.arange(6) % 3)
model.eval()
print({name: f"{value:.5f}" for name, value in metrics.compute().items()})
print(f"{model(x).sum():.4f} {model.norm.mean[...].sum():.5f}")
