# pyright: strict, reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnusedExpression=false, reportUnnecessaryTypeIgnoreComment=true
"""Mistakes that a type checker reports, one on each marked line; none of this is run.

A mark without a mistake is an error as well, so that a mistake which is no longer found shows.
"""

import jax
import jax.numpy as jnp
import optax

import weft as nnx

X = jnp.ones((4, 2))


class Model(nnx.Module):
    def __init__(self, features: int, *, rngs: nnx.Rngs):
        self.linear = nnx.Linear(2, features, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.linear(x)

    @nnx.jit
    def step(self, x: jax.Array) -> jax.Array:
        return self.linear(x)


@nnx.dataclass
class Scale(nnx.Module):
    factor: nnx.Data[jax.Array]
    name: str = nnx.static(default="scale")


def loss_fn(model: Model, x: jax.Array) -> jax.Array:
    return model(x).sum()


def constructors(model: Model) -> None:
    Model("2", rngs=nnx.Rngs(0))  # type: ignore[arg-type]
    Model(2)  # type: ignore[call-arg]
    nnx.Linear(2, 3)  # type: ignore[call-arg]
    Scale()  # type: ignore[call-arg]
    Scale(X, name=1)  # type: ignore[arg-type]
    model.liner  # type: ignore[attr-defined]
    model.typo = 1  # type: ignore[attr-defined]
    model(X, X)  # type: ignore[call-arg]
    model("x")  # type: ignore[arg-type]
    nnx.Sequential(nnx.relu, 3)  # type: ignore[call-overload]


def variables(param: nnx.Param[jax.Array], count: nnx.Variable[int]) -> None:
    param + "1"  # type: ignore[arg-type]
    None * param  # type: ignore[arg-type]
    param < None  # type: ignore[arg-type]
    param(X)  # type: ignore[misc, arg-type]
    param.sum(axes=0)  # type: ignore[call-arg]
    param.value = "1"  # type: ignore[assignment]
    count.value = X  # type: ignore[assignment]
    count + "1"  # type: ignore[call-overload]
    # JAX does not declare that its functions take what has `__jax_array__`: `jnp.sum(param[...])`.
    jnp.sum(param)  # type: ignore[arg-type]


def compiled(model: Model) -> None:
    step = nnx.jit(loss_fn)
    step(model)  # type: ignore[call-arg]
    step(X, X)  # type: ignore[arg-type]
    step(model, X, y=X)  # type: ignore[call-arg]
    step.lowered(model, X)  # type: ignore[attr-defined]
    nnx.jit(loss_fn, static_argnum=0)  # type: ignore[call-overload]
    model.step()  # type: ignore[call-arg]
    model.step("x")  # type: ignore[arg-type]
    nnx.remat(loss_fn)(model)  # type: ignore[call-arg]
    nnx.vmap(loss_fn, in_axis=0)  # type: ignore[call-overload]
    nnx.eval_shape(loss_fn, model, X, y=X)


def gradients(model: Model) -> None:
    nnx.grad(loss_fn)(model)  # type: ignore[call-overload]
    nnx.grad(loss_fn)(X, X)  # type: ignore[call-overload]
    loss, grads = nnx.value_and_grad(loss_fn)(model, X)
    loss.kernel  # type: ignore[attr-defined]
    grads + 1  # type: ignore[operator]
    nnx.grad(3)  # type: ignore[call-overload]


def graphs(model: Model) -> None:
    graphdef, params = nnx.split(model, nnx.Param, ...)  # type: ignore[misc]
    nnx.merge(*nnx.split(model)).liner  # type: ignore[attr-defined]
    nnx.clone(model).liner  # type: ignore[attr-defined]
    del graphdef, params


def optimizers(model: Model, other: nnx.Linear) -> None:
    optimizer = nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param)
    optimizer.update(other, nnx.state(other))  # type: ignore[arg-type]
    optimizer.model  # type: ignore[attr-defined]
    nnx.Optimizer(model, 0.1, wrt=nnx.Param)  # type: ignore[arg-type]


def loops(model: Model) -> None:
    nnx.cond(True, loss_fn, loss_fn, model)  # type: ignore[arg-type]
    nnx.fori_loop(0, 3, loss_fn, model)  # type: ignore[arg-type]
