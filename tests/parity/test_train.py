"""Training parts against the peer: same transformation, same gradients, the same bits."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import weft as nnx

nnx_flax = pytest.importorskip("flax.nnx", reason="flax is not installed")


@pytest.fixture(autouse=True)
def standard_promotion():
    """The peer's metrics and EMA mix dtypes."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def make_model(library):
    class Net(library.Module):
        def __init__(self):
            rngs = library.Rngs(0)
            self.layers = library.List(
                [library.Linear(2, 2, rngs=rngs), library.Linear(2, 2, rngs=rngs)]
            )
            self.scale = library.Param(jnp.ones((2,)))

    return Net()


def flat(library, node, *filters):
    return {
        path: np.asarray(leaf.get_raw_value() if isinstance(leaf, library.Variable) else leaf)
        for path, leaf in library.to_flat_state(library.state(node, *filters))
    }


def assert_same(actual, expected):
    assert actual.keys() == expected.keys()
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def grads_for(library, model, step):
    state = library.state(model, library.Param)
    keys = iter(jax.random.split(jax.random.key(step), 100))
    return jax.tree.map(lambda p: jax.random.normal(next(keys), p.shape), state)


TRANSFORMATIONS = {
    "sgd": optax.sgd(0.1, momentum=0.9),
    "adam": optax.adam(1e-2),
    "adamw": optax.adamw(optax.linear_schedule(1e-2, 0.0, 5), weight_decay=0.1),
    "adafactor": optax.adafactor(1e-2),
    "clipped lion": optax.chain(optax.clip_by_global_norm(0.5), optax.lion(1e-2)),
    "hyperparameters": optax.inject_hyperparams(optax.adam)(learning_rate=1e-2),
    "several steps": optax.MultiSteps(optax.adam(1e-2), every_k_schedule=2),
}


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_optimizer(name):
    models = {library: make_model(library) for library in (nnx, nnx_flax)}
    optimizers = {
        library: library.Optimizer(model, TRANSFORMATIONS[name], wrt=library.Param)
        for library, model in models.items()
    }
    for step in range(3):
        updates = {
            library: optimizer.update(models[library], grads_for(library, models[library], step))
            for library, optimizer in optimizers.items()
        }
    assert_same(flat(nnx, models[nnx]), flat(nnx_flax, models[nnx_flax]))
    assert_same(flat(nnx, optimizers[nnx]), flat(nnx_flax, optimizers[nnx_flax]))
    assert_same(
        dict(nnx.to_flat_state(updates[nnx])), dict(nnx_flax.to_flat_state(updates[nnx_flax]))
    )


def test_optimizer_in_jit():
    losses = {}
    x = jnp.linspace(-1.0, 1.0, 8).reshape(4, 2)
    for library in (nnx, nnx_flax):
        model = make_model(library)
        optimizer = library.Optimizer(model, optax.adam(1e-2), wrt=library.Param)

        @library.jit
        def step(model, optimizer, library=library):
            def loss_fn(model):
                return jnp.mean((model.layers[1](model.layers[0](x)) * model.scale) ** 2)

            loss, grads = library.value_and_grad(loss_fn)(model)
            optimizer.update(model, grads)
            return loss

        losses[library] = [np.asarray(step(model, optimizer)) for _ in range(5)]
    np.testing.assert_array_equal(losses[nnx], losses[nnx_flax])


def test_optimizer_state_has_the_same_types():
    kinds = {}
    for library in (nnx, nnx_flax):
        model = make_model(library)
        optimizer = library.Optimizer(model, optax.adamw(1e-2), wrt=library.Param)
        pairs = library.to_flat_state(library.state(optimizer))
        kinds[library] = {path: type(leaf).__name__ for path, leaf in pairs}
    assert kinds[nnx] == kinds[nnx_flax]


def test_masks_where_the_peer_needs_a_state():
    """Labels as a State of plain leaves, which the peer takes as well."""
    models = {library: make_model(library) for library in (nnx, nnx_flax)}
    for library, model in models.items():
        labels = library.map_state(
            lambda path, x: "bias" if "bias" in path else "kernel",
            library.state(model, library.Param),
        )
        tx = optax.partition({"kernel": optax.adam(1e-2), "bias": optax.sgd(0.1)}, labels)
        optimizer = library.Optimizer(model, tx, wrt=library.Param)
        for step in range(2):
            optimizer.update(model, grads_for(library, model, step))
    assert_same(flat(nnx, models[nnx]), flat(nnx_flax, models[nnx_flax]))


def test_ema():
    averages = {}
    for library in (nnx, nnx_flax):
        model = make_model(library)
        ema = library.EMA(model, 0.9, only=library.Param)
        for step in range(3):
            library.update(model, grads_for(library, model, step))
            ema.update(model)
        averages[library] = flat(library, ema.apply_to(model))
    assert_same(averages[nnx], averages[nnx_flax])


def test_train_state():
    results = {}
    for library in (nnx, nnx_flax):
        model = make_model(library)
        graphdef, params = library.split(model)
        state = library.TrainState.create(graphdef, params=params, tx=optax.adam(1e-2))
        for step in range(3):
            state = state.apply_gradients(grads_for(library, model, step))
        results[library] = [np.asarray(x) for x in jax.tree.leaves(state)]
    jax.tree.map(np.testing.assert_array_equal, results[nnx], results[nnx_flax])


# -- metrics

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(3, 7, 4)).astype(np.float32)
LABELS_OF_BATCHES = RNG.integers(0, 4, (3, 7)).astype(np.int32)
MASKS = RNG.random((3, 7)) < 0.6


def fed(metric, batches):
    for batch in batches:
        metric.update(**{name: jnp.asarray(value) for name, value in batch.items()})
    return metric


METRICS = {
    "average": (lambda m: m.Average(), [{"values": x} for x in LOGITS]),
    "average of numbers": (lambda m: m.Average("loss"), [{"loss": 2.5}, {"loss": 1}]),
    "average with masks": (
        lambda m: m.Average(),
        [{"values": x[:, 0], "mask": mask} for x, mask in zip(LOGITS, MASKS, strict=True)],
    ),
    "accuracy": (
        lambda m: m.Accuracy(),
        [{"logits": x, "labels": y} for x, y in zip(LOGITS, LABELS_OF_BATCHES, strict=True)],
    ),
    "accuracy with masks": (
        lambda m: m.Accuracy(),
        [
            {"logits": x, "labels": y, "mask": mask}
            for x, y, mask in zip(LOGITS, LABELS_OF_BATCHES, MASKS, strict=True)
        ],
    ),
    "accuracy with a threshold": (
        lambda m: m.Accuracy(threshold=0.5),
        [
            {"logits": x[:, 0], "labels": y % 2}
            for x, y in zip(LOGITS, LABELS_OF_BATCHES, strict=True)
        ],
    ),
    "accuracy at the threshold": (
        lambda m: m.Accuracy(threshold=0.5),
        [{"logits": np.full(3, 0.5, np.float32), "labels": np.array([0, 1, 1])}],
    ),
    "welford": (lambda m: m.Welford(), [{"values": 10 * x + 3} for x in LOGITS]),
}


@pytest.mark.parametrize("name", METRICS)
def test_metrics(name):
    make, batches = METRICS[name]
    own, peer = (fed(make(library.metrics), batches) for library in (nnx, nnx_flax))
    sums = {path: x for path, x in flat(nnx, own).items() if not path[-1].endswith("_rest")}
    assert_same(sums, flat(nnx_flax, peer))
    own, peer = own.compute(), peer.compute()
    for one, other in zip(jax.tree.leaves(own), jax.tree.leaves(peer), strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype


def test_multi_metric():
    figures = {}
    for library in (nnx, nnx_flax):
        multi = library.MultiMetric(
            accuracy=library.metrics.Accuracy(), loss=library.metrics.Average("loss")
        )
        batches = [
            {"logits": x, "labels": y, "loss": x.sum()}
            for x, y in zip(LOGITS, LABELS_OF_BATCHES, strict=True)
        ]
        figures[library] = fed(multi, batches).compute()
    assert_same(figures[nnx], figures[nnx_flax])
