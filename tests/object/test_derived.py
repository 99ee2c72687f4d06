"""Cached properties: what is kept stays right, and nothing of a trace is."""

from __future__ import annotations

import functools
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import weft as nnx
from weft._object.pytree import attributes

COUNT: dict[str, int] = {}


def count(name: str) -> None:
    COUNT[name] = COUNT.get(name, 0) + 1


class Mixin:
    kernel: Any

    @functools.cached_property
    def mixed(self) -> Any:
        return self.kernel[...] * 2


class Layer(Mixin, nnx.Module):
    def __init__(self, dim: int = 4) -> None:
        self.kernel = nnx.Param(jnp.arange(1.0, 1 + 2 * dim).reshape(dim, 2))
        self.dim = dim

    @functools.cached_property
    def weight(self) -> jax.Array:
        """Kernel of norm one."""
        return self.kernel[...] / jnp.linalg.norm(self.kernel[...], axis=0)

    @functools.cached_property
    def pair(self) -> Any:
        return {"n": (self.dim, [self.kernel[...] + 1]), "w": self.kernel[...]}

    @functools.cached_property
    def table(self) -> np.ndarray:
        return np.arange(self.dim)

    @functools.cached_property
    def half(self) -> int:
        count("half")
        return self.dim // 2

    @functools.cached_property
    def shape(self) -> tuple[int, ...]:
        return (self.dim, 2)

    @functools.cached_property
    def apply(self) -> Any:
        weight = self.kernel[...]
        return lambda x: x @ weight

    @functools.cached_property
    def part(self) -> Any:
        return nnx.Param(jnp.ones(2))

    @functools.cached_property
    def notes(self) -> list[Any]:
        return []

    @functools.cached_property
    def wrong(self) -> Any:
        return self.kernel.missing_name

    def __call__(self, x: Any) -> Any:
        return x @ self.weight


class Below(Layer):
    @functools.cached_property
    def half(self) -> int:
        return -1

    @property
    def mixed(self) -> int:  # type: ignore[override]
        return 7


ARRAYS = ["weight", "pair", "table", "mixed"]


def test_training_through_a_cached_property() -> None:
    m, x = Layer(), jax.random.normal(jax.random.key(0), (8, 4))
    m.weight  # noqa: B018 - before the first step, too
    optimizer = nnx.Optimizer(m, optax.sgd(0.5), wrt=nnx.Param)

    @nnx.jit
    def step(m: Layer, optimizer: Any) -> Any:
        loss, grads = nnx.value_and_grad(lambda m: jnp.mean(m(x) ** 2))(m)
        optimizer.update(m, grads)
        return loss

    losses = [float(step(m, optimizer)) for _ in range(4)]
    assert sorted(losses, reverse=True) == losses and losses[-1] < losses[0]
    assert step.cache_info().traces == 1
    assert sorted(attributes(m)) == ["dim", "kernel"]
    np.testing.assert_allclose(nnx.jit(lambda m: m(x))(m), m(x), rtol=1e-6)


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_are_worked_out_each_time(name: str) -> None:
    m = Layer()
    nnx.jit(lambda m: jax.tree.map(lambda x: x + 0, getattr(m, name)))(m)
    before = jax.tree.leaves(getattr(m, name))[-1]
    assert name not in attributes(m)
    assert list(nnx.state(m)) == ["kernel"]
    m.kernel[...] = m.kernel[...] ** 2
    after = jax.tree.leaves(getattr(m, name))[-1]
    assert (name == "table") == np.array_equal(before, after)


@pytest.mark.parametrize("name", [*ARRAYS, "apply", "half", "shape", "part", "notes"])
@pytest.mark.parametrize("transform", [jax.jit, jax.grad])
def test_a_captured_object_keeps_nothing_of_a_trace(name: str, transform: Any) -> None:
    m = Layer()

    @transform
    def f(x: Any) -> Any:
        getattr(m, name)
        return x

    f(1.0)
    assert sorted(attributes(m)) == ["dim", "kernel"]


def test_static_values_are_kept_outside_of_traces() -> None:
    COUNT.clear()
    m = Layer()
    f = nnx.jit(lambda m: jnp.ones(m.half) * m.shape[0] + m.half)
    f(m), f(m)
    assert f.cache_info().traces == 1
    assert "half" not in attributes(m) and "shape" not in attributes(m)
    COUNT.clear()
    assert (m.half, m.half, m.shape) == (2, 2, (4, 2))
    assert COUNT == {"half": 1}
    assert attributes(m)["half"] == 2
    assert f(m).shape == (2,)
    m.half = 3  # as in Python, an attribute comes first
    assert f(m).shape == (3,)
    del m.half
    assert f(m).shape == (2,)


def test_functions_and_parts() -> None:
    m = Layer()
    x = jnp.ones(4)
    nnx.jit(lambda m, x: m.apply(x))(m, x)
    assert "apply" not in attributes(m)
    assert m.apply is m.apply
    # What may be changed later has to stay, and comes out of a transform as any attribute does.
    m = Layer()

    def grow(m: Layer) -> None:
        m.part[...] += 1
        m.notes.append(1)

    nnx.jit(grow)(m)
    assert m.part[...].tolist() == [2.0, 2.0]
    assert m.notes == [1]
    assert sorted(nnx.state(m)) == ["kernel", "part"]
    nnx.jit(grow)(m)
    assert m.part[...].tolist() == [3.0, 3.0]
    assert m.notes == [1, 1]


def test_keeping_is_a_change_of_structure() -> None:
    m = Layer()
    for _ in range(3):
        nnx.split(m)
    part = m.part
    assert nnx.state(m)["part"] is part


def test_what_a_class_overrides() -> None:
    m = Below()
    assert (m.half, m.mixed) == (-1, 7)
    assert isinstance(vars(Below)["half"], functools.cached_property)
    assert Layer.weight.__doc__ == "Kernel of norm one."
    assert isinstance(vars(Mixin)["mixed"], functools.cached_property)
    assert type(vars(Mixin)["mixed"]) is functools.cached_property  # the mixin is left alone


def test_another_kind_of_cached_property_is_left_alone() -> None:
    class Own(functools.cached_property):
        pass

    class Net(nnx.Module):
        @Own
        def size(self) -> int:
            return 3

    assert type(vars(Net)["size"]) is Own
    net = Net()
    assert (net.size, vars(net)["size"]) == (3, 3)


def test_frozen_dataclasses_and_frozen_objects() -> None:
    @nnx.dataclass(frozen=True)
    class Net(nnx.Module):
        dim: int = 4

        @functools.cached_property
        def half(self) -> int:
            count("frozen")
            return self.dim // 2

    COUNT.clear()
    net = Net()
    assert (net.half, net.half) == (2, 2)
    assert COUNT == {"frozen": 1}


def test_an_error_inside_is_the_error() -> None:
    with pytest.raises(AttributeError, match="missing_name"):
        Layer().wrong  # noqa: B018


def test_a_value_with_arrays_that_nobody_looks_into() -> None:
    class Net(nnx.Module):
        def __init__(self) -> None:
            self.w = nnx.Param(jnp.ones(2))

        @functools.cached_property
        def held(self) -> Any:
            return types.SimpleNamespace(w=self.w[...])

    net = Net()
    nnx.jit(lambda m: m.held.w)(net)
    assert sorted(attributes(net)) == ["w"]
