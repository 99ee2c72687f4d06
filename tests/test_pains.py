"""What users of stateful models ran into elsewhere, each as a small program that must work here."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import export
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import weft as nnx
from tests.devices import devices, make_mesh


class Mlp(nnx.Module):
    def __init__(self, width: int, depth: int, rngs: nnx.Rngs):
        self.layers = [nnx.Linear(width, width, rngs=rngs) for _ in range(depth)]

    def __call__(self, x: Any) -> Any:
        for layer in self.layers:
            x = nnx.relu(layer(x))
        return x


class Counter(nnx.Module):
    def __init__(self) -> None:
        self.w = nnx.Param(jnp.ones(2))
        self.calls = nnx.BatchStat(jnp.zeros(()))


def loss_of(model: Any, x: Any, y: Any) -> Any:
    return jnp.mean((model(x) - y) ** 2)


def test_a_fresh_model_and_optimizer_are_not_traced_again() -> None:
    traces = []

    @nnx.jit
    def step(model: Any, optimizer: Any, x: Any) -> None:
        traces.append(1)
        optimizer.update(model, nnx.grad(loss_of)(model, x, x))

    for seed, init in enumerate((nnx.initializers.lecun_normal(), nnx.initializers.ones_init())):
        model = nnx.Linear(2, 2, kernel_init=init, rngs=nnx.Rngs(seed))
        optimizer = nnx.Optimizer(model, optax.adam(1e-3), wrt=nnx.Param)
        for _ in range(2):
            step(model, optimizer, jnp.ones((1, 2)))
    assert len(traces) == 1


def test_a_gradient_needs_no_more_memory_than_that_of_jax() -> None:
    model = Mlp(32, 4, nnx.Rngs(0))
    graphdef, state = nnx.split(model)
    x = jnp.ones((64, 32))

    def functional(params: Any, x: Any) -> Any:
        return jax.value_and_grad(lambda p: loss_of(nnx.merge(graphdef, p), x, x))(params)

    def stateful(model: Any, x: Any) -> Any:
        return nnx.value_and_grad(loss_of)(model, x, x)

    expected = jax.jit(functional).lower(state, x).compile().memory_analysis()
    found = nnx.jit(stateful).lower(model, x).compile().memory_analysis()
    assert found.temp_size_in_bytes <= expected.temp_size_in_bytes * 1.05
    assert found.output_size_in_bytes <= expected.output_size_in_bytes * 1.05
    assert found.argument_size_in_bytes == expected.argument_size_in_bytes


def test_writing_inside_a_rule_of_custom_vjp_is_visible_or_a_precise_error() -> None:
    model = Counter()

    @jax.custom_vjp
    def f(x: Any) -> Any:
        return x * 2.0

    def forward(x: Any) -> Any:
        model.calls[...] = model.calls[...] + x.sum()
        return f(x), None

    f.defvjp(forward, lambda _, g: (2.0 * g,))
    differentiated = nnx.grad(lambda m: f(m.w[...]).sum())
    grads = differentiated(model)  # JAX runs the rule on plain arrays
    assert float(model.calls) == 2.0
    assert grads.w[...].tolist() == [2.0, 2.0]
    with pytest.raises(
        nnx.TraceContextError, match=r"cannot write BatchStat of shape \(\) \(made at"
    ):
        nnx.jit(differentiated)(model)
    assert float(model.calls) == 2.0


def test_captured_writes_inside_grad_are_an_error_with_the_remedy() -> None:
    model, other = Counter(), Counter()

    def loss(m: Any) -> Any:
        other.calls[...] = other.calls[...] + 1.0
        return m.w[...].sum()

    with pytest.raises(
        nnx.TraceContextError, match=r"inside nnx\.grad of '.*loss'.*Pass the object"
    ):
        nnx.grad(loss)(model)

    def passed(m: Any, other: Any) -> Any:
        other.calls[...] = other.calls[...] + 1.0
        return m.w[...].sum()

    nnx.grad(passed)(model, other)
    assert float(other.calls) == 1.0


def test_shardings_beside_static_arguments() -> None:
    sharding = jax.sharding.SingleDeviceSharding(devices(2)[1])

    def forward(model: Any, x: Any, mode: str) -> Any:
        return model(x) if mode == "forward" else x

    model, x = nnx.Linear(2, 3, rngs=nnx.Rngs(0)), jnp.ones((1, 2))
    jitted = nnx.jit(forward, in_shardings=(sharding, None), static_argnums=(2,))
    y = jitted(model, x, "forward")
    np.testing.assert_array_equal(y, model(x))
    assert jitted(model, x, "skip").shape == (1, 2)
    first = nnx.jit(lambda scale, x: x * scale, in_shardings=(sharding,), static_argnums=0)
    assert first(2.0, x).devices() == {devices(2)[1]}


def test_the_structure_of_a_metric_is_a_static_argument() -> None:
    metric = nnx.MultiMetric(loss=nnx.metrics.Average("loss"), accuracy=nnx.metrics.Accuracy())
    graphdef, state = nnx.split(metric)
    traces = []

    def compute(graphdef: Any, state: Any) -> Any:
        traces.append(1)
        return nnx.merge(graphdef, state).compute()

    jitted = jax.jit(compute, static_argnums=0)
    jitted(graphdef, state)
    jitted(nnx.split(metric)[0], state)
    assert len(traces) == 1


def test_another_static_int_is_traced_again() -> None:
    class Repeat(nnx.Pytree):
        def __init__(self, n: int):
            self.n = n

    f = jax.jit(lambda repeat, x: x * repeat.n)
    assert [float(f(Repeat(n), 1.0)) for n in (2, 3, 2)] == [2.0, 3.0, 2.0]


def test_training_and_inference_in_two_threads() -> None:
    model = Mlp(4, 2, nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param)
    frozen = nnx.clone(model)
    x = jnp.ones((2, 4))
    errors: list[BaseException] = []
    outputs: list[Any] = []

    @nnx.jit
    def step(model: Any, optimizer: Any, x: Any) -> None:
        optimizer.update(model, nnx.grad(loss_of)(model, x, x))

    forward = nnx.jit(lambda model, x: model(x))

    def train() -> None:
        for _ in range(20):
            step(model, optimizer, x)

    def infer() -> None:
        for _ in range(20):
            outputs.append(forward(nnx.merge(*nnx.split(frozen)), x))

    def guarded(work: Any) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in (train, infer)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert int(optimizer.step[...]) == 20
    for output in outputs:
        np.testing.assert_array_equal(output, outputs[0])


def test_variables_that_hold_dicts_compare() -> None:
    x = jnp.ones(2)
    held = nnx.Variable({"a": x})
    assert held == nnx.Variable({"a": jnp.ones(2)})
    assert held == {"a": x}
    assert held != nnx.Variable({"a": jnp.zeros(2)})
    assert held != x.shape


@pytest.mark.parametrize(
    "make",
    [
        lambda: nnx.Linear(2, 2, rngs=nnx.Rngs(0)).kernel,
        lambda: nnx.BatchNorm(2, rngs=nnx.Rngs(0)).mean,
        lambda: nnx.Rngs(0).default.key,
        lambda: nnx.Rngs(0).default.count,
        lambda: nnx.Optimizer(Counter(), optax.sgd(0.1), wrt=nnx.Param).step,
        lambda: nnx.metrics.Average().total,
        lambda: nnx.Cache({"k": jnp.ones(1)}),
        lambda: nnx.Intermediate((1.0, 2.0)),
    ],
    ids="kernel mean key count step total cache sown".split(),
)
def test_every_spelling_reads_the_same_variable(make: Any) -> None:
    variable = make()
    value = variable.value
    assert variable[...] is value
    assert variable.get_value() is value
    variable.set_value(value)
    variable.value = value
    with pytest.raises(AttributeError, match="has no attribute or metadata 'no_such_name'"):
        _ = variable.no_such_name


def test_a_plain_list_of_blocks() -> None:
    model = Mlp(2, 11, nnx.Rngs(0))
    paths = nnx.to_flat_state(nnx.state(model, nnx.Param)).paths
    assert [path[1] for path in paths[::2]] == list(range(11))
    assert type(nnx.merge(*nnx.split(model)).layers) is list


def test_metadata_under_an_old_name_is_never_silently_missing() -> None:
    weight = nnx.Param(jnp.ones((2, 2)), sharding=("a", None), eager_sharding=False)
    for name in ("sharding", "out_sharding", "sharding_names"):
        assert weight.get_metadata(name) == ("a", None)
    with pytest.raises(KeyError, match="has no metadata 'shardings'"):
        weight.get_metadata("shardings")
    with pytest.raises(AttributeError, match="'out_shardings'"):
        _ = weight.out_shardings


def test_an_explicitly_sharded_array_stays_so_in_a_parameter() -> None:
    mesh = Mesh(np.array(devices(2)), ("data",))
    sharding = NamedSharding(mesh, PartitionSpec(None, "data"))
    weight = nnx.Param(jax.device_put(jnp.ones((2, 4)), sharding))
    assert weight.sharding == sharding
    model = nnx.Dict(w=weight)
    nnx.jit(lambda m: m.w.set_value(m.w * 2.0))(model)
    assert model.w.sharding.is_equivalent_to(sharding, 2)
    weight.add_axis(0, None)
    weight.remove_axis(0, None)


def test_only_a_model_that_evaluates_is_exported() -> None:
    rngs = nnx.Rngs(0)
    model = nnx.Sequential(
        nnx.Linear(2, 3, rngs=rngs), nnx.BatchNorm(3, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)
    )
    x = jax.ShapeDtypeStruct((4, 2), jnp.float32)
    forward = jax.jit(lambda x: model(x))
    with pytest.raises(nnx.TraceContextError, match=r"cannot write BatchStat of shape \(3,\)"):
        export.export(forward)(x)
    model.eval()
    exported = export.export(forward)(x)
    assert [(out.shape, out.dtype) for out in exported.out_avals] == [((4, 3), jnp.float32)]
    given = jnp.arange(8.0).reshape(4, 2)
    np.testing.assert_allclose(exported.call(given), model(given), rtol=1e-6)


def test_remat_of_one_model_leaves_the_others_of_its_class_alone() -> None:
    plain, wrapped = (Mlp(2, 2, nnx.Rngs(0)) for _ in range(2))
    call = Mlp.__call__
    rematerialized = nnx.remat(wrapped)
    assert Mlp.__call__ is call and type(plain) is type(wrapped) is Mlp
    x = jnp.linspace(0.5, 1.0, 6).reshape(3, 2)
    np.testing.assert_array_equal(rematerialized(x), plain(x))
    expected = nnx.grad(loss_of)(plain, x, x)
    found = nnx.grad(lambda m: jnp.mean((nnx.remat(m)(x) - x) ** 2))(wrapped)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    program = str(nnx.make_jaxpr(lambda m, x: m(x))(plain, x))
    assert "checkpoint" not in program and "remat" not in program


def test_annotations_hold_when_they_are_checked() -> None:
    beartype = pytest.importorskip("beartype", reason="beartype is not installed").beartype

    @beartype
    class Block(nnx.Module):
        scale: nnx.Param[jax.Array]
        layers: list[nnx.Module]

        def __init__(self, rngs: nnx.Rngs):
            self.scale = nnx.Param(jnp.ones(()))
            self.layers = [nnx.Linear(2, 2, rngs=rngs), nnx.BatchNorm(2, rngs=rngs)]
            self.dropout: nnx.Dropout = nnx.Dropout(0.5, rngs=rngs)

        def __call__(self, x: jax.Array) -> jax.Array:
            for layer in self.layers:
                x = nnx.relu(layer(x))
            return self.dropout(x) * self.scale

    @beartype
    def loss(model: Block, x: jax.Array) -> jax.Array:
        return jnp.mean(model(x) ** 2)

    @nnx.jit
    @beartype
    def step(model: Block, optimizer: nnx.Optimizer, x: jax.Array) -> nnx.State:
        return optimizer.update(model, nnx.grad(loss)(model, x))

    mesh = make_mesh((2,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    model, x = Block(nnx.Rngs(0)), jnp.ones((4, 2))
    optimizer = nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param)
    assert isinstance(step(model, optimizer, x), nnx.State)
    model.eval()
    rows = PartitionSpec("x")
    forward = nnx.shard_map(
        beartype(Block.__call__), mesh=mesh, in_specs=(PartitionSpec(), rows), out_specs=rows
    )
    np.testing.assert_allclose(forward(model, x), model(x), rtol=1e-6)


def test_pickles_in_a_new_process() -> None:
    model = nnx.List([nnx.Linear(2, 2, rngs=nnx.Rngs(0)), nnx.BatchNorm(2, rngs=nnx.Rngs(0))])
    model.append(nnx.Dropout(0.5, rngs=nnx.Rngs(1)))
    public = [getattr(nnx, name) for name in nnx.__all__]
    errors = [kind("text") for kind in public if is_error(kind)]
    code = (
        "import pickle, sys\n"
        "model, errors = pickle.load(sys.stdin.buffer)\n"
        "import jax.numpy as jnp\n"
        "x = model[0](jnp.ones((1, 2)))\n"
        "print([str(e) for e in errors], float(x.sum()), model[2].rngs.count.value)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=pickle.dumps((model, errors)),
        env=os.environ,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    expected = float(model[0](jnp.ones((1, 2))).sum())
    assert done.stdout.decode().strip() == f"{['text'] * len(errors)} {expected} 0"
    assert len(errors) >= 8


def is_error(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, nnx.WeftError)
