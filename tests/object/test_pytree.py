"""Objects: attributes, the trace guard, copies, and JAX's view of them."""

from __future__ import annotations

import collections
import copy
import pickle
import re
import weakref
from typing import Any

import cloudpickle
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx
from tests.object.boxes import Box, leaf_paths
from tests.object.objects import Marked

# -- attributes


def test_data_or_static_by_what_is_held_when_walked() -> None:
    box = Box(x=None)
    assert leaf_paths(box) == []
    box.x = jnp.ones(2)
    assert leaf_paths(box) == [".x"]
    box.x = [1, {"a": nnx.Param(1.0)}]
    assert leaf_paths(box) == [".x[1]['a'].value"]
    box.x.append(jnp.ones(1))
    assert leaf_paths(box) == [".x[1]['a'].value", ".x[2]"]
    box.x = "text"
    assert leaf_paths(box) == []


def test_attributes_are_sorted_by_name() -> None:
    box = Box(b=jnp.ones(1), a=jnp.zeros(1), c=1)
    assert leaf_paths(box) == [".a", ".b"]
    assert nnx.graphdef(box) == nnx.graphdef(Box(c=1, a=jnp.ones(1), b=jnp.ones(1)))


def test_objects_hash_and_compare_by_identity() -> None:
    a, b = Box(), Box()
    assert a == a
    assert a != b
    assert {a: 1}[a] == 1
    assert weakref.ref(a)() is a


def test_a_set_of_data_is_refused_by_name() -> None:
    found = re.escape(
        "Box.x is a set that holds arrays, Variables or Modules: a set has no order, so its "
        "elements cannot be told apart. Use a list, `Box.x = list(...)`, or a dict"
    )
    for held in ({Box()}, frozenset({Box()})):
        for use in (jax.tree.leaves, nnx.split, nnx.clone):
            with pytest.raises(nnx.StructureError, match=found):
                use(Box(x=held))
    with pytest.raises(nnx.StructureError, match=r"Box\.x\[0\]\.a is a set"):
        nnx.split(Box(x=[{"a": {Box()}}]))


def test_sets_without_data_beside_data() -> None:
    box = Box(x=[jnp.ones(2), {1, 2}, frozenset({3})])
    assert leaf_paths(box) == [".x[0]"]
    copied = jax.tree.map(lambda x: x * 2, box)
    assert copied.x[1:] == [{1, 2}, frozenset({3})]
    assert nnx.clone(box).x[1] == {1, 2}


def test_check_pytree() -> None:
    nnx.check_pytree(Box(x=nnx.static(1), y=jnp.ones(1)))
    found = re.escape(
        "Box.x is marked static but holds arrays, Variables or Modules, which transforms will not "
        "see. Remove the mark: `Box.x = value`"
    )
    with pytest.raises(nnx.StructureError, match=found):
        nnx.check_pytree(Box(x=nnx.static([jnp.ones(1)])))


# -- the trace guard


def test_changing_a_captured_object() -> None:
    box = Box(x=1)
    for where, change in (("x", lambda: setattr(box, "x", 2)), ("x", lambda: delattr(box, "x"))):
        found = rf"cannot change Box\.{where} from inside a JAX transformation .*`nnx\.jit\(f\)\("
        with pytest.raises(nnx.TraceContextError, match=found):
            jax.jit(lambda y, change=change: change())(1.0)
    assert box.x == 1


def test_an_object_made_inside_may_be_changed_there() -> None:
    @jax.jit
    def f(x: Any) -> Any:
        box = Box(x=x)
        box.y = box.x + 1.0
        del box.x
        return box

    assert float(f(1.0).y) == 2.0


# -- copies


@pytest.mark.parametrize(
    "through",
    [
        copy.deepcopy,
        lambda x: pickle.loads(pickle.dumps(x)),
        lambda x: pickle.loads(cloudpickle.dumps(x)),
    ],
    ids=["deepcopy", "pickle", "cloudpickle"],
)
def test_deep_copies_keep_sharing_cycles_and_marks(through: Any) -> None:
    shared = nnx.Param(jnp.ones(2), tag="x")
    box = Marked()
    box.a = box.b = shared  # type: ignore[attr-defined]
    box.me = [box]  # type: ignore[attr-defined]
    box.late = nnx.data(1.0)  # type: ignore[attr-defined]
    new = through(box)
    assert new is not box
    assert new.a is new.b
    assert new.a is not shared
    assert new.a.tag == "x"
    assert new.me[0] is new
    assert new._pytree_marks == box._pytree_marks
    assert nnx.graphdef(new) == nnx.graphdef(box)
    new.a[...] = jnp.zeros(2)
    assert shared[...].tolist() == [1.0, 1.0]


def test_a_shallow_copy_shares_what_is_in_it() -> None:
    box = Box(w=nnx.Param(1.0), items=[1])
    new = copy.copy(box)
    assert new.w is box.w
    assert new.items is box.items
    new.extra = nnx.data(1)
    assert not hasattr(box, "extra")
    assert box._pytree_marks == {}


# -- JAX's view


def test_a_class_may_opt_out() -> None:
    class Hidden(nnx.Pytree, pytree=False):
        pass

    class Handle(nnx.Object):
        pass

    for kind in (Hidden, Handle):
        value = kind()
        value.w = nnx.Param(1.0)
        assert jax.tree.leaves(value)[0] is value
        assert nnx.state(value).w is value.w
    outer = Box(h=Handle())
    outer.h.w = nnx.Param(jnp.ones(2))
    nnx.jit(lambda m: m.h.w.set_value(m.h.w + 1.0))(outer)
    assert outer.h.w[...].tolist() == [2.0, 2.0]


def test_static_leaves_in_containers_survive() -> None:
    box = Box(
        x=[jnp.ones(1), "text", None, {"f": jnp.sin, "w": nnx.Param(1.0)}],
        y=(1, jnp.ones(1)),
        z=collections.OrderedDict(b=jnp.ones(1), a=2),
    )
    leaves, treedef = jax.tree.flatten(box)
    assert len(leaves) == 4
    new = jax.tree.unflatten(treedef, leaves)
    assert new.x[1:3] == ["text", None]
    assert new.x[3]["f"] is jnp.sin
    assert new.y[0] == 1
    assert list(new.z.items())[1] == ("a", 2)
    assert hash(treedef) == hash(jax.tree.structure(box))


def test_leaves_may_be_anything() -> None:
    box = Box(w=nnx.Param(jnp.ones(1)), x=[jnp.ones(1)])
    shapes = jax.tree.map(lambda x: x.shape, box)
    assert shapes.w.value == (1,)
    assert shapes.x == [(1,)]
    nothing = jax.tree.map(lambda x: None, box)
    assert nothing.w.value is None
    assert jax.tree.transpose(
        jax.tree.structure(box), jax.tree.structure([0, 0]), jax.tree.map(lambda x: [x, x], box)
    )[1].x[0].shape == (1,)


# -- Variables that are lost


def test_an_array_in_the_place_of_a_variable_warns_once() -> None:
    class Layer(nnx.Module):
        def __init__(self) -> None:
            self.kernel = nnx.Param(jnp.ones(2))

    found = r"place of a Param: `model\.kernel` of a Layer.*`model\.kernel\[\.\.\.\] = array`"
    layer = Layer()
    with pytest.warns(UserWarning, match=found) as seen:
        layer.kernel = jnp.zeros(2)
    assert seen[0].filename == __file__
    again = Layer()
    again.kernel = np.zeros(2)  # said once
    del layer.kernel
    layer.kernel = jnp.zeros(2)


def test_items_that_are_lost_warn_too() -> None:
    class Own(nnx.Param):
        pass

    heads = nnx.Dict(a=Own(1.0))
    with pytest.warns(UserWarning, match=r"place of a Own: `model\.a` of a Dict.*`model.a = Own\("):
        heads.a = jnp.ones(())
    layers = nnx.List([nnx.BatchStat(1.0)])
    with pytest.warns(UserWarning, match=r"`model\[0\]` of a List.*= nnx\.BatchStat\(array\)"):
        layers[0] = jnp.ones(())


def test_what_keeps_the_variable_or_is_no_array_warns_of_nothing() -> None:
    class Quiet(nnx.Module):
        pass

    model = Quiet()
    model.w = nnx.Param(jnp.ones(2))
    for value in (nnx.Param(jnp.ones(2)), None, "text", jnp.ones(2), jnp.zeros(2)):
        model.w = value
    model.w = nnx.Param(jnp.ones(2))
    model.w += 1
    model.w[...] = jnp.zeros(2)
    model.v = nnx.Param(1.0)
    model.v = nnx.data(jnp.ones(2))
    nnx.Dict(v=nnx.Param(1.0)).v = nnx.data(jnp.ones(2))


def test_arguments_that_nobody_takes() -> None:
    class Fields(nnx.Module):
        features: int

    for make in (lambda: Fields(3), lambda: Fields(features=3)):  # type: ignore[call-arg]
        with pytest.raises(TypeError, match=r"^Fields\(\) takes no arguments: .*`@nnx\.dataclass`"):
            make()
    assert isinstance(Fields(), Fields)

    class Made(nnx.Module):
        def __new__(cls, size: int) -> Any:
            made = super().__new__(cls, size)
            made.size = size
            return made

    assert Made(3).size == 3 and copy.deepcopy(Made(3)).size == 3
