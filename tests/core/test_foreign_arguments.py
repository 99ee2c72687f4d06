"""Arguments of other libraries: what an error says of them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import weft
from weft._core.foreign_arguments import ADVICE, NAMES

nnx: Any = weft  # these mistakes are a type checker's as well
X = jnp.ones((2, 4))


def rngs() -> Any:
    return nnx.Rngs(0)


CALLS: dict[str, tuple[Callable[[], Any], str]] = {
    "bias": (lambda: nnx.Linear(4, 2, bias=False, rngs=rngs()), "it is `use_bias=` here"),
    "stride": (lambda: nnx.Conv(3, 4, (3, 3), stride=2, rngs=rngs()), "it is `strides=` here"),
    "groups": (lambda: nnx.Conv(3, 3, 3, groups=3, rngs=rngs()), "it is `feature_group_count=`"),
    "groups of GroupNorm": (lambda: nnx.GroupNorm(6, groups=3, rngs=rngs()), "`num_groups=` here"),
    "eps": (lambda: nnx.LayerNorm(4, eps=1e-5, rngs=rngs()), "it is `epsilon=` here"),
    "p": (lambda: nnx.Dropout(p=0.5), "it is `rate=` here"),
    "units": (lambda: nnx.Linear(units=2, rngs=rngs()), "it is `out_features=` here"),
    "key": (lambda: nnx.Linear(4, 2, key=jax.random.key(0)), "`rngs=nnx.Rngs(0)`"),
    "kernel_size": (lambda: nnx.max_pool(X, kernel_size=2), "it is `window_shape=` here"),
    "training": (lambda: nnx.Dropout(0.5)(X, training=False), "`model.train()` and `model.eval()"),
    "operand": (lambda: nnx.cond(True, abs, abs, operand=X), "operands go by position, `nnx.cond"),
    "lr": (lambda: nnx.Optimizer(nnx.Dict(), lr=0.1), "`nnx.Optimizer(model, optax.adam(1e-3), w"),
    "no streams": (lambda: nnx.Linear(4, 2), "'rngs': give it random streams, `rngs=nnx.Rngs(0)`"),
    "streams by position": (lambda: nnx.Linear(4, 2, rngs()), "streams go by name, `rngs=rngs`"),
    "too many": (
        lambda: nnx.Linear(4, 2, 3),
        "by name: use_bias=, dtype=, param_dtype=, precision",
    ),
    "objects to save": (lambda: nnx.save("file", nnx.Dict()), "`nnx.save(file, model=model)`"),
    "objects to restore": (
        lambda: nnx.restore("file", nnx.Dict()),
        "objects go by name, `nnx.restore(file, model=model)`",
    ),
    "metrics": (lambda: nnx.metrics.Accuracy().update(X, X), "by name: logits=, labels=, mask="),
    "a cell": (lambda: nnx.LSTMCell(4, 2, rngs=rngs())(X), "`carry, y = cell(carry, x)`"),
    "scan": (lambda: nnx.scan(abs, 0.0, X), "`nnx.scan(f)(carry, xs)`"),
    "vmap": (lambda: nnx.vmap(abs, (None, 0)), "`nnx.vmap(f, in_axes=(None, 0))`"),
    "grad": (lambda: nnx.grad(abs, 0, X), "`nnx.grad(f)(model, x)`"),
    "train": (lambda: nnx.Dict().train(False), "`model.eval()` off"),
}


@pytest.mark.parametrize("name", CALLS)
def test_what_to_write(name: str) -> None:
    call, advice = CALLS[name]
    with pytest.raises(TypeError, match=re.escape(advice)) as caught:
        call()
    assert "argument" in str(caught.value)


def test_nothing_is_added_where_nothing_is_known() -> None:
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'colour'$"):
        nnx.Linear(4, 2, colour=1, rngs=rngs())
    with pytest.raises(TypeError, match=r"missing 1 required positional argument: 'out_features'$"):
        nnx.Linear(4, rngs=rngs())

    def own(model: Any, x: Any, *, scale: float) -> Any:
        return model(x)

    with pytest.raises(TypeError, match=r"missing 1 required keyword-only argument: 'scale'(\n|$)"):
        nnx.grad(own)(nnx.Dict(), X)


def test_names_that_are_advised_are_there() -> None:
    kinds = [getattr(nnx, name) for name in nnx.nn.__all__ if callable(getattr(nnx.nn, name))]
    calls = [f for kind in kinds for f in (kind, getattr(kind, "__call__", kind))]  # noqa: B004
    known: set[str] = set()
    for call in calls:
        try:
            known |= set(inspect.signature(call).parameters)
        except (TypeError, ValueError):
            continue
    assert {own for names in NAMES.values() for own in names} <= known
    for advice in ADVICE.values():
        for name in re.findall(r"nnx\.(\w+)", advice):
            assert hasattr(nnx, name)
