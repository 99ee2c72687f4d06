"""The cases that a law is tried on: functions of a `Run`, in the table `CASES`."""

from __future__ import annotations

import dataclasses
import typing
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import weft as nnx
from tests.laws.transforms import FULL, TREE, VALUES, Function, Mode, Transform


class Run(NamedTuple):
    """A transform in a mode."""

    transform: Transform
    mode: Mode

    def __call__(self, body: Function) -> Function:
        return self.transform.wrap(body, **self.mode.options())


class Case(NamedTuple):
    name: str
    law: int
    check: Callable[[Run], None]
    modes: tuple[Mode, ...]


CASES: list[Case] = []


def case(law: int, *modes: Mode) -> Callable[[Function], Function]:
    """Adds a check to the table, under its own name in words."""

    def add(check: Function) -> Function:
        CASES.append(Case(check.__name__.replace("_", " "), law, check, modes or (FULL,)))
        return check

    return add


# -- the objects of the cases


class Box(nnx.Module):
    """A Module with the attributes it is given."""

    def __init__(self, **attributes: Any):
        for name, value in attributes.items():
            setattr(self, name, value)

    def count(self, x: Any) -> Any:
        self.calls[...] = self.calls[...] + 1.0
        return (self.w[...] * x).sum()


class Pair(typing.NamedTuple):
    left: Any
    right: Any


@jax.tree_util.register_pytree_with_keys_class
class Foreign:
    """A mutable class that only JAX knows."""

    def __init__(self, x: Any, label: str = "a"):
        self.x, self.label = x, label

    def tree_flatten_with_keys(self) -> Any:
        return [(jax.tree_util.GetAttrKey("x"), self.x)], self.label

    def tree_flatten(self) -> Any:
        return (self.x,), self.label

    @classmethod
    def tree_unflatten(cls, label: str, children: Any) -> Foreign:
        new = object.__new__(cls)
        (new.x,), new.label = children, label
        return new


def param(value: float = 1.0, size: int = 2) -> nnx.Param:
    return nnx.Param(jnp.full((size,), value))


def stat(value: float = 0.0) -> nnx.BatchStat:
    return nnx.BatchStat(jnp.full((), value))


def values_of(x: Any) -> list[float]:
    return np.asarray(x).ravel().tolist()


# -- 1: identity


@case(1, FULL, TREE, VALUES)
def returned_input(run: Run) -> None:
    model = Box(w=param(), child=Box(n=stat()))
    out = run(lambda m: {"model": m, "child": m.child, "variable": m.w})(model)
    assert out["model"] is model
    assert out["child"] is model.child
    assert out["variable"] is model.w


@case(1)
def swapped_inputs(run: Run) -> None:
    a, b = Box(w=param()), Box(w=param())
    assert run(lambda a, b: (b, a))(a, b) == (b, a)


@case(1, FULL, TREE, VALUES)
def shared_reference(run: Run) -> None:
    variable, child = param(), Box(n=stat())
    model = Box(a=variable, b=variable, left=child, right=[child])

    def body(m: Box) -> None:
        assert m.a is m.b
        assert m.left is m.right[0]
        m.b[...] = m.a[...] + 1.0
        m.left.n[...] = 5.0

    if not run.mode.graph:
        with pytest.raises(nnx.SharedReferenceError, match=r"m\.a and at m\.b: .*graph=True"):
            run(body)(model)
        return
    run(body)(model)
    assert model.a is variable
    assert model.b is variable
    assert model.left is child
    assert model.right[0] is child
    assert values_of(variable) == [2.0, 2.0]
    assert float(child.n) == 5.0


@case(1)
def shared_between_arguments(run: Run) -> None:
    shared = stat(1.0)
    a, b = Box(n=shared), Box(n=shared)

    def body(zero: Any, a: Box, b: Box) -> None:
        assert a.n is b.n
        b.n[...] = 3.0

    run(body)(jnp.zeros(()), a, b)
    assert a.n is b.n is shared
    assert float(shared) == 3.0


@case(1, FULL, TREE)
def cycle(run: Run) -> None:
    model = Box(w=param(), child=Box())
    model.child.parent = model
    model.me = [model]

    def body(m: Box) -> Any:
        assert m.child.parent is m
        m.child.parent.w[...] = m.w[...] * 2.0
        return m.child

    if not run.mode.graph:
        with pytest.raises(nnx.SharedReferenceError, match=r"m and at m\.child\.parent"):
            run(body)(model)
        return
    assert run(body)(model) is model.child
    assert model.child.parent is model
    assert model.me[0] is model
    assert values_of(model.w) == [2.0, 2.0]


# -- 2: writes come out


@case(2, FULL, TREE, VALUES)
def variable_written(run: Run) -> None:
    model = Box(n=stat(), w=param())

    def body(m: Box) -> None:
        m.n[...] = m.n[...] + m.w[...].sum()

    run(body)(model)
    run(body)(model)
    assert float(model.n) == 4.0


@case(2, FULL, TREE, VALUES)
def new_attribute(run: Run) -> None:
    model = Box(w=param())

    def body(m: Box) -> None:
        m.fresh = nnx.BatchStat(m.w[...].sum())
        m.child = Box(w=m.w, label="new")
        m.array = m.w[...] + 1.0
        m.name = "changed"

    if run.mode is TREE:

        def body(m: Box) -> None:
            m.fresh = nnx.BatchStat(m.w[...].sum())
            m.array = m.w[...] + 1.0
            m.name = "changed"

    run(body)(model)
    if not run.mode.graph_updates:
        assert vars(model).keys() == {"w"}
        return
    assert float(model.fresh) == 2.0
    assert values_of(model.array) == [2.0, 2.0]
    assert model.name == "changed"
    if run.mode is FULL:
        assert model.child.w is model.w
        assert model.child.label == "new"


@case(2, FULL, VALUES)
def new_objects_are_shared_as_inside(run: Run) -> None:
    model = Box()

    def body(m: Box) -> Any:
        m.a = Box(w=param())
        m.b = [m.a]
        return m.a

    out = run(body)(model)
    assert values_of(out.w) == [1.0, 1.0]
    if run.mode.graph_updates:
        assert model.a is model.b[0] is out


@case(2, FULL, VALUES)
def removed_attribute(run: Run) -> None:
    model = Box(w=param(), old=stat(), label="x")

    def body(m: Box) -> None:
        del m.old, m.label
        m.w[...] = m.w[...] + 1.0

    run(body)(model)
    expected = {"w"} if run.mode.graph_updates else {"w", "old", "label"}
    assert vars(model).keys() == expected
    assert values_of(model.w) == [2.0, 2.0]


@case(2)
def rebound_attribute(run: Run) -> None:
    model = Box(a=param(1.0), b=param(2.0), array=jnp.zeros(2), other=jnp.ones(2))
    a, b = model.a, model.b

    def body(m: Box) -> None:
        m.a, m.b = m.b, m.a
        m.array, m.other = m.other, m.array + 3.0

    run(body)(model)
    assert model.a is b
    assert model.b is a
    assert values_of(model.array) == [1.0, 1.0]
    assert values_of(model.other) == [3.0, 3.0]


@case(2, FULL, VALUES)
def static_change(run: Run) -> None:
    model = Box(w=param(), rate=0.5, config={"sizes": [1, 2]}, names={"a"})
    config, names = model.config, model.names

    def body(m: Box) -> None:
        m.rate = 0.25
        m.config["sizes"].append(3)
        m.config["depth"] = 4
        m.names.add("b")

    run(body)(model)
    assert model.config is config
    assert model.names is names
    if run.mode.graph_updates:
        assert model.rate == 0.25
        assert model.config == {"sizes": [1, 2, 3], "depth": 4}
        assert model.names == {"a", "b"}
    else:
        assert model.rate == 0.5
        assert model.config == {"sizes": [1, 2]}
        assert model.names == {"a"}


@case(2, FULL, VALUES)
def dtype_and_shape_change(run: Run) -> None:
    model = Box(n=stat(), w=param())

    def body(m: Box) -> None:
        m.n.value = m.n[...].astype(jnp.bfloat16)
        m.w.value = jnp.ones((3, 1))

    run(body)(model)
    assert model.n.dtype == jnp.bfloat16
    assert model.w.shape == (3, 1)


@case(2, FULL, VALUES)
def metadata_change(run: Run) -> None:
    model = Box(w=nnx.Param(jnp.ones(2), tag="old", keep=1))

    def body(m: Box) -> None:
        assert m.w.tag == "old"
        m.w.set_metadata(tag="new")
        m.w.del_metadata("keep")

    run(body)(model)
    assert model.w.get_metadata() == {"tag": "new"}


@case(2, FULL, VALUES)
def pytree_valued_variable(run: Run) -> None:
    held = nnx.BatchStat({"a": jnp.zeros(2), "b": (jnp.ones(()),)})
    model = Box(item=held, whole=held.copy(), inside=held.copy(), left=held.copy())

    def body(m: Box) -> None:
        m.item["a"] = m.item["a"] + 1.0
        m.whole.value = [jnp.ones(3)]
        m.inside.value["a"] = m.inside.value["a"] + 2.0

    run(body)(model)
    assert values_of(model.item["a"]) == [1.0, 1.0]
    assert [x.shape for x in model.whole.value] == [(3,)]
    assert values_of(model.inside["a"]) == [2.0, 2.0]
    assert values_of(model.left["a"]) == [0.0, 0.0]
    assert float(model.left["b"][0]) == 1.0


@case(2)
def attribute_marks(run: Run) -> None:
    model = Box(w=param(), rate=nnx.data(1.0))

    def body(m: Box) -> None:
        assert isinstance(m.rate, (jax.Array, float))
        m.rate = m.rate + 1.0
        m.table = nnx.static(np.arange(2))

    run(body)(model)
    assert float(model.rate) == 2.0
    assert nnx.to_flat_state(nnx.state(model)).paths == (("rate",), ("w",))


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
    return nnx.Sequential(*layers, nnx.Dropout(0.1, rngs=rngs), lambda x: x * 2.0)


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
def functions_by_code_and_closure(run: Run) -> None:
    def scale(factor: Any) -> Function:
        return lambda x, power=2: x * factor**power

    calls = [(Box(f=scale(factor)),) for factor in (1, 1, 1.0, True, 1)]
    assert count_traces(run, lambda m: None, calls) == 3


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


# -- 10: containers are containers


@case(10, FULL, TREE)
def plain_containers_hold_data(run: Run) -> None:
    model = Box(
        layers=[Box(w=param()), None, 3],
        named={"b": param(), "a": {"deep": (param(), "text")}},
        pair=Pair(param(), [jnp.zeros(2)]),
        foreign=Foreign([param()]),
    )
    expected = [
        ("foreign", "x", 0),
        ("layers", 0, "w"),
        ("named", "a", "deep", 0),
        ("named", "b"),
        ("pair", "left"),
        ("pair", "right", 0),
    ]
    assert list(nnx.to_flat_state(nnx.state(model)).paths) == expected
    kept = [model.layers, model.named, model.pair.right, model.foreign.x]

    def body(m: Box) -> None:
        assert list(m.named) == ["b", "a"]
        assert type(m.pair) is Pair
        m.layers[0].w[...] = m.layers[0].w[...] + 1.0
        m.pair.right[0] = m.pair.right[0] + 1.0
        m.foreign.x[0][...] = jnp.zeros(2)

    run(body)(model)
    assert [model.layers, model.named, model.pair.right, model.foreign.x] == kept
    assert all(
        a is b for a, b in zip([model.layers, model.named, model.pair.right], kept[:3], strict=True)
    )
    assert list(model.named) == ["b", "a"]
    assert values_of(model.layers[0].w) == [2.0, 2.0]
    assert values_of(model.pair.right[0]) == [1.0, 1.0]
    assert values_of(model.foreign.x[0]) == [0.0, 0.0]


@case(10, FULL, VALUES)
def container_append_and_replace(run: Run) -> None:
    model = Box(
        items=[param()],
        listed=nnx.List([param()]),
        named={"a": param(), "gone": param()},
        dicted=nnx.Dict(a=param(), train=1),
        empty=[],
    )
    items, first, listed = model.items, model.items[0], model.listed

    def body(m: Box) -> None:
        m.items.append(param(5.0))
        m.listed.append(param(6.0))
        m.listed[0] = m.items[0]
        m.named["a"] = param(7.0)
        m.named["new"] = jnp.zeros(1)
        del m.named["gone"]
        m.dicted["b"] = param(8.0)
        m.dicted.a[...] = jnp.zeros(2)
        m.empty.append(m.items)

    run(body)(model)
    assert model.items is items
    assert model.listed is listed
    assert values_of(model.dicted.a) == [0.0, 0.0]
    if not run.mode.graph_updates:
        assert model.items == [first]
        assert model.empty == []
        assert list(model.named) == ["a", "gone"]
        return
    assert model.items[0] is first is listed[0]
    assert values_of(model.items[1]) == [5.0, 5.0]
    assert values_of(listed[1]) == [6.0, 6.0]
    assert list(model.named) == ["a", "new"]
    assert values_of(model.named["a"]) == [7.0, 7.0]
    assert list(model.dicted) == ["a", "train", "b"]
    assert model.empty[0] is items


@case(10)
def one_container_at_two_places(run: Run) -> None:
    shared: list[Any] = [param()]
    model = Box(a=shared, b={"c": shared})

    def body(m: Box) -> None:
        assert m.a is m.b["c"]
        m.a.append(1)

    run(body)(model)
    assert model.a is model.b["c"] is shared
    assert len(shared) == 2


@case(10)
def foreign_pytrees_changed_in_place(run: Run) -> None:
    model = Box(
        f=Foreign(jnp.zeros(2)), nested=Foreign(Foreign(jnp.zeros(2))), t=(Foreign(jnp.zeros(2)),)
    )

    def body(m: Box) -> None:
        m.f.x = m.f.x + 1.0
        m.nested.x.x = m.nested.x.x + 2.0
        m.t[0].x = m.t[0].x + 3.0
        m.t[0].label = "b"

    run(body)(model)
    assert values_of(model.f.x) == [1.0, 1.0]
    assert values_of(model.nested.x.x) == [2.0, 2.0]
    assert values_of(model.t[0].x) == [3.0, 3.0]
    assert model.t[0].label == "b"


@case(10)
def a_set_of_data_is_refused(run: Run) -> None:
    for bad in ({Box()}, frozenset({Box()}), [{Box()}]):
        with pytest.raises(nnx.StructureError, match=r"m\.bad.* is a set that holds .*list\("):
            run(lambda m: None)(Box(bad=bad))


# -- 11: bound methods


@case(11, FULL, TREE, VALUES)
def bound_method(run: Run) -> None:
    model = Box(w=param(2.0), calls=stat())
    transformed = run.transform.method(model.count, **run.mode.options())
    transformed(jnp.ones(2))
    transformed(jnp.ones(2))
    assert float(model.calls) == 2.0
    assert values_of(model.w) == [2.0, 2.0]
