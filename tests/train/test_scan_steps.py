"""Several steps in one call give the numbers of one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import weft as nnx
from weft import train
from weft._core.errors import StructureError


class Network(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(4, 8, rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.last = nnx.Linear(8, 1, rngs=rngs)

    def __call__(self, x):
        return self.last(self.dropout(nnx.relu(self.norm(self.first(x)))))


def step(model, optimizer, batch):
    loss, grads = nnx.value_and_grad(lambda m: jnp.mean((m(batch["x"]) - batch["y"]) ** 2))(model)
    optimizer.update(model, grads)
    return {"loss": loss}


def objects():
    model = Network(nnx.Rngs(0))
    return model, nnx.Optimizer(model, optax.adamw(1e-2), wrt=nnx.Param)


def bits(objects):
    leaves = jax.tree.leaves(nnx.as_pure(nnx.state(list(objects))))
    is_key = lambda x: jnp.issubdtype(x.dtype, jax.dtypes.prng_key)  # noqa: E731
    return [np.asarray(jax.random.key_data(x) if is_key(x) else x).tobytes() for x in leaves]


@pytest.mark.parametrize("jitted", [False, True])
def test_same_numbers_as_one_by_one(jitted):
    rng = np.random.default_rng(0)
    batches = {"x": rng.normal(size=(6, 5, 4)), "y": rng.normal(size=(6, 5, 1))}
    batches = {name: array.astype(np.float32) for name, array in batches.items()}
    single, many = objects(), objects()
    one = nnx.jit(step)
    losses = [one(*single, {n: a[i] for n, a in batches.items()})["loss"] for i in range(6)]
    all_at_once = train.scanned(one if jitted else step)
    found = [all_at_once(*many, {n: a[i : i + 3] for n, a in batches.items()}) for i in (0, 3)]
    np.testing.assert_array_equal(np.concatenate([f["loss"] for f in found]), losses)
    assert bits(single) == bits(many)


def test_not_traced_again():
    traces = []

    def counted(total, batch):
        traces.append(1)
        total[...] += batch
        return total[...]

    counted = train.scanned(counted)
    total = nnx.Variable(jnp.zeros(()))
    counted(total, jnp.ones(4))
    number = len(traces)
    for _ in range(2):
        counted(total, jnp.ones(4))
    assert float(total[...]) == 12.0
    assert len(traces) == number


@pytest.mark.parametrize(
    "batches",
    [3.0, None, {}, {"a": jnp.ones((2, 3)), "b": jnp.ones((3, 2))}, (jnp.ones(2), jnp.ones(()))],
    ids=str,
)
def test_what_is_no_stack_is_an_error(batches):
    many = train.scanned(lambda total, batch: None)
    with pytest.raises(
        StructureError, match=r"takes a stack of batches, .*shapes \[.*steps_per_ca"
    ):
        many(nnx.Variable(jnp.array(0.0)), batches)
