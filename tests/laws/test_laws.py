"""The laws of the library, as a table: every transform × every case × the modes it names.

The laws are written out in CONTRIBUTING.md. What is not about a transform (splitting and merging,
JAX's own functions) is tried below the table.
"""

from __future__ import annotations

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx
from tests.laws import object_cases, trace_cases
from tests.laws.cases import CASES, Box, Case, Foreign, Run, param, stat, values_of
from tests.laws.transforms import TRANSFORMS

FILLED_BY = (object_cases, trace_cases)  # by being imported

ROWS = [
    pytest.param(
        case, Run(transform, mode), id=f"{case.law} {case.name}: {transform.name} {mode.name}"
    )
    for case in CASES
    for transform in TRANSFORMS
    for mode in case.modes
    if case.law in transform.laws and case.name not in transform.unless
]


@pytest.mark.parametrize(("case", "run"), ROWS)
def test_law(case: Case, run: Run) -> None:
    case.check(run)


def test_the_table_is_whole() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
    assert {case.law for case in CASES} == {1, 2, 3, 4, 5, 6, 7, 10, 11}
    for transform in TRANSFORMS:
        assert transform.unless.keys() <= set(names)


OF_TRANSFORMS = {"assert_max_traces", "transform_metadata", "cached_partial", "jit_partial", "pmap"}
"""Functions beside the transforms, tested with those; and `pmap`, which JAX calls with nothing but
mapped arguments, as the cases have none: see `tests/lift/test_map.py`."""


def test_every_transform_has_a_record() -> None:
    functions = {name: x for name in nnx.__all__ if inspect.isfunction(x := getattr(nnx, name))}
    public = {name for name, x in functions.items() if x.__module__.startswith("weft._lift")}
    there = {transform.name.split()[0] for transform in TRANSFORMS}
    missing = public - there - OF_TRANSFORMS
    assert not missing, f"give {missing} a record in tests/laws/transforms.py"


# -- 1, outside transforms


def test_split_and_state_hand_out_the_own_variables() -> None:
    model = Box(w=param(), child=Box(n=stat()))
    state = nnx.split(model)[1]
    assert state["w"] is model.w
    assert nnx.state(model, nnx.BatchStat)["child"]["n"] is model.child.n


def test_merge_makes_variables_around_the_same_arrays() -> None:
    model = Box(w=param(), child=Box(n=stat()), x=jnp.zeros(2))
    merged = nnx.merge(*nnx.split(model))
    assert merged.w is not model.w
    assert merged.w[...] is model.w[...]
    merged.w[...] = jnp.zeros(2)
    merged.child.n.set_metadata(tag="x")
    merged.child.extra = 1
    assert values_of(model.w) == [1.0, 1.0]
    assert model.child.n.get_metadata() == {}
    assert not hasattr(model.child, "extra")


def test_merge_without_copy_reuses_the_variables() -> None:
    model = Box(w=param())
    merged = nnx.merge(*nnx.split(model), copy=False)
    assert merged is not model
    assert merged.w is model.w


# -- 6, under JAX's own transformations


CAPTURING = {
    "jit": lambda f: jax.jit(f)(jnp.ones(2)),
    "grad": lambda f: jax.grad(f)(jnp.ones(2)),
    "vmap": lambda f: jax.vmap(f)(jnp.ones((3, 2))),
    "checkpoint": lambda f: jax.checkpoint(f)(jnp.ones(2)),
    "eval_shape": lambda f: jax.eval_shape(f, jnp.ones(2)),
    "make_jaxpr": lambda f: jax.make_jaxpr(f)(jnp.ones(2)),
    "linearize": lambda f: jax.linearize(f, jnp.ones(2)),
    "scan": lambda f: jax.lax.scan(lambda c, x: (c, f(x)), 0.0, jnp.ones((3, 2))),
    "cond": lambda f: jax.lax.cond(True, f, jnp.sum, jnp.ones(2)),
}


@pytest.mark.parametrize("call", CAPTURING.values(), ids=CAPTURING)
def test_captured_write_under_plain_jax(call: Any) -> None:
    model = Box(w=param())

    def write(x: Any) -> Any:
        model.w[...] = model.w[...] + x
        return x.sum()

    def change(x: Any) -> Any:
        model.label = "new"
        return x.sum()

    with pytest.raises(nnx.TraceContextError, match=r"Param .* a JAX transformation \(jax\.jit"):
        call(write)
    with pytest.raises(nnx.TraceContextError, match=r"cannot change Box\.label"):
        call(change)
    assert values_of(model.w) == [1.0, 1.0]
    assert vars(model).keys() == {"w"}


def test_captured_read_under_plain_jax() -> None:
    model = Box(w=param(3.0))
    assert float(jax.jit(lambda x: (model.w * x).sum())(jnp.ones(2))) == 6.0


# -- 9: pytree


def nested() -> Box:
    return Box(
        w=param(2.0),
        layers=[Box(w=param(3.0)), "text", None],
        named={"a": (jnp.ones(2), 1), "b": param()},
        foreign=Foreign(jnp.ones(2)),
        rate=nnx.data(1.0),
        label="x",
    )


def test_key_paths_keep_ints() -> None:
    paths = [
        jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(nested())
    ]
    assert paths == [
        ".foreign.x",
        ".layers[0].w.value",
        ".named['a'][0]",
        ".named['b'].value",
        ".rate",
        ".w.value",
    ]
    model = nnx.Sequential(nnx.Linear(1, 1, use_bias=False, rngs=nnx.Rngs(0)))
    ((path, _),) = jax.tree_util.tree_leaves_with_path(model)
    assert jax.tree_util.keystr(path) == ".layers[0].kernel.value"


def test_tree_map_is_pure() -> None:
    model = nested()
    doubled = jax.tree.map(lambda x: x * 2, model)
    assert type(doubled) is Box
    assert values_of(doubled.layers[0].w) == [6.0, 6.0]
    assert doubled.layers[1:] == ["text", None]
    assert doubled.named["a"][1] == 1
    assert doubled.rate == 2.0
    assert doubled.label == "x"
    assert values_of(model.layers[0].w) == [3.0, 3.0]
    assert jax.tree.structure(doubled) == jax.tree.structure(model)
    rebuilt = jax.tree.unflatten(jax.tree.structure(model), jax.tree.leaves(model))
    assert nnx.graphdef(rebuilt) == nnx.graphdef(model)


def test_tree_map_over_variables() -> None:
    is_variable = lambda x: isinstance(x, nnx.Variable)  # noqa: E731
    kinds = jax.tree.map(lambda x: type(x).__name__, nested(), is_leaf=is_variable)
    assert kinds.w == "Param"
    assert kinds.foreign.x == "ArrayImpl"


def test_jax_jit_of_an_argument_may_change_and_return_it() -> None:
    @jax.jit
    def step(model: Box) -> Box:
        model.w[...] = model.w[...] + 1.0
        model.layers.append(param())
        model.label = "stepped"
        return model

    model = nested()
    out = step(model)
    assert out is not model
    assert values_of(out.w) == [3.0, 3.0]
    assert len(out.layers) == 4
    assert out.label == "stepped"
    assert values_of(model.w) == [2.0, 2.0]
    assert len(model.layers) == 3


def test_jax_jit_retraces_by_value() -> None:
    traces = 0

    @jax.jit
    def f(model: Box) -> None:
        nonlocal traces
        traces += 1

    for label in ("a", "a", "b", True, 1):
        f(Box(w=param(), label=label, sizes=[1, 2]))
    assert traces == 4


def test_jax_grad_and_vmap() -> None:
    model = Box(w=param(3.0), label="x")
    grads = jax.grad(lambda m: (m.w**2).sum())(model)
    assert type(grads) is Box
    assert values_of(grads.w) == [6.0, 6.0]
    stacked = jax.tree.map(lambda *xs: jnp.stack(xs), Box(w=param(1.0)), Box(w=param(2.0)))
    assert values_of(jax.vmap(lambda m: m.w.sum())(stacked)) == [2.0, 4.0]
    assert values_of(jax.vmap(lambda m: m.w[...], out_axes=1)(stacked)) == [1.0, 2.0, 1.0, 2.0]


def test_jax_scan_and_cond_carry_a_model() -> None:
    def body(model: Box, x: Any) -> Any:
        model.w[...] = model.w[...] + x
        return model, x

    out, _ = jax.lax.scan(body, Box(w=param(), label="x"), jnp.arange(3.0))
    assert values_of(out.w) == [4.0, 4.0]
    out = jax.lax.cond(True, lambda m: m, lambda m: m, Box(w=param(5.0)))
    assert values_of(out.w) == [5.0, 5.0]


def test_a_shared_variable_is_flattened_once_per_occurrence() -> None:
    shared = param()
    model = Box(a=shared, b=shared)
    assert len(jax.tree.leaves(model)) == 2
    copied = jax.tree.map(lambda x: x, model)
    assert copied.a is not copied.b
    assert nnx.state(model).flat_state().paths == (("a",),)


def cycles() -> dict[str, Any]:
    direct = Box()
    direct.me = direct
    through = Box(child=Box(items=[{"deep": (Box(),)}]))
    through.child.items[0]["deep"][0].top = through
    late = Box(z=Box())
    late.x = late.y = Box(w=param())  # an object met twice before the cycle
    late.z.back = late
    return {
        r"Box\.me is the Box itself": direct,
        r"Box\.child\.items\[0\]\.deep\[0\]\.top is": through,
        r"Box\.z\.back is": late,
    }


@pytest.mark.parametrize(("found", "model"), cycles().items(), ids=["direct", "through", "late"])
def test_a_cycle_is_refused_with_its_path(found: str, model: Box) -> None:
    for use in (jax.tree.leaves, jax.jit(lambda m: None), lambda m: jax.tree.map(jnp.ones_like, m)):
        with pytest.raises(nnx.CycleError, match=found):
            use(model)
    model = Box(w=param(), x=[Box()], y=nnx.Dict())
    assert len(jax.tree.leaves(model)) == 1  # the next object is not blamed


# -- 11: `ref=` and `hijax=`


@pytest.mark.parametrize("name", ["ref", "hijax"])
def test_reference_modes_are_refused(name: str) -> None:
    assert nnx.Param(1.0, **{name: False}).get_metadata() == {}
    assert nnx.Param(1.0, **{name: None}).value == 1.0
    with pytest.raises(ValueError, match=rf"{name}=True is not supported: .* leave out `{name}=`"):
        nnx.Param(1.0, **{name: True})


def test_numpy_arrays_are_data() -> None:
    model = Box(x=np.zeros(2, np.float32))
    nnx.jit(lambda m: setattr(m, "x", m.x + 1.0))(model)
    assert values_of(model.x) == [1.0, 1.0]
