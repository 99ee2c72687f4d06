"""Cases of laws 3 to 7: what JAX is given, what may not be done, and when it is traced."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import weft as nnx
from tests.laws.cases import Box, Foreign, Run, case, param, stat, values_of
from tests.laws.transforms import FULL, TREE, VALUES, Function

# -- 3: only what was written comes out


@case(3, FULL, TREE, VALUES)
def only_written_variables_are_outputs(run: Run) -> None:
    held = nnx.BatchStat({"a": jnp.zeros(3), "b": jnp.zeros(4)})
    model = Box(w=param(), read=param(size=5), n=stat(), held=held, raw=jnp.zeros(6))

    def body(m: Box) -> Any:
        m.n[...] = m.n[...] + m.read[...].sum() + m.raw.sum() + m.held["a"].sum()
        m.w[...] = m.w[...]  # nothing new
        return m.w[...] * 3.0

    assert output_shapes(run, body, model) == [(), (2,)]


@case(3)
def returned_object_is_no_output(run: Run) -> None:
    model = Box(w=param(), n=stat())
    assert output_shapes(run, lambda m: (m, m.w), model) == []


@case(3)
def only_changed_arrays_are_outputs(run: Run) -> None:
    model = Box(w=param(), x=jnp.zeros(3), y=jnp.zeros(4), f=Foreign(jnp.zeros(5)))

    def body(m: Box) -> None:
        m.y = m.y + 1.0
        m.moved = m.x
        m.rate = 1.0

    assert output_shapes(run, body, model) == [(4,)]


def output_shapes(run: Run, body: Function, *objects: Any) -> list[tuple[int, ...]]:
    """The outputs of the compiled program; none of its parts may return its own input."""
    wrapped = run(body)
    jitted = wrapped if run.transform.name == "jit" else nnx.jit(wrapped)
    closed = jitted.trace(*objects).jaxpr
    for jaxpr in all_jaxprs(closed.jaxpr):
        inputs = set(map(id, jaxpr.invars))
        assert not any(id(out) in inputs for out in jaxpr.outvars), jaxpr
    return sorted(out.aval.shape for out in closed.jaxpr.outvars)


def all_jaxprs(jaxpr: Any) -> Any:
    yield jaxpr
    for equation in jaxpr.eqns:
        for parameter in jax.tree.leaves(list(equation.params.values())):
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                yield from all_jaxprs(inner)


# -- 4: all or nothing


@case(4, FULL, VALUES)
def raised_exception(run: Run) -> None:
    held = nnx.BatchStat({"a": jnp.zeros(2)})
    model = Box(
        w=param(), n=stat(), x=jnp.zeros(2), rate=0.5, layers=[param()], sizes=[1], held=held
    )
    model.foreign = Foreign([jnp.zeros(2)])
    before = snapshot(model)

    def body(m: Box) -> None:
        m.w[...] = m.w[...] + 1.0
        m.n.set_metadata(tag="new")
        m.x = m.x + 1.0
        m.rate = 1.0
        m.layers.append(param())
        m.sizes.clear()
        m.held.value["a"] = jnp.ones(2)
        m.foreign.x.append(jnp.ones(2))
        m.fresh = param()
        del m.n
        raise KeyError("in the middle")

    with pytest.raises(KeyError, match="in the middle"):
        run(body)(model)
    assert snapshot(model) == before


@case(4)
def result_that_cannot_come_out(run: Run) -> None:
    model = Box(w=param())
    before = snapshot(model)

    def body(m: Box) -> Any:
        m.w[...] = m.w[...] + 1.0
        m.bad = {Box()}

    with pytest.raises(nnx.StructureError, match=r"bad is a set that holds"):
        run(body)(model)
    assert snapshot(model) == before


def snapshot(model: Box) -> Any:
    graphdef, state = nnx.split(model)
    identities = [id(leaf) for _, leaf in nnx.to_flat_state(state)]
    leaves = [values_of(leaf) for leaf in jax.tree.leaves(state)]
    return graphdef, identities, leaves, list(vars(model))


# -- 5: aliases agree


@case(5)
def one_variable_under_two_prefixes(run: Run) -> None:
    model = Box(w=param())
    found = r"Param is reached under two prefixes: a\.w has .+, b\.v has .+nnx\.clone"
    with pytest.raises(nnx.AliasError, match=found):
        run.transform.disagree(lambda a, b: None)(model, Box(v=model.w))


@case(5)
def one_object_under_two_prefixes(run: Run) -> None:
    model = Box(child=Box(w=param()))
    found = r"a\.child\.w has .+, b\[0\]\.w has "
    with pytest.raises(nnx.AliasError, match=found):
        run.transform.disagree(lambda a, b: None)(model, [model.child])


# -- 6: no leaks


@case(6, FULL, VALUES)
def captured_write(run: Run) -> None:
    captured = Box(w=param(), n=stat(), items=nnx.List([1]))
    attempts: list[Function] = [
        lambda: captured.w.set_value(jnp.zeros(2)),
        lambda: captured.n.set_metadata(tag="x"),
    ]
    for attempt in attempts:

        def body(m: Box, attempt: Function = attempt) -> None:
            attempt()

        expected = (
            rf"cannot write (Param of shape \(2,\)|BatchStat of shape \(\)) \(made at .*cases\.py"
            rf":\d+\) from inside nnx\.{run.transform.name} of '.*body': it was captured from "
            r"outside.*`nnx\.jit\(f\)\(model, x\)`"
        )
        with pytest.raises(nnx.TraceContextError, match=expected):
            run(body)(Box(w=param()))
    assert values_of(captured.w) == [1.0, 1.0]
    assert captured.n.get_metadata() == {}


@case(6)
def captured_object_changed(run: Run) -> None:
    captured = Box(items=nnx.List([1]), named=nnx.Dict(a=1))
    attempts: dict[str, Function] = {
        r"Box\.x": lambda: setattr(captured, "x", 1),
        r"Box\.items": lambda: delattr(captured, "items"),
        r"List\[1\]": lambda: captured.items.append(2),
        r"Dict\.b": lambda: captured.named.update(b=2),
    }
    for where, attempt in attempts.items():
        found = rf"cannot change {where} from inside nnx\.{run.transform.name} of "
        with pytest.raises(nnx.TraceContextError, match=found):
            run(lambda m, attempt=attempt: attempt())(Box(w=param()))
    assert list(captured.items) == [1]
    assert vars(captured).keys() == {"items", "named"}
    assert dict(captured.named) == {"a": 1}


@case(6)
def captured_written_by_an_inner_transform(run: Run) -> None:
    captured = Box(n=stat())

    def body(m: Box) -> None:
        run(lambda c: c.n.set_value(jnp.ones(())))(captured)

    with pytest.raises(nnx.TraceContextError, match="cannot write BatchStat"):
        run(body)(Box(w=param()))
    assert float(captured.n) == 0.0


@case(6)
def captured_read(run: Run) -> None:
    captured, model = Box(w=param(3.0)), Box(w=param())

    def body(m: Box) -> Any:
        return captured.w[...] + m.w[...]

    wrapped = run(body)
    if run.transform.name == "jit":
        with pytest.warns(UserWarning, match=r"Param of shape .* becomes a constant"):
            out = wrapped(model)
    else:
        out = wrapped(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(body)(Box(w=param(), other=1))  # once is enough
    assert values_of(out) == [4.0, 4.0]


# -- 7: retrace only when something changed


def count_traces(run: Run, body: Function, calls: list[tuple[Any, ...]]) -> int:
    traces = 0

    def counted(*objects: Any) -> Any:
        nonlocal traces
        traces += 1
        return body(*objects)

    jitted = nnx.jit(run(counted))
    with nnx.set_retrace_limit(100):
        for objects in calls:
            jitted(*objects)
    return traces


def network(seed: int) -> nnx.Module:
    rngs = nnx.Rngs(seed)
    layers = [nnx.Linear(2, 3, rngs=rngs), nnx.BatchNorm(3, rngs=rngs)]
    return nnx.Sequential(*layers, nnx.Dropout(0.1, rngs=rngs), doubled)


def doubled(x: Any) -> Any:
    return x * 2.0


@case(7, FULL, TREE, VALUES)
def fresh_but_equal_model_and_optimizer(run: Run) -> None:
    def objects(seed: int) -> tuple[Any, ...]:
        model = network(seed)
        schedule = optax.linear_schedule(0.1, 0.0, 100)
        tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))
        return jnp.ones(()), model, nnx.Optimizer(model, tx, wrt=nnx.Param)

    def body(x: Any, model: Any, optimizer: Any) -> None:
        grads = nnx.grad(lambda m: m(jnp.ones((4, 2))).sum() * x)(model)
        optimizer.update(model, grads)

    first = objects(0)
    assert count_traces(run, body, [first, first, objects(1), objects(2)]) == 1


@case(7)
def initializers_do_not_count(run: Run) -> None:
    makers = [nnx.initializers.zeros_init(), nnx.initializers.ones_init()]
    models = [(nnx.Linear(2, 2, kernel_init=init, rngs=nnx.Rngs(0)),) for init in makers]
    assert count_traces(run, lambda m: m(jnp.ones((1, 2))), models) == 1


@case(7)
def static_values_by_type_and_value(run: Run) -> None:
    nan = float("nan")
    different = [1, True, 1.0, "1", 0.0, -0.0, nan, (1,), [1], {"a": 1}, {"a": True}]
    calls = [(Box(w=param(), s=value),) for value in different]
    assert count_traces(run, lambda m: None, calls) == len(different)
    equal = [[nan, {"a": [1]}], [float("nan"), {"a": [1]}]]
    calls = [(Box(w=param(), s=value),) for value in equal]
    assert count_traces(run, lambda m: None, calls) == 1


@case(7)
def functions_by_identity(run: Run) -> None:
    def scale(factor: Any) -> Function:
        return lambda x, power=2: x * factor**power

    double, triple = scale(2), scale(3)
    calls = [(Box(f=f),) for f in (double, double, triple, scale(2), double)]
    assert count_traces(run, lambda m: None, calls) == 3


@case(7)
def functions_of_libraries_as_first_seen(run: Run) -> None:
    def schedule(steps: int) -> Function:
        return optax.cosine_decay_schedule(1.0, steps)

    used = schedule(5)
    calls = [(Box(f=f),) for f in (used, used, schedule(5), schedule(6), used)]
    assert count_traces(run, lambda m: m.f(0), calls) == 2


@case(7)
def unhashable_config_by_content(run: Run) -> None:
    @dataclasses.dataclass
    class Config:
        sizes: list[int]

    calls = [(Box(c=Config([1, n])),) for n in (2, 2, 3)]
    assert count_traces(run, lambda m: None, calls) == 2
    model = Box(c=Config([1]))
    held = model.c
    run(lambda m: None)(model)
    assert model.c is held


@case(7)
def shapes_dtypes_sharing_and_metadata(run: Run) -> None:
    shared = param()
    models = [
        Box(a=param(), b=param()),
        Box(a=param(2.0), b=param(3.0)),
        Box(a=param(size=3), b=param()),
        Box(a=nnx.Param(jnp.ones(2, jnp.bfloat16)), b=param()),
        Box(a=shared, b=shared),
        Box(a=nnx.Param(jnp.ones(2), tag="x"), b=param()),
        Box(a=stat(), b=param()),
    ]
    assert count_traces(run, lambda m: None, [(model,) for model in models]) == len(models) - 1


@case(7)
def structure_written_once(run: Run) -> None:
    def body(m: Box) -> None:
        m.fresh = nnx.BatchStat(jnp.zeros(()))
        m.ready = True

    model = Box(w=param())
    assert count_traces(run, body, [(model,)] * 4) == 2
