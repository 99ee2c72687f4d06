"""Names that PyTorch would have for the weights of a model."""

from typing import ClassVar

import jax.numpy as jnp
import pytest

import weft as nnx
from weft.tools.weights.layout import Layout, join

from .models import net


def test_names():
    layout = Layout(net())
    wanted = {name for name, x in layout.entries.items() if x.slots[0].key in layout.wanted}
    assert wanted == {
        *[f"blocks.{i}.{x}" for i in (0, 1) for x in ("up.weight", "up.bias")],
        *[f"blocks.{i}.{x}" for i in (0, 1) for x in ("norm.weight", "norm.bias")],
        *["heads.0.weight", "heads.0.bias", "tied.weight", "tied.bias", "scale"],
        *["body.1.weight", "body.1.bias", "body.1.running_mean", "body.1.running_var"],
    }
    assert layout.ignored == {"body.1.num_batches_tracked"}


def test_slots_of_a_stack():
    layout = Layout(net())
    slot = layout.slots["blocks", 1, "up", "kernel"]
    assert str(slot) == "blocks[1].up.kernel" and slot.shape == (2, 3) and slot.index == (1,)
    assert slot.leaf == ("blocks", "stacked", "up", "kernel")
    assert slot.form == nnx.Into("kernel", axes=(1, 0))


def test_slots_of_a_stack_in_a_stack():
    def inner(rngs):
        return nnx.Stack(lambda rngs: nnx.Linear(2, 2, rngs=rngs), 3, rngs=rngs)

    layout = Layout({"a": nnx.Stack(inner, 2, rngs=nnx.Rngs(0))})
    slot = layout.slots["a", 1, 2, "kernel"]
    assert slot.index == (1, 2) and slot.shape == (2, 2)
    assert slot.leaf == ("a", "stacked", "stacked", "kernel")


def test_what_is_shared_is_one_by_all_its_addresses():
    layout = Layout(net())
    assert layout.slots["tied", "kernel"].key == layout.slots["heads", 0, "kernel"].key
    model = net()
    model.first = model.heads[0].kernel  # by the order of names the Variable is met here
    layout = Layout(model)
    assert layout.slots["first",].form is None
    assert layout.slots["tied", "kernel"].form == layout.slots["heads", 0, "kernel"].form


def test_a_cycle_ends():
    model = net()
    model.heads.append(model)
    assert ("heads", 1) not in Layout(model).nodes


def test_entries_at_addresses():
    layout = Layout({"lstm": nnx.RNN(nnx.OptimizedLSTMCell(2, 3, rngs=nnx.Rngs(0)))})
    entry = layout.entry_at(("lstm",), "bias_ih_l0")
    assert entry.names == ("lstm.bias_ih_l0", "lstm.bias_hh_l0")
    assert entry.slots == layout.entry_at(("lstm", "cell", "bias_hh")).slots
    assert layout.entry_at(("lstm", "cell", "dense_h", "bias")).into is None
    assert layout.entry_at(("lstm", "cell", "dense_h", "bias"), "x") is None
    assert layout.entry_at(("lstm", "other")) is None
    assert layout.below("lstm.cell")[:2] == ["weight_ih", "weight_hh"]
    assert join("a", "", 0) == "a.0"


def test_layers_of_users_declare_theirs():
    class Scale(nnx.Module):
        torch_weights: ClassVar = {"gamma": "scale", "beta": "bias", "steps": None}

        def __init__(self, bias):
            self.scale = nnx.Param(jnp.ones(2))
            self.bias = nnx.Param(jnp.ones(2)) if bias else None

    layout = Layout([Scale(True), Scale(False)])
    assert list(layout.entries) == ["0.beta", "0.gamma", "1.gamma"]
    assert layout.ignored == {"0.steps", "1.steps"}


def test_a_declaration_of_what_is_not_there():
    class Odd(nnx.Module):
        torch_weights: ClassVar = {"weight": "kernal"}

        def __init__(self):
            self.kernel = nnx.Param(jnp.ones(2))

    with pytest.raises(
        nnx.StructureError, match=r"Odd.torch_weights has 'weight' for kernal, and there is no kern"
    ):
        Layout(Odd())
