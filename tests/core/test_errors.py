"""Errors that are not ours are shown as they are."""

from __future__ import annotations

import functools
from typing import Any

import jax.numpy as jnp
import optax
import pytest

import weft as nnx


class Broken:
    """Has properties that fail, each in its own way."""

    @property
    def wrong(self) -> Any:
        return jnp.ones(1).no_such_method()  # type: ignore[attr-defined]

    @functools.cached_property
    def cached(self) -> Any:
        return jnp.ones(1).no_such_method()  # type: ignore[attr-defined]

    @property
    def calls(self) -> Any:
        return self.wrong


class Layer(Broken, nnx.Module):
    pass


class Mapping(Broken, nnx.Dict):
    pass


class Items(Broken, nnx.List):
    pass


class Weight(Broken, nnx.Param):
    pass


class Optimizer(Broken, nnx.Optimizer):
    pass


class Streams(Broken, nnx.Rngs):
    pass


class Part(Broken, nnx.State):
    pass


def made() -> dict[str, Any]:
    return {
        "Module": Layer(),
        "Dict": Mapping(a=1),
        "List": Items([1]),
        "Variable": Weight(jnp.ones(1)),
        "Optimizer": Optimizer(nnx.Linear(1, 1, rngs=nnx.Rngs(0)), optax.sgd(0.1), wrt=nnx.Param),
        "Rngs": Streams(0),
        "State": Part({"a": 1}),
    }


@pytest.mark.parametrize("name", made())
@pytest.mark.parametrize("attribute", ["wrong", "cached", "calls"])
def test_what_a_property_raises_is_raised(name: str, attribute: str) -> None:
    with pytest.raises(AttributeError, match="no attribute 'no_such_method'"):
        getattr(made()[name], attribute)


def test_what_is_missing_is_still_missing() -> None:
    for name, obj in made().items():
        if name != "Rngs":  # which has the default stream for every name
            with pytest.raises(AttributeError, match="missing"):
                _ = obj.missing
    assert made()["Variable"].ndim == 1
    assert made()["Dict"].a == made()["State"].a == 1
    with pytest.raises(AttributeError, match="has no attribute or metadata 'mro'"):
        _ = made()["Variable"].mro
