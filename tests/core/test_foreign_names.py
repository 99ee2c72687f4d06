"""Names of Flax Linen, Keras and PyTorch: what an error says of them, and that nothing is there."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import optax
import pytest

import weft as nnx
from weft._core.foreign_names import BRIDGE, MODULE, OPTIMIZER, PUBLIC, SEQUENTIAL, VARIABLE, Hint

ALL = {**PUBLIC, **BRIDGE, **MODULE, **VARIABLE, **OPTIMIZER, **SEQUENTIAL}


class Model(nnx.Module):
    def __init__(self) -> None:
        self.w = nnx.Param(jnp.ones(2))


@pytest.mark.parametrize("advice", sorted(set(ALL.values())))
def test_all_that_is_advised_is_there(advice: str) -> None:
    for name in re.findall(r"nnx\.([\w.]+)", advice):
        value: Any = nnx
        for part in name.split("."):
            value = getattr(value, part)
    for name in re.findall(r"optax\.([\w.]+)", advice):
        value = optax
        for part in name.split("."):
            value = getattr(value, part)
    for name in re.findall(r"(?<=model)\.(\w+)", advice):
        assert callable(getattr(nnx.Module, name))
    for name in re.findall(r"(?<=optimizer)\.(\w+)", advice):
        assert callable(getattr(nnx.Optimizer, name))


@pytest.mark.parametrize("name", PUBLIC)
def test_names_in_the_package(name: str) -> None:
    found = re.escape(f"module 'weft' has no attribute '{name}': {PUBLIC[name]}")
    with pytest.raises(AttributeError, match=f"^{found}$"):
        getattr(nnx, name)
    assert not hasattr(nnx, name)
    found = re.escape(f"cannot import name '{name}' from 'weft': {PUBLIC[name]}")
    with pytest.raises(ImportError, match=f"^{found}$"):
        exec(f"from weft import {name}")


def test_examples() -> None:
    for name, code in (
        ("Dense", "nnx.Linear(in_features, out_features, rngs=rngs)"),
        ("Conv2d", "nnx.Conv(in_features, out_features, kernel_size=(3, 3), rngs=rngs)"),
        ("Embedding", "nnx.Embed"),
        ("ReLU", "nnx.relu"),
        ("compact", "__init__"),
    ):
        assert code in PUBLIC[name]
    with pytest.raises(ImportError, match=r"^cannot import name 'Lineer' from 'weft' \("):
        from weft import Lineer  # type: ignore[attr-defined]  # noqa: F401
    with pytest.raises(ImportError, match=r"name 'Dense' from 'weft\.nn': it is `nnx\.Linear"):
        from weft.nn import Dense  # type: ignore[attr-defined]  # noqa: F401
    with pytest.raises(AttributeError, match=r"^module 'weft' has no attribute 'Lineer'$"):
        nnx.Lineer  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize("name", MODULE)
def test_attributes_of_modules(name: str) -> None:
    model = Model()
    with pytest.raises(AttributeError) as caught:
        getattr(model, name)
    assert str(caught.value) == f"'Model' object has no attribute '{name}': {MODULE[name]}"
    assert (caught.value.name, caught.value.obj) == (name, model)
    assert not hasattr(model, name) and not hasattr(Model, name)
    assert name not in dir(model) and "sow" in dir(model) and "w" in dir(model)
    setattr(model, name, 3)
    assert getattr(model, name) == 3 and name in dir(model)
    assert getattr(nnx.merge(*nnx.split(copy.deepcopy(model))), name) == 3
    with pytest.raises(AttributeError, match=f"type object 'Model' has no attribute '{name}': "):
        getattr(Model, name)


@pytest.mark.parametrize("name", OPTIMIZER)
def test_attributes_of_optimizers(name: str) -> None:
    optimizer = nnx.Optimizer(Model(), optax.sgd(0.1), wrt=nnx.Param)
    with pytest.raises(AttributeError, match=re.escape(OPTIMIZER[name])):
        getattr(optimizer, name)


@pytest.mark.parametrize("name", SEQUENTIAL)
def test_attributes_of_a_sequential(name: str) -> None:
    with pytest.raises(AttributeError, match=re.escape(f"'{name}': {SEQUENTIAL[name]}")):
        getattr(nnx.Sequential(nnx.relu), name)


def test_python_suggests_names_that_are_nearly_the_same() -> None:
    with pytest.raises(AttributeError) as caught:
        nnx.relu7  # type: ignore[attr-defined]  # noqa: B018
    assert (caught.value.name, caught.value.obj) == ("relu7", nnx)
    with pytest.raises(AttributeError) as caught:
        nnx.nn.Lineer  # type: ignore[attr-defined]  # noqa: B018
    assert (caught.value.name, caught.value.obj) == ("Lineer", nnx.nn)


def test_a_step_of_an_optimizer_is_no_call() -> None:
    optimizer = nnx.Optimizer(Model(), optax.sgd(0.1), wrt=nnx.Param)
    with pytest.raises(TypeError, match=r"a step is `optimizer\.update\(model, grads\)`"):
        optimizer.step()


@pytest.mark.parametrize("name", VARIABLE)
def test_attributes_of_variables(name: str) -> None:
    variable = nnx.Param(1.0)
    with pytest.raises(AttributeError, match=re.escape(VARIABLE[name])):
        getattr(variable, name)
    assert getattr(nnx.Param(1.0, **{name: "metadata"}), name) == "metadata"


def test_a_hint_stands_behind_all_that_users_define() -> None:
    class Mixin:
        kind = "mixin"

        def forward(self) -> str:
            return f"{self.kind} forward"

        @classmethod
        def init(cls) -> str:
            return cls.__name__

        @property
        def params(self) -> str:
            return "all"

    class Own(nnx.Module, Mixin):
        def apply(self) -> str:
            return "own"

    model = Own()
    assert (model.forward(), model.apply(), model.params) == ("mixin forward", "own", "all")
    assert model.init() == Own.init() == "Own" and inspect.ismethod(model.forward)

    class Dynamic(nnx.Module):
        def __getattr__(self, name: str) -> str:
            if name.startswith("_"):
                raise AttributeError(name)
            return f"made {name}"

    assert Dynamic().forward == "made forward"

    @nnx.dataclass
    class Fields(nnx.Module):
        weight: nnx.Param
        params: int

    assert Fields(nnx.Param(1.0), 2).params == 2
    with pytest.raises(TypeError, match="missing 2 required positional arguments"):
        Fields()  # type: ignore[call-arg]
    heads = nnx.Dict(params=1)
    assert heads.params == 1
    with pytest.raises(AttributeError, match="no attribute or key 'forward'"):
        heads.forward  # noqa: B018


def test_what_is_wrong_in_a_property_is_told() -> None:
    class Broken(nnx.Module):
        @property
        def forward(self) -> Any:
            return self.missing  # type: ignore[attr-defined]

    with pytest.raises(AttributeError, match="'Broken' object has no attribute 'missing'"):
        Broken().forward  # noqa: B018


def test_reading_an_attribute_that_is_there_runs_no_python() -> None:
    """A `__getattr__` on the class would slow down every attribute of every model."""

    def bases() -> Iterator[type]:
        yield from (nnx.Module, nnx.Pytree, nnx.Optimizer, nnx.Linear)

    assert not any(hasattr(base, "__getattr__") for base in bases())
    assert "not here: " in repr(vars(nnx.Module)["forward"])
    assert all(isinstance(vars(nnx.Module)[name], Hint) for name in MODULE)


@pytest.mark.parametrize("name", BRIDGE)
def test_names_of_the_bridge(name):
    found = re.escape(f"module 'weft.bridge' has no attribute '{name}': {BRIDGE[name]}")
    with pytest.raises(AttributeError, match=found):
        getattr(nnx.bridge, name)
    with pytest.raises(AttributeError, match=r"module 'weft\.bridge' has no attribute 'nope'$"):
        nnx.bridge.nope  # noqa: B018
