# pyright: strict, reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnnecessaryTypeIgnoreComment=true
"""What taking objects apart and putting them together gives."""

from typing import assert_type

import jax
import jax.numpy as jnp

import weft as nnx


class Model(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.linear = nnx.Linear(2, 3, rngs=rngs)
        self.norm = nnx.BatchNorm(3, rngs=rngs)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        self.sow(nnx.Intermediate, "hidden", x)
        return self.norm(self.dropout(self.linear(x)))


def splitting() -> None:
    model = Model(nnx.Rngs(0))
    assert_type(nnx.split(model), tuple[nnx.GraphDef[Model], nnx.State])
    assert_type(nnx.split(model, ...), tuple[nnx.GraphDef[Model], nnx.State])
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    assert_type(graphdef, nnx.GraphDef[Model])
    assert_type(params, nnx.State)
    assert_type(rest, nnx.State)
    _, _, statistics, _ = nnx.split(model, nnx.Param, nnx.BatchStat, ...)
    assert_type(statistics, nnx.State)
    filters = [nnx.Param, nnx.Variable]
    _, *states = nnx.split(model, *filters)
    assert_type(states, list[nnx.State])


def merging() -> None:
    model = Model(nnx.Rngs(0))
    assert_type(nnx.merge(*nnx.split(model)), Model)
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    assert_type(nnx.merge(graphdef, params, rest), Model)
    assert_type(nnx.merge(nnx.graphdef(model), nnx.state(model)), Model)
    assert_type(nnx.merge(*nnx.split([model]))[0], Model)


def calling() -> None:
    model = Model(nnx.Rngs(0))
    nnx.call(nnx.split(model)).linear(jnp.ones(2))
    nnx.call(nnx.split(model, nnx.Param, ...)).linear(jnp.ones(2))


def states() -> None:
    model = Model(nnx.Rngs(0))
    state = nnx.state(model)
    assert_type(state, nnx.State)
    assert_type(nnx.state(model, nnx.Param), nnx.State)
    assert_type(nnx.state(model, nnx.Param, nnx.BatchStat), tuple[nnx.State, ...])
    assert_type(state.filter(nnx.Param), nnx.State)
    assert_type(state.split(nnx.Param, ...), tuple[nnx.State, ...])
    assert_type(nnx.to_flat_state(state), nnx.FlatState)
    assert_type(nnx.from_flat_state(nnx.to_flat_state(state)), nnx.State)
    flat = nnx.to_flat_state(state)
    assert_type(flat.filter(nnx.Param), nnx.FlatState)
    assert_type(flat.split(nnx.Param, ...), tuple[nnx.FlatState, ...])
    assert_type(nnx.filter_state(state, nnx.Param), nnx.State)
    assert_type(nnx.filter_state(state, nnx.Param, nnx.BatchStat), tuple[nnx.State, ...])
    assert_type(nnx.split_state(state, ...), nnx.State)
    params, rest = nnx.split_state(state, nnx.Param, ...)
    assert_type(nnx.merge_state(params, rest), nnx.State)
    assert_type(nnx.map_state(lambda path, leaf: leaf, state), nnx.State)
    nnx.update(model, state)


def copies() -> None:
    model = Model(nnx.Rngs(0))
    assert_type(nnx.clone(model), Model)
    assert_type(nnx.map(lambda path, leaf: leaf, model), Model)
    assert_type(nnx.view(model, deterministic=True), Model)
    assert_type(nnx.as_abstract(model), Model)


def intermediates() -> None:
    model = Model(nnx.Rngs(0))
    x = jnp.ones((4, 2))
    assert_type(nnx.capture(model, nnx.Intermediate)(x), tuple[jax.Array, nnx.State])
    model(x)
    assert_type(nnx.pop(model, nnx.Intermediate), nnx.State)


def flat() -> None:
    model = Model(nnx.Rngs(0))
    assert_type(nnx.flatten(model), tuple[nnx.GraphDef[Model], nnx.FlatState])
    assert_type(nnx.unflatten(*nnx.flatten(model)), Model)
    with nnx.split_context() as context:
        assert_type(context.split(model), tuple[nnx.GraphDef[Model], nnx.State])


def modules() -> None:
    for _, module in nnx.iter_modules(Model(nnx.Rngs(0))):
        assert_type(module, nnx.Module)
