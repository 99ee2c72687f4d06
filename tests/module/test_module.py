"""Modules: training and evaluation, `sow`, `perturb`, going over children."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest

import weft as nnx


class Block(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.linear = nnx.Linear(2, 2, rngs=rngs)
        self.norm = nnx.BatchNorm(2, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        x = self.linear(x)
        self.sow(nnx.Intermediate, "activation", x)
        return self.perturb("noise", x)


class Model(nnx.Module):
    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.blocks = [Block(rngs), Block(rngs)]
        self.head = nnx.Linear(2, 1, rngs=rngs)
        self.tied = self.head
        self.rate = 0.5


def test_train_and_eval() -> None:
    model = Model()
    model.eval()
    assert all(b.drop.deterministic and b.norm.use_running_average for b in model.blocks)
    model.train(rate=0.1)
    assert not any(b.drop.deterministic or b.norm.use_running_average for b in model.blocks)
    assert model.rate == 0.1
    model.eval(rate=0.2)
    assert model.rate == 0.2


def test_set_attributes() -> None:
    model = Model()
    model.set_attributes(nnx.Dropout, deterministic=True)
    assert model.blocks[1].drop.deterministic
    model.set_attributes(nnx.PathContains(0), nnx.BatchNorm, momentum=0.5)
    assert model.blocks[0].norm.momentum == 0.5
    model.set_attributes(nnx.PathContains(0), momentum=0.25)
    assert [block.norm.momentum for block in model.blocks] == [0.25, 0.5]


def test_attributes_that_nobody_has() -> None:
    model = Model()
    found = r"no selected Module in Model has an attribute named 'other', 'rat'; set it in __init__"
    with pytest.raises(ValueError, match=f"{found}.*`raise_if_not_found=False`"):
        model.set_attributes(rat=0.1, other=1, deterministic=True)
    assert not model.blocks[0].drop.deterministic
    model.set_attributes(rat=0.1, raise_if_not_found=False)
    with pytest.raises(ValueError, match="'deterministic'"):
        model.set_attributes(nnx.Linear, deterministic=True)
    with pytest.raises(nnx.SharedReferenceError):
        model.set_attributes(rate=0.1, graph=False)


def test_sow_collects() -> None:
    block = Block(nnx.Rngs(0))
    x = jnp.ones((1, 2))
    block(x)
    block(x + 1.0)
    assert isinstance(block.activation, nnx.Intermediate)
    assert len(block.activation.value) == 2
    popped = nnx.pop(block, nnx.OfType(nnx.Intermediate))
    assert [path for path, _ in nnx.to_flat_state(popped)] == [("activation",), ("noise",)]
    assert not hasattr(block, "activation")


def test_sow_reduces() -> None:
    model = nnx.Module()
    for value in (1.0, 2.0):
        kept = model.sow(nnx.Cache, "total", value, lambda a, b: a + b, lambda: 10.0)
        assert kept is True
    assert type(model.total) is nnx.Cache
    assert model.total.value == 13.0


def test_sow_by_collection_name() -> None:
    model = nnx.Module()
    model.sow("intermediates", "a", 1.0)
    assert type(model.a) is nnx.Intermediate
    with pytest.raises(ValueError, match="no Variable type has the collection name 'unknown'"):
        model.sow("unknown", "a", 1.0)


def test_sow_over_something_else() -> None:
    model = Model()
    found = r"cannot sow into Model\.rate: expected a Intermediate, found a float.*'rate_sown'"
    with pytest.raises(ValueError, match=found):
        model.sow(nnx.Intermediate, "rate", 1.0)


def test_sow_inside_transforms() -> None:
    block = Block(nnx.Rngs(0))
    x = jnp.ones((1, 2))

    @nnx.jit
    def forward(block: Block, x: Any) -> Any:
        y = block(x)
        return y, nnx.pop(block, nnx.Intermediate)

    y, state = forward(block, x)
    assert not hasattr(block, "activation")
    assert (state["activation"].value[0] == y).all()
    nnx.jit(lambda b, x: b(x))(block, x)
    assert (block.activation.value[0] == y).all()


def test_perturb_gives_the_gradient_of_an_intermediate() -> None:
    block = Block(nnx.Rngs(0))
    x = jnp.ones((1, 2))
    assert (block(x) == block.linear(x)).all()
    assert block.noise[...].tolist() == [[0.0, 0.0]]
    nnx.pop(block, lambda path, v: type(v) is nnx.Intermediate)
    grads = nnx.grad(lambda m: (m(x) ** 2).sum(), argnums=nnx.DiffState(0, nnx.Perturbation))(block)
    assert list(grads) == ["noise"]
    assert jnp.allclose(grads.noise[...], 2 * block.linear(x))


def test_perturb_of_a_pytree_and_by_name() -> None:
    model = nnx.Module()
    value = {"a": jnp.ones(2), "b": jnp.zeros(())}
    out = model.perturb("noise", value, "perturbations")
    assert jax.tree.structure(out) == jax.tree.structure(value)
    assert type(model.noise) is nnx.Perturbation


def test_perturb_over_something_else() -> None:
    model = Model()
    found = r"cannot perturb through Model\.rate: expected a Perturbation, found a float"
    with pytest.raises(ValueError, match=found):
        model.perturb("rate", jnp.ones(1))


def test_going_over_modules() -> None:
    model = Model()
    paths = [path for path, _ in model.iter_modules()]
    assert paths[-1] == ()
    assert paths.index(("blocks", 0, "linear")) < paths.index(("blocks", 0))
    assert ("tied",) not in paths
    assert dict(model.iter_modules())[("head",)] is model.head
    assert dict(model.iter_children()) == {"head": model.head}
    assert [key for key, _ in model.blocks[0].iter_children()] == ["drop", "linear", "norm"]


def test_two_captures_do_not_share_their_start() -> None:
    a, b = nnx.Module(), nnx.Module()
    a.sow(nnx.Intermediate, "x", 1.0)
    b.sow(nnx.Intermediate, "x", 2.0)
    assert (a.x.value, b.x.value) == ((1.0,), (2.0,))
