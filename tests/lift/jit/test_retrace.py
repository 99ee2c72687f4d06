"""Retrace reports: they name the path or argument and both sides of what differs, and no more."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import weft as nnx
from tests.devices import make_mesh
from weft._lift.jit.retrace import Fact, differences, explain

X = jnp.ones((2, 2))


def scaled_by(scale: float) -> Callable[[Any], Any]:
    def scaled(x: Any) -> Any:
        return x * scale

    return scaled


SCALED = scaled_by(1.0)
WHERE = f"scaled_by.<locals>.scaled (test_retrace.py:{SCALED.__code__.co_firstlineno})"


class Block(nnx.Module):
    def __init__(self) -> None:
        self.linear = nnx.Param(jnp.ones(2))
        self.rate = 0.1
        self.act = SCALED
        self.deterministic = False


@dataclasses.dataclass(frozen=True)
class Config:
    name: str
    rates: tuple[float, ...]


class Model(nnx.Module):
    def __init__(self) -> None:
        self.blocks = nnx.List([Block(), Block()])
        self.size = 3
        self.w = nnx.Param(jnp.ones(2), axes=("a",))
        self.array = jnp.ones(2)
        self.table = {"a": 1, "b": [nnx.Param(jnp.ones(1))]}
        self.config = Config("a long name, so that the text does not fit into a line", (0.1, 0.2))
        self.update = functools.partial(scaled_by(2.0), factors=(1.0, 2.0))


def reason(change: Callable[[Model], Any], *before: Any, after: Any = None, **options: Any) -> str:
    """Returns why a call was traced again, after a change of the model or of the arguments."""
    f = nnx.jit(lambda model, *args, **kwargs: None, **options)
    model = Model()
    f(model, *before)
    change(model)
    f(model, *(before if after is None else after))
    _, *reasons = f.cache_info().reasons
    assert f.cache_info().traces == len(reasons) + 1
    return " | ".join(reasons)


CHANGES: dict[str, tuple[Callable[[Model], Any], str]] = {
    "nothing": (lambda m: m.w.set_value(jnp.zeros(2)), ""),
    "static attribute": (
        lambda m: setattr(m.blocks[1], "rate", 0.0),
        "model.blocks[1].rate: 0.1 -> 0.0 (static)",
    ),
    "new static attribute": (
        lambda m: setattr(m, "extra", 5),
        "model.extra: absent -> 5 (static)",
    ),
    "new Variable": (
        lambda m: setattr(m, "extra", nnx.BatchStat(jnp.ones(2, jnp.int32))),
        "model.extra: absent -> BatchStat i32[2]",
    ),
    "removed attribute": (
        lambda m: delattr(m, "size"),
        "model.size: 3 (static) -> absent",
    ),
    "removed Variable": (
        lambda m: delattr(m, "w"),
        "model.w: Param f32[2] -> absent",
    ),
    "swapped layer": (
        lambda m: m.blocks.__setitem__(0, nnx.Linear(2, 2, rngs=nnx.Rngs(0))),
        "model.blocks[0]: Block -> Linear",
    ),
    "layer to None": (
        lambda m: m.blocks.__setitem__(0, None),
        "model.blocks[0]: Block -> None (static)",
    ),
    "new layer": (lambda m: m.blocks.append(Block()), "model.blocks[2]: absent -> Block"),
    "removed layer": (lambda m: m.blocks.pop(), "model.blocks[1]: Block -> absent"),
    "shared layer": (
        lambda m: m.blocks.__setitem__(1, m.blocks[0]),
        "model.blocks[1]: Block -> the same object as model.blocks[0]",
    ),
    "train and eval": (
        lambda m: m.eval(),
        "model.blocks[0].deterministic: False -> True (static); "
        "model.blocks[1].deterministic: False -> True (static)",
    ),
    "type of a Variable": (
        lambda m: setattr(m, "w", nnx.BatchStat(jnp.ones(2))),
        "model.w: Param f32[2] -> BatchStat f32[2]",
    ),
    "dtype of a Variable": (
        lambda m: m.w.set_value(jnp.ones(2, jnp.float16)),
        "model.w: f32[2] -> f16[2]",
    ),
    "shape of a Variable": (
        lambda m: m.w.set_value(jnp.ones((2, 3))),
        "model.w: f32[2] -> f32[2,3]",
    ),
    "Variable of a tree": (
        lambda m: m.w.set_value({"a": jnp.ones(2), "b": (jnp.ones(1),)}),
        "model.w: f32[2] -> {'a': f32[2], 'b': (f32[1],)}",
    ),
    "metadata": (
        lambda m: m.w.set_metadata(axes=("b",)),
        "model.w.axes: ('a',) -> ('b',) (metadata)",
    ),
    "new metadata": (
        lambda m: m.w.set_metadata(tag=1),
        "model.w.tag: absent -> 1 (metadata)",
    ),
    "shape of an array": (
        lambda m: setattr(m, "array", jnp.ones(3)),
        "model.array: f32[2] -> f32[3]",
    ),
    "array to a number": (
        lambda m: setattr(m, "array", 1),
        "model.array: f32[2] -> 1 (static)",
    ),
    "marks": (
        lambda m: setattr(m, "array", nnx.static(np.ones(2))),
        "model.array: f32[2] -> array([1., 1.]) (static)",
    ),
    "dict value": (
        lambda m: m.table.update(a=2),
        "model.table.a: 1 -> 2 (static)",
    ),
    "dict order": (
        lambda m: m.table.update(a=m.table.pop("a")),
        "model.table: absent -> (('b', 'a'), None) (order)",
    ),
    "container": (
        lambda m: m.table.update(b=(1,)),
        "model.table.b: list -> (1,) (static)",
    ),
    "new function object": (
        lambda m: setattr(m.blocks[0], "act", jnp.tanh),
        "model.blocks[0].act: scaled_by.<locals>.scaled -> tanh (static)",
    ),
    "another closure": (
        lambda m: setattr(m.blocks[0], "act", scaled_by(2.0)),
        f"model.blocks[0].act: {WHERE} -> another {WHERE} (static)",
    ),
    "inside of a config": (
        lambda m: setattr(m, "config", dataclasses.replace(m.config, rates=(0.1, 0.3))),
        "model.config.rates[1]: 0.2 -> 0.3 (static)",
    ),
    "inside of a partial": (
        lambda m: setattr(m, "update", functools.partial(m.update, factors=(1.0, 3.0))),
        "model.update.factors[1]: 2.0 -> 3.0 (static)",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_of_the_model(name: str) -> None:
    change, expected = CHANGES[name]
    assert reason(change) == expected


ARGUMENTS: dict[str, tuple[tuple[Any, ...], tuple[Any, ...], str]] = {
    "shape": ((X,), (jnp.ones((3, 2)),), "args[0]: f32[2,2] -> f32[3,2]"),
    "dtype": ((X,), (X.astype(jnp.bfloat16),), "args[0]: f32[2,2] -> bf16[2,2]"),
    "weak type": ((jnp.float32(1),), (1.0,), "args[0]: f32[] -> f32[] (weak type)"),
    "one more": ((X,), (X, X), "args[1]: absent -> f32[2,2]"),
    "one less": ((X, X), (X,), "args[1]: f32[2,2] -> absent"),
    "None": ((X,), (None,), "args[0]: f32[2,2] -> None"),
    "dict": ((X,), ({"a": X},), "args[0]: f32[2,2] -> dict"),
    "other keys": (
        ({"a": X},),
        ({"b": X},),
        "args[0].a: f32[2,2] -> absent; args[0].b: absent -> f32[2,2]",
    ),
    "deeper": (({"a": X},), ({"a": [X]},), "args[0].a: f32[2,2] -> a container"),
    "tuple": (([X],), ((X,),), "args[0]: list -> tuple"),
    "list inside": (
        ({"a": [X]},),
        ({"a": (X,)},),
        "arguments: (*, {'a': [*]}) -> (*, {'a': (*,)})",
    ),
    "object": ((X,), (Block(),), "args[0]: f32[2,2] -> Block"),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_change_of_the_arguments(name: str) -> None:
    before, after, expected = ARGUMENTS[name]
    assert reason(lambda m: None, *before, after=after) == expected


def reasons(calls: list[tuple[tuple[Any, ...], dict[str, Any]]], f: Any, **options: Any) -> Any:
    jitted = nnx.jit(f, **options)
    for args, kwargs in calls:
        jitted(*args, **kwargs)
    return list(jitted.cache_info().reasons[1:])


@pytest.mark.parametrize("options", [{}, {"donate_argnums": 0}])
def test_static_arguments(options: dict[str, Any]) -> None:
    def f(model: Any, mode: Any = None) -> None:
        pass

    model = Block()
    modes = ["train", "eval", 1, jnp.tanh]
    calls = [((model,), {"mode": mode}) for mode in modes] + [((model, {"k": [1]}), {})]
    assert reasons(calls, f, static_argnames="mode", **options) == [
        "mode: 'train' -> 'eval' (static)",
        "mode: 'eval' -> 1 (static)",
        "mode: 1 -> tanh (static)",
        "mode: tanh -> {'k': [1]} (static)",
    ]


def test_positions_and_names() -> None:
    def f(x: Any, y: Any = None, **rest: Any) -> None:
        pass

    calls = [((X, X), {}), ((X,), {"y": X}), ((X,), {"z": X}), ((X,), {"z": [X, {"k": X}]})]
    assert reasons(calls, f) == [
        "arguments: (*, *) -> (*, y=*)",
        "y: f32[2,2] -> absent; z: absent -> f32[2,2]",
        "z: f32[2,2] -> list",
    ]


def test_bound_methods() -> None:
    class Scaled(nnx.Module):
        def __init__(self) -> None:
            self.scale = 1

        def __call__(self, x: Any) -> Any:
            return x * self.scale

    model = Scaled()
    f = nnx.jit(model.__call__)
    f(2.0)
    model.scale = 3
    f(2.0)
    assert f.cache_info().reasons == ("first trace", "self.scale: 1 -> 3 (static)")


def test_an_optimizer_with_another_learning_rate() -> None:
    model = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    calls = [((nnx.Optimizer(model, optax.sgd(rate), wrt=nnx.Param),), {}) for rate in (0.5, 0.25)]
    (found,) = reasons(calls, lambda optimizer: None)
    assert found.startswith("optimizer.tx.update.")
    assert found.endswith(".step_size: -0.5 -> -0.25 (static)")


def test_long_static_arguments() -> None:
    """What is too long to be shown is narrowed to the part that differs."""
    name = "a name that is so long that the text is cut off before anything differs"
    calls = [
        ((functools.partial(SCALED, name=name, factors=(1.0, 2.0)),), {}),
        ((functools.partial(SCALED, name=name, factors=(1.0, 3.0)),), {}),
        (({"name": name, "list": [1]},), {}),
        (({"name": name, "list": [2]},), {}),
    ]
    found = reasons(calls, lambda x: None, static_argnums=0)
    assert found[0] == "x.factors[1]: 2.0 -> 3.0 (static)"
    assert found[1].startswith("x: functools.partial(") and "... -> {'name': 'a name" in found[1]
    assert found[2] == "x.list[0]: 1 -> 2 (static)"


def test_functions_that_are_made_anew() -> None:
    calls = [((scaled_by(1.0),), {}) for _ in range(2)]
    assert reasons(calls, lambda f: None, static_argnums=0) == [
        f"f: {WHERE} -> another {WHERE} (static)"
    ]


def test_values_that_cannot_be_shown() -> None:
    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError("no repr")

    calls = [((Broken(),), {}), ((Broken(),), {})]
    found = reasons(calls, lambda x: None, static_argnums=0)
    assert found == ["x: <Broken> -> another <Broken> (static)"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Checked:
    """A pytree that checks what it is made of."""

    array: Any

    def __post_init__(self) -> None:
        if self.array.ndim != 1:
            raise ValueError("expected an array of one axis")


def test_pytrees_that_check_what_they_are_made_of() -> None:
    x = jnp.ones(2)
    calls = [((Checked(x), None), {}), ((Checked(x[:1]), None), {}), ((Checked(x[:1]), []), {})]
    found = reasons(calls, lambda x, y: None)
    assert found[0] == "x.array: f32[2] -> f32[1]"
    assert found[1].startswith("arguments: PyTreeDef(((CustomNode(Checked[()], [*]), None), {}))")
    model = Block()
    f = nnx.jit(lambda m: None)
    for array in (x, x[:1]):
        model.linear.set_value(Checked(array))
        f(model)
    assert f.cache_info().reasons[1:] == ("m.linear: f32[2] -> f32[1]",)


def test_two_functions_of_one_name() -> None:
    made = [lambda x: x, lambda x: x + 1, lambda x: x + 2]
    made[1].__qualname__ = made[2].__qualname__ = made[0].__qualname__ = "f"
    line = made[0].__code__.co_firstlineno
    found = reasons([((f,), {}) for f in made[:2]], lambda f: None, static_argnums=0)
    where = f"f (test_retrace.py:{line})"
    assert found == [f"f: {where} -> another {where} (static)"]


def test_two_classes_of_one_name() -> None:
    def make(size: int) -> nnx.Module:
        class Local(nnx.Module):
            def __init__(self) -> None:
                self.size = size

        return Local()

    assert reasons([((make(1),), {}), ((make(1),), {})], lambda m: None) == [
        "m: Local -> another Local"
    ]
    assert reasons([((make(1),), {}), ((make(2),), {})], lambda m: None) == [
        "m.size: 1 -> 2 (static)"
    ]


def test_a_config_that_is_changed_in_place() -> None:
    @dataclasses.dataclass
    class Mutable:
        name: str
        rate: float

    model = Block()
    model.rate = Mutable("a name that is so long that the text of the config is cut off", 0.1)
    f = nnx.jit(lambda m: None)
    f(model)
    model.rate.rate = 0.2
    f(model)
    (found,) = f.cache_info().reasons[1:]
    assert found == "m.rate.rate: 0.1 -> 0.2 (static)"


def test_shardings_that_are_part_of_the_type() -> None:
    mesh = make_mesh((2,), ("x",), (jax.sharding.AxisType.Explicit,))
    y = jnp.ones(4)
    with jax.set_mesh(mesh):
        placed = [jax.device_put(y, jax.NamedSharding(mesh, jax.P(axis))) for axis in ("x", None)]
        (found,) = reasons([((x,), {}) for x in placed], lambda x: None)
    assert found == "x: f32[4@x] -> f32[4]"


ELSEWHERE = (
    "same arguments, but a JAX setting, the mesh, what may be donated, or a static value that an "
    "earlier call put into objects changed, or the earlier trace failed"
)


def test_a_setting_of_jax() -> None:
    f = nnx.jit(lambda m, x: x @ x)
    block = Block()
    f(block, X)
    with jax.default_matmul_precision("float32"):
        f(block, X)
    assert f.cache_info().reasons[1:] == (ELSEWHERE,)


def test_a_static_value_that_a_call_made() -> None:
    class Config:
        rate = 0.5

    @nnx.jit
    def f(block: Any, x: Any) -> None:
        block.config = Config()

    f(block := Block(), X)
    block.config.rate = 1.0
    f(Block(), X)
    assert f.cache_info().reasons[1:] == (ELSEWHERE,)


def test_the_latest_of_the_nearest_traces_is_compared_with() -> None:
    calls = [((jnp.ones(n), jnp.ones(k)), {}) for n, k in ((1, 1), (1, 2), (1, 3), (4, 2))]
    assert reasons(calls, lambda x, y: None) == [
        "y: f32[1] -> f32[2]",
        "y: f32[2] -> f32[3]",
        "x: f32[1] -> f32[4]",
    ]


def test_a_long_list_is_cut() -> None:
    calls = [(tuple(jnp.ones(n) for _ in range(11)), {}) for n in (1, 2)]
    (found,) = reasons(calls, lambda *xs: None)
    assert found.count("; xs[") == 7
    assert found.endswith("; xs[7]: f32[1] -> f32[2]; and 3 more")
    (found,) = reasons([(xs[:8], {}) for xs, _ in calls], lambda *xs: None)
    assert found.endswith("; xs[7]: f32[1] -> f32[2]")


def test_values_that_refuse_to_be_compared() -> None:
    treedef = jax.tree.structure([1])
    before, after = {("a",): Fact(treedef, "list")}, {("a",): Fact(None, "None")}
    assert [d.text for d in differences(before, after)] == ["a: list -> None"]


def test_marks_are_told_where_nothing_else_is() -> None:
    model = Block()
    f = nnx.jit(lambda m: None)
    f(model)
    model.rate = nnx.static(0.1)
    f(model)
    assert f.cache_info().reasons[1:] == ("m: absent -> {'rate': False} (marks)",)


@pytest.mark.parametrize(
    ("before", "after", "advice"),
    [
        (X, X[:1], "Pad arrays to one shape"),
        (X, X.astype(jnp.float16), "Convert arrays to one dtype first"),
        (jnp.float32(1), 1.0, "Convert arrays to one dtype first"),
        (X, [X], "Set up objects and containers before the first call"),
        ("a", "b", "Make what changes a Variable, or pass it as an array"),
        (scaled_by(1.0), scaled_by(1.0), "Make the function once and use that one"),
        (scaled_by(1.0), "b", "Make what changes a Variable, or pass it as an array"),
    ],
)
def test_advice(before: Any, after: Any, advice: str) -> None:
    is_traced = isinstance(before, (jax.Array, float))
    f = nnx.jit(lambda x: None, static_argnums=() if is_traced else 0, max_traces=1)
    f(before)
    with pytest.raises(nnx.RetraceError, match=rf"\. {advice}, or allow more: "):
        f(after)


def test_the_first_trace() -> None:
    assert explain([], {}) == ("first trace", "")
