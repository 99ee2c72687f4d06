# pyright: strict, reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnnecessaryTypeIgnoreComment=true
"""What transforms make of the signatures of functions."""

import functools
from typing import Any, assert_type

import jax
import jax.numpy as jnp

import weft as nnx

X = jnp.ones((4, 2))


class Model(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs):
        self.linear = nnx.Linear(2, 2, rngs=rngs)

    @nnx.jit
    def __call__(self, x: jax.Array) -> jax.Array:
        return self.block(x)

    @nnx.remat
    def block(self, x: jax.Array) -> jax.Array:
        return self.linear(x)

    @nnx.vmap(in_axes=(None, 0))
    def each(self, x: jax.Array) -> jax.Array:
        return self.linear(x)

    @nnx.value_and_grad
    def loss(self, x: jax.Array) -> jax.Array:
        return self.linear(x).sum()

    @functools.partial(nnx.jit, static_argnums=1)
    def times(self, number: int) -> jax.Array:
        return number * self.linear.kernel

    @nnx.jit(static_argnames="name")
    def named(self, x: jax.Array, *, name: str = "") -> dict[str, jax.Array]:
        return {name: self.linear(x)}


@functools.partial(nnx.jit, static_argnames=("number",))
def times(x: jax.Array, number: int) -> jax.Array:
    return number * x


def make() -> Model:
    return Model(rngs=nnx.Rngs(0))


def loss_fn(model: Model, x: jax.Array, *, weight: float = 1.0) -> jax.Array:
    return weight * model.linear(x).sum()


def loss_and_parts(model: Model, x: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    loss = loss_fn(model, x)
    return loss, {"loss": loss}


def double(x: jax.Array) -> jax.Array:
    return (2 * x).sum()


def compiled() -> None:
    step = nnx.jit(loss_fn)
    model = make()
    assert_type(step(model, X, weight=2.0), jax.Array)
    assert_type(step(model=model, x=X), jax.Array)
    assert_type(nnx.jit(model.linear)(X), jax.Array)
    assert_type(nnx.cached_partial(step, model)(X), jax.Array)
    assert_type(nnx.jit_partial(loss_fn, model)(X), jax.Array)
    assert isinstance(nnx.cached_partial(step, model).lower(X).as_text(), str)


def methods() -> None:
    model = make()
    assert_type(model(X), jax.Array)
    assert_type(model.block(X), jax.Array)
    assert_type(model.each(X), jax.Array)
    assert_type(model.named(X, name="y"), dict[str, jax.Array])
    assert_type(model.loss(X), tuple[jax.Array, nnx.State])
    assert_type(Model.named(model, X), dict[str, jax.Array])
    # mypy does not see through `partial`: no error, and no type.
    assert model.times(2).shape == times(X[:2], number=2).shape


def ahead_of_time() -> None:
    step = nnx.jit(loss_fn)
    model = make()
    assert_type(step.trace(model, X).lower().compile()(model, X), jax.Array)
    assert_type(step.lower(model, X).compile()(model, X), jax.Array)
    abstract = jax.ShapeDtypeStruct(X.shape, X.dtype)
    assert_type(step.lower(model, abstract).compile()(model, X), jax.Array)
    assert isinstance(step.lower(model, X).as_text(), str)
    assert step.eval_shape(model, abstract).shape == ()
    assert_type(step.cache_info().traces, int)


def gradients() -> None:
    model = make()
    assert_type(nnx.grad(loss_fn)(model, X, weight=2.0), nnx.State)
    assert_type(nnx.grad(double)(X), jax.Array)
    grads, parts = nnx.grad(loss_and_parts, has_aux=True)(model, X)
    assert_type(grads, nnx.State)
    assert_type(parts, dict[str, jax.Array])
    assert_type(nnx.grad(loss_fn, argnums=nnx.DiffState(0, nnx.Param))(model, X), nnx.State)

    def squared(param: nnx.Param[jax.Array]) -> jax.Array:
        return (param**2).sum()

    assert_type(nnx.grad(squared)(nnx.Param(X)), nnx.Param[jax.Array])


def values_and_gradients() -> None:
    model = make()
    loss, grads = nnx.value_and_grad(loss_fn)(model, X)
    assert_type(loss, jax.Array)
    assert_type(grads, nnx.State)
    (loss, parts), grads = nnx.value_and_grad(loss_and_parts, has_aux=True)(model, X)
    assert_type(loss, jax.Array)
    assert_type(parts, dict[str, jax.Array])
    assert_type(grads, nnx.State)
    assert_type(nnx.value_and_grad(double)(X), tuple[jax.Array, jax.Array])
    jitted = nnx.jit(nnx.value_and_grad(loss_fn))
    assert_type(jitted(model, X), tuple[jax.Array, nnx.State])


@nnx.value_and_grad(has_aux=True)
def decorated(model: Model, x: jax.Array) -> tuple[jax.Array, int]:
    return model.linear(x).sum(), 1


@nnx.grad
def also_decorated(model: Model, x: jax.Array) -> jax.Array:
    return model.linear(x).sum()


def decorators() -> None:
    (loss, number), grads = decorated(make(), X)
    assert_type(loss, jax.Array)
    assert_type(number, int)
    assert_type(grads, nnx.State)
    assert_type(also_decorated(make(), X), nnx.State)


def mapped() -> None:
    model = make()

    @nnx.split_rngs(splits=3)
    @nnx.vmap
    def ensemble(rngs: nnx.Rngs) -> Model:
        return Model(rngs=rngs)

    models = ensemble(nnx.Rngs(0))
    assert_type(models, Model)
    assert_type(nnx.vmap(loss_fn, in_axes=(0, None))(models, X), jax.Array)
    assert_type(nnx.vmap(in_axes=(None, 0))(loss_fn)(model, X), jax.Array)
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.sharding.PartitionSpec("data")
    sharded = nnx.shard_map(forward, mesh=mesh, in_specs=(None, split), out_specs=split)
    assert_type(sharded(model, X), jax.Array)


def recomputed() -> None:
    model = make()
    assert_type(nnx.remat(loss_fn)(model, X), jax.Array)
    assert_type(nnx.remat(prevent_cse=False)(loss_fn)(model, X, weight=1.0), jax.Array)


@nnx.scan(in_axes=(nnx.Carry, 0), out_axes=(nnx.Carry, 0))
def accumulate(total: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return total + x, x


def add(index: Any, total: jax.Array) -> jax.Array:
    return total + 1


def loops() -> None:
    assert_type(accumulate(jnp.zeros(2), X), tuple[jax.Array, jax.Array])
    assert_type(nnx.while_loop(lambda x: x.sum() < 10, lambda x: x + 1, X), jax.Array)
    assert_type(nnx.fori_loop(0, 3, add, X), jax.Array)
    assert_type(nnx.fori_loop(0, 3, lambda i, model: model, make()), Model)


def forward(model: Model, x: jax.Array) -> jax.Array:
    return model.linear(x)


def branches() -> None:
    model = make()
    assert_type(nnx.cond(True, forward, lambda model, x: 2 * x, model, X), jax.Array)
    assert_type(nnx.switch(0, [forward, forward], model, X), jax.Array)


def abstract() -> None:
    assert_type(nnx.eval_shape(make), Model)
    assert nnx.eval_shape(loss_fn, make(), X).shape == ()


def derivatives() -> None:
    model = make()
    y, pull = nnx.vjp(forward, model, X)
    assert_type(y, jax.Array)
    assert_type(pull(y), tuple[Any, ...])
    y, _ = nnx.jvp(forward, (model, X), (nnx.state(model, nnx.Param), X))
    assert_type(y, jax.Array)


@nnx.custom_vjp
def clipped(model: Model, x: jax.Array) -> jax.Array:
    return model.linear(x)


def rules() -> None:
    def forward_rule(model: Model, x: jax.Array) -> tuple[jax.Array, None]:
        return model.linear(x), None

    def backward_rule(residuals: None, cotangents: Any) -> tuple[None, None]:
        return None, None

    clipped.defvjp(forward_rule, backward_rule)
    assert_type(clipped(make(), X), jax.Array)
