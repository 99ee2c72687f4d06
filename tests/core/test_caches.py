"""`clear_caches`: everything is traced anew, and nothing else changes."""

import importlib
import pkgutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx
from weft._core import arguments, caches, static
from weft._object import layout
from weft._object.pytree import attributes


class Counting(nnx.Module):
    def __init__(self):
        self.lin, self.n = nnx.Linear(2, 2, rngs=nnx.Rngs(0)), nnx.BatchStat(jnp.zeros(()))

    def __call__(self, x):
        self.n[...] = self.n + 1.0
        return self.lin(x)


traced: list[None] = []


def step(m, x):
    traced.append(None)
    return m(x).sum()


def body(m, x):
    step(m, x)
    return m, x


def make_block(rngs):
    return nnx.Linear(2, 2, rngs=rngs)


CALLS = {
    "jit": nnx.jit(lambda m, x: step(m, x)),
    "jit of grad": nnx.jit(nnx.grad(step)),
    "scan": lambda m, x: nnx.scan(body, in_axes=(nnx.Carry, 0), out_axes=(nnx.Carry, 0))(m, x),
    "cond": lambda m, x: nnx.cond(x.sum() > 0.0, step, step, m, x),
    "fori_loop": lambda m, x: nnx.fori_loop(0, 2, lambda i, m: body(m, x)[0], m),
    "Stack": lambda m, x: nnx.Stack(lambda rngs: nnx.Linear(2, 2, rngs=rngs), 2, rngs=nnx.Rngs(0))(
        x
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_next_call_gives_the_same_and_traces_anew(name):
    x = jnp.ones((2, 2))
    results, traces = [], []
    for clears in (False, False, True):
        if clears:
            nnx.clear_caches()
        m, before = Counting(), len(traced)
        out = CALLS[name](m, x)
        results.append(jax.tree.leaves((out, nnx.state(m))))
        traces.append(len(traced) - before)
    for result in results[1:]:
        jax.tree.map(np.testing.assert_array_equal, result, results[0])
    assert traces[2] == traces[0]


def test_what_is_remembered_is_dropped():
    nnx.jit(step)(Counting(), jnp.ones((2, 2)))
    assert static._boxes
    assert Counting._pytree_layouts
    assert arguments._known
    nnx.clear_caches()
    assert not static._boxes
    assert not Counting._pytree_layouts
    assert not arguments._known
    assert layout.layout_of(Counting()).keys == tuple(sorted(attributes(Counting())))


def test_every_module_that_can_forget_is_asked_to():
    names = [
        module.name
        for module in pkgutil.walk_packages(nnx.__path__, "weft.")
        if not module.name.startswith("weft.bridge")
    ]
    can_forget = {n for n in names if callable(getattr(importlib.import_module(n), "clear", None))}
    assert can_forget == {clear.__module__ for clear in caches._clears}
