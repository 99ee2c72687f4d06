"""Nothing that a call made outlives it: objects and arrays go when their last user does.

Python's collector is off here, so that a reference cycle shows: what is in one stays in the
device's memory until the collector runs, which knows nothing of that memory.
"""

from __future__ import annotations

import ast
import functools
import gc
import pathlib
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import weft as nnx
from tests.laws.cases import Box, param, stat
from tests.laws.transforms import TRANSFORMS

P = jax.sharding.PartitionSpec


@pytest.fixture(autouse=True)
def _without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def model() -> Box:
    shared = Box(w=param(3.0))
    items = [param(), {"x": jnp.ones(2)}]
    return Box(w=param(), n=stat(), x=jnp.ones(2), child=shared, again=shared, items=items)


SEEN: list[weakref.ref] = []


def look(m: Box) -> None:
    """Notes the objects that the code inside of a transform sees."""
    SEEN.extend(map(weakref.ref, (m, m.n, m.child, m.child.w)))


def loss(m: Box, x: Any) -> Any:
    look(m)
    m.n[...] = m.n + 1.0
    return (m.w * x * m.child.w * m.x).sum()


def check(call: Callable[[], object], *own: Any) -> None:
    """Calls three times and looks for what is left of the last two."""
    call()
    gc.collect()
    SEEN.clear()
    before = len(jax.live_arrays())
    call()
    call()
    assert len(jax.live_arrays()) == before
    kept = [ref() for ref in SEEN]
    assert not [x for x in kept if x is not None and not any(x is y for y in own)]


# -- all transforms


@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda t: t.name)
def test_transforms(transform: Any) -> None:
    m = model()

    def body(m: Box) -> None:
        loss(m, 2.0)

    check(lambda: transform.wrap(lambda m: body(m))(m))
    assert SEEN or transform.name in ("cond", "switch", "scan")  # their traces may be kept


@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda t: t.name)
def test_transforms_inside_jit(transform: Any) -> None:
    m = model()

    def body(m: Box) -> None:
        loss(m, 2.0)

    def outer(m: Box) -> None:
        transform.wrap(lambda m: body(m))(m)

    check(lambda: nnx.jit(lambda m: outer(m))(m))
    check(functools.partial(nnx.jit(outer), m))


# -- what they return, and all else that is called with a model


@nnx.custom_vjp
def doubled(m: Box, x: Any) -> Any:
    return loss(m, x)


def doubled_fwd(m: Box, x: Any) -> Any:
    return doubled(m, x), (m, x)


def doubled_bwd(residuals: Any, cotangents: Any) -> Any:
    m, x = residuals
    look(m)
    return {"w": 2.0 * m.x * x * cotangents[1]}, None


doubled.defvjp(doubled_fwd, doubled_bwd)


def train(m: Box, optimizer: Any, x: Any) -> None:
    optimizer.update(m, nnx.grad(loss)(m, x))


def masked(m: Box) -> Any:
    """Makes an optimizer whose transformation refuses the form that is tried first."""
    mask = nnx.to_pure_dict(nnx.map_state(lambda path, p: True, nnx.state(m, nnx.Param)))
    return nnx.Optimizer(m, optax.masked(optax.sgd(0.1), mask), wrt=nnx.Param)


def fails(m: Box, x: Any) -> None:
    def broken(m: Box, x: Any) -> Any:
        loss(m, x)
        raise KeyError("of the user")

    with pytest.raises(KeyError):
        nnx.grad(broken)(m, x)


def pmapped(m: Box, x: Any) -> Any:
    return nnx.pmap(lambda m, x: m.child.w * x, in_axes=(None, 0))(m, x[None])


def sown(m: Box, x: Any) -> Any:
    m.child.sow(nnx.Intermediate, "seen", x)
    return nnx.pop(m, nnx.Intermediate)


def directions(m: Box) -> Any:
    return jax.tree.map(jnp.ones_like, nnx.to_pure_dict(nnx.state(m, nnx.Param)))


def rows(m: Box, x: Any) -> Any:
    axes = (nnx.Carry, 0)
    return nnx.scan(lambda m, x: (m, loss(m, x)), in_axes=axes, out_axes=axes)(m, x)[1]


def shown(m: Box) -> None:
    look(m)


CALLS: dict[str, Callable[[Box, Any], Any]] = {
    "grad": nnx.grad(loss),
    "grad of everything": nnx.grad(loss, argnums=(nnx.DiffState(0, ...), 1)),
    "grad as an object": nnx.grad(loss, graph_updates=False),
    "grad with aux": nnx.grad(lambda m, x: (loss(m, x), m), has_aux=True),
    "value_and_grad": nnx.value_and_grad(loss),
    "grad of remat": nnx.grad(lambda m, x: nnx.remat(loss)(m, x)),
    "grad of scan": nnx.grad(lambda m, x: rows(m, x).sum()),
    "grad of custom_vjp": nnx.grad(lambda m, x: doubled(m, x)),
    "vjp": lambda m, x: nnx.vjp(loss, m, x)[1](jnp.ones(())),
    "jvp": lambda m, x: nnx.jvp(loss, (m, x), (directions(m), x)),
    "pmap": pmapped,
    "scan": rows,
    "eval_shape": lambda m, x: nnx.eval_shape(loss, m, x),
    "make_jaxpr": lambda m, x: nnx.make_jaxpr(loss)(m, x),
    "jit": lambda m, x: nnx.jit(lambda m, x: loss(m, x))(m, x),
    "jit with options": lambda m, x: nnx.jit(lambda m, x: loss(m, x), static_argnums=1)(m, 2.0),
    "jit_partial": lambda m, x: nnx.jit_partial(lambda m, x: loss(m, x), m)(x),
    "split and merge": lambda m, x: shown(nnx.merge(*nnx.split(m, nnx.Param, ...))),
    "clone": lambda m, x: shown(nnx.clone(m)),
    "update": lambda m, x: nnx.update(m, jax.tree.map(lambda a: a * 2.0, nnx.state(m))),
    "update with a dict": lambda m, x: nnx.update(m, {"child": {"w": x * 2.0}}),
    "state": lambda m, x: nnx.to_flat_state(nnx.state(m, nnx.Param)),
    "pop": sown,
    "call": lambda m, x: nnx.call(nnx.split(nnx.Linear(2, 2, rngs=nnx.Rngs(0))))(x),
    "recursive_map": lambda m, x: nnx.recursive_map(lambda path, node: node, m),
    "optimizer": lambda m, x: train(m, nnx.Optimizer(m, optax.adam(1e-3), wrt=nnx.Param), x),
    "optimizer with a mask": lambda m, x: train(m, masked(m), x),
    "split_rngs": lambda m, x: nnx.split_rngs(nnx.Rngs(0), splits=2),
    "tabulate": lambda m, x: nnx.tabulate(nnx.Linear(2, 2, rngs=nnx.Rngs(0)), x),
    "an error": fails,
}


@pytest.mark.parametrize("name", CALLS)
def test_calls(name: str) -> None:
    m, x = model(), jnp.ones(2)
    check(lambda: CALLS[name](m, x), m, m.n, m.child, m.child.w)


@pytest.mark.parametrize("name", CALLS)
def test_calls_inside_jit(name: str) -> None:
    m, x = model(), jnp.ones(2)

    def outer(m: Box, x: Any) -> None:
        CALLS[name](m, x)

    check(functools.partial(nnx.jit(outer), m, x))


def test_an_optimizer_that_stays() -> None:
    m, x = model(), jnp.ones(2)
    optimizer = nnx.Optimizer(m, optax.adam(1e-3), wrt=nnx.Param)
    check(lambda: train(m, optimizer, x))
    check(functools.partial(nnx.jit(train), m, optimizer, x))


@pytest.mark.parametrize("make", [nnx.jit, nnx.grad, nnx.vmap, nnx.remat])
def test_what_a_function_closes_over_goes_with_it(make: Any) -> None:
    captured = model()
    gone = weakref.ref(captured)

    def function(x: Any, captured: Box = captured) -> Any:
        return (captured.x * x).sum()

    transformed = make(function)
    transformed(jnp.ones(2))
    del transformed, function, captured
    assert gone() is None


# -- the usual cause


FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def local_functions(function: ast.AST) -> dict[str, ast.AST]:
    """Returns the functions that are made inside a function, by name."""
    found: dict[str, ast.AST] = {}
    for node in ast.walk(function):
        if node is not function and isinstance(node, ast.FunctionDef):
            found[node.name] = node
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda):
            found |= {target.id: node.value for target in node.targets if hasattr(target, "id")}
    return found


def names_in(function: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}


def refer_to_themselves(source: str) -> list[str]:
    found = []
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef):
            continue
        local = local_functions(function)
        for name in local:
            reached: set[str] = set()
            ahead = [name]
            while ahead:
                new = (names_in(local[ahead.pop()]) & local.keys()) - reached
                reached |= new
                ahead.extend(new)
            if name in reached:
                found.append(name)
    return found


def test_no_local_function_refers_to_itself() -> None:
    """Such a function is in a cycle with its own cell, and keeps all that it closes over."""
    assert refer_to_themselves("def f():\n  def g(): return h()\n  def h(): return g()") == [*"gh"]
    assert not refer_to_themselves("def f():\n  def g(): return 1\n  return g()")
    root = pathlib.Path(nnx.__file__).parent
    found = {
        str(path.relative_to(root)): names
        for path in root.rglob("*.py")
        if (names := refer_to_themselves(path.read_text()))
    }
    assert not found
