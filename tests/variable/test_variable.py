"""Variables: every spelling of access, hooks, metadata, copies, the trace guard, pickling."""

from __future__ import annotations

import copy
import pickle
import re
import warnings
from collections.abc import Callable
from typing import Any

import cloudpickle
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import weft as nnx
from tests.devices import devices
from weft._variable.storage import make

KEY = jax.random.key(3)
FLAVOURS: dict[str, Any] = {
    "array": jnp.arange(3.0),
    "scalar array": jnp.ones(()),
    "numpy": np.arange(3.0, dtype=np.float32),
    "python": 2.5,
    "key": KEY,
    "abstract": jax.ShapeDtypeStruct((2,), jnp.float32),
    "dict": {"a": jnp.ones(2)},
    "tuple": (jnp.ones(2), 1),
    "none": None,
}


class Loss(nnx.Variable):
    """A user's own type, with attributes of a class without `__slots__`."""


# -- access


@pytest.mark.parametrize("kind", [nnx.Variable, nnx.Param, nnx.BatchStat, nnx.RngState, Loss])
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_all_spellings_agree(kind: type[nnx.Variable], flavour: str) -> None:
    value = FLAVOURS[flavour]
    variable = kind(value)
    for read in (
        variable.value,
        variable.get_value(),
        variable.get_raw_value(),
        variable.raw_value,
        variable.get_value(index=...) if flavour != "numpy" else value,
    ):
        assert read is value
    assert variable.type is variable.var_type is kind
    other = "another value"
    writes = [
        lambda v: v.set_value(other),
        lambda v: v.set_raw_value(other),
        lambda v: setattr(v, "value", other),
    ]
    for write in writes:
        variable = kind(value)
        write(variable)
        assert variable.value is other


def test_whole_value_by_ellipsis() -> None:
    for value in (jnp.arange(3.0), KEY, {"a": 1}, 2.5):
        variable = nnx.Variable(value)
        assert variable[...] is value
    variable[...] = "new"
    assert variable.value == "new"
    np.testing.assert_array_equal(nnx.Variable(np.arange(2))[...], np.arange(2))


def test_writing_all_of_an_array() -> None:
    variable = nnx.Param(jnp.zeros(3))
    new = jnp.ones(3)
    variable[...] = new
    assert variable.value is new
    variable[...] = 2.0
    np.testing.assert_array_equal(variable[...], [2.0, 2.0, 2.0])
    variable[...] = jnp.ones(3, jnp.bfloat16)
    assert variable.dtype == jnp.float32
    with pytest.raises(ValueError, match=r"float32\[4\]"):
        variable[...] = jnp.ones(4)
    variable.value = jnp.ones(4)
    assert variable.shape == (4,)


def test_items() -> None:
    variable = nnx.Param(jnp.zeros((2, 2)))
    variable[0, 1] = 3.0
    variable[1] = jnp.ones(2)
    np.testing.assert_array_equal(variable[...], [[0.0, 3.0], [1.0, 1.0]])
    np.testing.assert_array_equal(variable[:, 1], [3.0, 1.0])
    assert variable[None].shape == (1, 2, 2)
    numbers = nnx.Variable(np.zeros(2))
    before = numbers.value
    numbers[0] = 1.0
    assert numbers.value.tolist() == [1.0, 0.0]
    assert before.tolist() == [0.0, 0.0]
    tree = nnx.Variable({"a": 1, "b": 2})
    held = tree.value
    tree["a"] = 5
    del tree["b"]
    assert tree.value == {"a": 5}
    assert held == {"a": 1, "b": 2}
    assert "a" in tree


def test_writing_a_variable_takes_its_value() -> None:
    a, b = nnx.Param(jnp.zeros(2)), nnx.Param(jnp.ones(2))
    a.value = b
    assert a.value is b.value
    a[0] = nnx.Param(jnp.array(5.0))
    np.testing.assert_array_equal(a[...], [5.0, 1.0])
    assert nnx.Param(b).value is b.value
    assert type(nnx.BatchStat(b)) is nnx.BatchStat


def test_attributes_of_the_value() -> None:
    variable = nnx.Param(jnp.ones((2, 3)), tag="x")
    assert variable.shape == (2, 3)
    assert variable.ndim == 2
    assert variable.T.shape == (3, 2)
    np.testing.assert_array_equal(variable.at[0, 0].set(5.0)[0], [5.0, 1.0, 1.0])
    assert variable.astype(jnp.bfloat16).dtype == jnp.bfloat16
    assert variable.tag == "x"
    assert nnx.Variable({"a": 1}).items() == {"a": 1}.items()


def test_a_missing_attribute_is_no_silent_proxy() -> None:
    variable = nnx.Param(jnp.ones(2), tag="x")
    found = re.escape(
        "Param has no attribute or metadata 'shap', nor has its value of type ArrayImpl; its "
        "metadata is ['tag']"
    )
    with pytest.raises(AttributeError, match=found):
        _ = variable.shap
    with pytest.raises(AttributeError, match="Param has no attribute '_hidden'"):
        _ = variable._hidden
    with pytest.raises(AttributeError, match="__missing__"):
        _ = variable.__missing__


def test_attributes_cannot_be_set() -> None:
    variable = nnx.Param(jnp.ones(2))
    found = re.escape("write the value with `v[...] = x` and metadata with `v.set_metadata(tag=x)`")
    with pytest.raises(AttributeError, match=rf"cannot set attribute 'tag' of a Param: {found}"):
        variable.tag = 1
    with pytest.raises(
        AttributeError, match=r"cannot delete attribute 'tag' of a Param: .*del_met"
    ):
        del variable.tag


def test_reference_flags_are_off() -> None:
    variable = nnx.Param(1.0)
    assert (variable.hijax, variable.ref) == (False, False)


# -- metadata


def test_metadata() -> None:
    variable = nnx.Param(1.0, tag="a", count=1)
    assert variable.get_metadata() == {"tag": "a", "count": 1}
    variable.get_metadata()["tag"] = "copy"
    assert variable.get_metadata("tag") == "a"
    assert variable.get_metadata("missing", 7) == 7
    variable.set_metadata("tag", "b")
    variable.set_metadata(other=True)
    assert variable.get_metadata() == {"tag": "b", "count": 1, "other": True}
    assert variable.has_metadata("other")
    variable.del_metadata("other")
    assert not variable.has_metadata("other")
    variable.set_metadata({"only": 1})
    assert variable.get_metadata(exclude_required=True) == {"only": 1}


def test_metadata_errors() -> None:
    variable = nnx.Param(1.0, tag="a")
    for ask in (variable.get_metadata, variable.del_metadata):
        with pytest.raises(KeyError, match=r"Param has no metadata 'name'; it has \['tag'\]"):
            ask("name")
    for arguments, keywords in ((("tag",), {}), ((1, 2, 3), {}), (("tag", 1), {"x": 1})):
        with pytest.raises(TypeError, match=r"one dict, a name and a value, or keywords: `v\.set"):
            variable.set_metadata(*arguments, **keywords)
    found = r"older names of `out_sharding`: found \('a',\) under one of them and \('b',\) under"
    with pytest.raises(ValueError, match=found):
        nnx.Param(1.0, sharding=("a",), out_sharding=("b",))
    for same in (("a", None), ["a", None], jax.P("a", None)):
        nnx.Param(jnp.ones((1, 1)), sharding=same, out_sharding=("a", None))
    assert variable.get_metadata() == {"tag": "a"}


def test_older_names_of_the_sharding() -> None:
    variable = nnx.Param(1.0, sharding=("a", None), eager_sharding=False)
    for name in ("sharding", "out_sharding", "sharding_names"):
        assert variable.get_metadata(name) == ("a", None)
        assert variable.has_metadata(name)
    assert variable.out_sharding == variable.sharding_names == ("a", None)
    variable.set_metadata(sharding=("b",))
    assert variable.out_sharding == ("b",)
    assert variable.replace(sharding_names=("c",)).out_sharding == ("c",)
    variable.del_metadata("sharding")
    assert variable.sharding_names is None
    names = dict.fromkeys(("out_sharding", "sharding_names", "sharding"), ("a", "b"))
    assert variable.replace(**names).get_metadata() == {
        "eager_sharding": False,
        "out_sharding": ("a", "b"),
    }
    table = jnp.ones(3)  # values under one name are not compared
    assert nnx.Param(1.0, table=table).table is table


def test_axis_names() -> None:
    variable = nnx.Param(1.0, out_sharding=("a", "b"), eager_sharding=False)
    variable.add_axis(1, "new")
    assert variable.out_sharding == ("a", "new", "b")
    variable.remove_axis(1, "new")
    variable.add_axis(-1, "last")
    assert variable.out_sharding == ("a", "b", "last")
    variable.remove_axis(-1, "last")
    variable.add_axis(3, "far")
    assert variable.out_sharding == ("a", "b", None, "far")
    spec = variable.replace(out_sharding=PartitionSpec("a"))
    spec.add_axis(0, None)
    assert spec.out_sharding == PartitionSpec(None, "a")
    found = re.escape("Param has axis 'a' at 0, expected 'x'; its out_sharding is ('a', 'b', None")
    with pytest.raises(ValueError, match=found):
        variable.remove_axis(0, "x")
    assert variable.out_sharding == ("a", "b", None, "far")


def test_axis_names_where_there_are_none() -> None:
    bare = nnx.Param(jnp.ones(2))
    bare.add_axis(0, "x")
    bare.remove_axis(0, "x")
    assert bare.get_metadata() == {}
    for index in (0, 1, -1, 3):
        empty = nnx.Param(jnp.ones(2)).replace(out_sharding=())
        empty.remove_axis(index, "x")
        assert empty.out_sharding == ()
    short = nnx.Param(jnp.ones((2, 2))).replace(out_sharding=("a",))
    short.remove_axis(1, None)
    assert short.out_sharding == ("a",)


def test_an_array_keeps_the_sharding_it_has() -> None:
    mesh = Mesh(np.array(devices(2)), ("data",))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    variable = nnx.Param(jax.device_put(jnp.ones(4), sharding))
    assert variable.sharding == sharding
    assert variable.value.sharding == sharding
    assert nnx.clone({"v": variable})["v"].sharding == sharding


# -- hooks


class Clipped(nnx.Variable):
    def on_set_value(self, value: Any) -> Any:
        return jnp.clip(value, 0.0, 1.0)

    def on_get_value(self, value: Any) -> Any:
        return value * 10.0

    def create_value(self, value: Any) -> Any:
        return value + 1.0


def test_hooks_of_a_type() -> None:
    variable = Clipped(jnp.zeros(2))
    assert variable.get_raw_value().tolist() == [1.0, 1.0]
    assert variable.value.tolist() == [10.0, 10.0]
    variable.value = jnp.full(2, 5.0)
    assert variable.get_raw_value().tolist() == [1.0, 1.0]
    variable.set_raw_value(jnp.full(2, 5.0))
    assert variable[...].tolist() == [50.0, 50.0]


def test_hooks_in_metadata() -> None:
    calls = []

    def hook(name: str) -> Any:
        return lambda variable, value: calls.append((name, type(variable))) or value

    def axis_hook(variable: Any, index: int, name: str) -> None:
        calls.append((index, name))

    variable = nnx.Param(
        jnp.zeros(2),
        on_create_value=hook("create"),
        on_set_value=[hook("set"), hook("set again")],
        on_get_value=(hook("get"),),
        on_add_axis=axis_hook,
        on_remove_axis=(axis_hook,),
    )
    variable.value = jnp.ones(2)
    _ = variable.value
    variable.add_axis(1, "x")
    variable.remove_axis(1, "x")
    names = ["create", "set", "set again", "get"]
    assert calls == [*((name, nnx.Param) for name in names), (1, "x"), (1, "x")]
    calls.clear()
    variable.copy()
    nnx.merge(*nnx.split({"v": variable}))
    assert calls == []


# -- copies


def test_copy_and_replace() -> None:
    variable = nnx.Param(jnp.ones(2), tag="a")
    for spelling in (variable.copy, variable.replace, variable.to_state):
        new = spelling()
        assert (type(new), new.value, new.tag) == (nnx.Param, variable.value, "a")
        new.set_metadata(tag="b")
        assert variable.tag == "a"
        changed = spelling(jnp.zeros(3), tag="c", extra=1)
        assert changed.shape == (3,)
        assert changed.get_metadata() == {"tag": "c", "extra": 1}
    assert variable.copy(nnx.BatchStat(5.0)).value == 5.0
    assert variable.copy(None).value is None


def test_copy_from_and_update_from_state() -> None:
    a, b = nnx.Param(1.0, tag="a"), nnx.Param(2.0, tag="b")
    a.copy_from(b)
    assert (a.value, a.tag) == (2.0, "b")
    b.set_metadata(tag="c")
    assert a.tag == "b"
    with pytest.raises(ValueError, match="expected a Param to copy from, found a BatchStat"):
        a.copy_from(nnx.BatchStat(3.0))
    a.update_from_state(nnx.BatchStat(3.0))
    assert (a.value, a.get_metadata()) == (3.0, {})


def test_from_metadata() -> None:
    variable = nnx.Param.from_metadata(1.0, {"tag": "a"})
    assert (type(variable), variable.value, variable.tag) == (nnx.Param, 1.0, "a")


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("through", ["pickle", "cloudpickle", "deepcopy", "copy"])
def test_copies_by_the_standard_library(flavour: str, through: str) -> None:
    variable = nnx.Param(FLAVOURS[flavour], tag=("a", 1))
    make_copy: Any = {
        "pickle": lambda v: pickle.loads(pickle.dumps(v)),
        "cloudpickle": lambda v: pickle.loads(cloudpickle.dumps(v)),
        "deepcopy": copy.deepcopy,
        "copy": copy.copy,
    }[through]
    new = make_copy(variable)
    assert new is not variable
    assert type(new) is nnx.Param
    assert new.get_metadata() == {"tag": ("a", 1)}
    old_leaves, old_treedef = jax.tree.flatten(variable)
    new_leaves, new_treedef = jax.tree.flatten(new)
    assert new_treedef == old_treedef
    for old, leaf in zip(old_leaves, new_leaves, strict=True):
        if flavour == "key":
            assert (old == leaf).all()
            assert old.dtype == leaf.dtype
        elif flavour == "abstract":
            assert old == leaf
        else:
            np.testing.assert_array_equal(old, leaf)
    new.value = 0.0
    assert variable.value is FLAVOURS[flavour]


TRACES: dict[str, Callable[[Callable[..., Any]], Any]] = {
    "jit": lambda f: jax.jit(f)(jnp.ones(2)),
    "nnx.jit": lambda f: nnx.jit(f)(jnp.ones(2)),
    "grad": lambda f: jax.grad(lambda x: f(x).sum())(jnp.ones(2)),
    "vmap": lambda f: jax.vmap(f)(jnp.ones(2)),
    "eval_shape": lambda f: nnx.eval_shape(f, jnp.ones(2)),
    "nothing": lambda f: f(jnp.ones(2)),
}


@pytest.mark.parametrize("trace", TRACES)
@pytest.mark.parametrize("flavour", ["array", "key", "dict"])
def test_deep_copies_inside_a_trace(flavour: str, trace: str) -> None:
    outside = nnx.Variable(FLAVOURS[flavour])

    def f(x: Any) -> Any:
        leaf = jax.random.split(jax.random.key(0)) if flavour == "key" else x * 2
        inside = nnx.Variable({"a": leaf} if flavour == "dict" else leaf)
        for variable in (inside, outside):
            new = copy.deepcopy(variable)
            assert jax.tree.structure(new) == jax.tree.structure(variable)
            for a, b in zip(jax.tree.leaves(new), jax.tree.leaves(variable), strict=True):
                assert (a.shape, a.dtype) == (b.shape, b.dtype)
            new.value = None  # it belongs to the running trace
            assert variable.get_raw_value() is not None
        return x

    TRACES[trace](f)


def test_copies_keep_the_values_of_keys_inside_a_trace() -> None:
    stream = nnx.Rngs(3).default

    @jax.jit
    def f(x: Any) -> Any:
        return copy.deepcopy(stream)() == nnx.clone(stream)()

    assert f(1.0)
    assert jax.random.key_data(pickle.loads(pickle.dumps(stream)).key.value).tolist() == [0, 3]


def test_a_reduce_of_the_user() -> None:
    assert copy.deepcopy(Constant(3.0)).value == 7.0
    assert pickle.loads(pickle.dumps(Constant(3.0))).value == 7.0


class Constant(nnx.Variable):
    def __reduce__(self) -> Any:
        return (Constant, (7.0,))


def test_weak_references_and_no_hash() -> None:
    import weakref

    variable = nnx.Param(1.0)
    assert weakref.ref(variable)() is variable
    with pytest.raises(TypeError, match="unhashable type: 'Param'"):
        hash(variable)


# -- pytree


def test_pytree() -> None:
    variable = nnx.Param({"a": jnp.ones(2)}, tag="x")
    ((path, leaf),) = jax.tree_util.tree_leaves_with_path(variable)
    assert jax.tree_util.keystr(path) == ".value['a']"
    assert leaf is variable.value["a"]
    doubled = jax.tree.map(lambda x: x * 2, variable)
    assert type(doubled) is nnx.Param
    assert doubled.tag == "x"
    doubled.set_metadata(tag="y")
    assert variable.tag == "x"
    structure = jax.tree.structure
    assert structure(variable) == structure(nnx.Param({"a": 0}, tag="x"))
    assert structure(variable) != structure(nnx.Param({"a": 0}, tag="y"))
    assert structure(variable) != structure(nnx.BatchStat({"a": 0}, tag="x"))


# -- the trace guard


def test_writing_from_another_trace() -> None:
    variable = nnx.Param(jnp.ones(2), out_sharding=(None,), eager_sharding=False)
    writes: dict[str, Any] = {
        "set_value": lambda: variable.set_value(jnp.zeros(2)),
        "set_raw_value": lambda: variable.set_raw_value(jnp.zeros(2)),
        "item": lambda: variable.__setitem__(0, 1.0),
        "in place": lambda: variable.__iadd__(1.0),
        "set_metadata": lambda: variable.set_metadata(a=1),
        "del_metadata": lambda: variable.del_metadata("out_sharding"),
        "update_from_state": lambda: variable.update_from_state(nnx.Param(1.0)),
        "copy_from": lambda: variable.copy_from(nnx.Param(1.0)),
        "add_axis": lambda: variable.add_axis(0, "x"),
    }
    before = variable.get_metadata()
    for write in writes.values():
        with pytest.raises(nnx.TraceContextError) as caught:
            jax.jit(lambda x, write=write: write())(1.0)
        text = str(caught.value)
        assert text.startswith("cannot write Param of shape (2,) (made at ")
        assert f"{__file__}:" in text
        assert "`nnx.jit(f)(model, x)`" in text
    assert variable.value.tolist() == [1.0, 1.0]
    assert variable.get_metadata() == before


def test_the_error_without_shape_and_origin() -> None:
    variable = make(nnx.Param, {"a": 1}, {})
    with pytest.raises(nnx.TraceContextError, match="cannot write Param from inside"):
        jax.jit(lambda x: variable.set_value(x))(1.0)


def test_a_variable_made_inside_may_be_written_there_only() -> None:
    leaked = []

    @jax.jit
    def f(x: Any) -> Any:
        inner = nnx.Param(x)
        inner[...] = inner[...] + 1.0
        leaked.append(inner)
        return inner[...]

    assert float(f(1.0)) == 2.0
    with pytest.raises(nnx.TraceContextError, match="cannot write Param"):
        leaked[0].value = 1.0


def test_a_captured_read_under_jit_warns_once() -> None:
    variable = nnx.Param(jnp.ones(2))

    def reads(x: Any) -> Any:
        return x + variable[...].sum()

    found = (
        r"Param of shape \(2,\) \(made at .*\) is read inside nnx\.jit of '.*reads' but is not an"
    )
    with pytest.warns(UserWarning, match=found) as caught:
        nnx.jit(reads)(1.0)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nnx.jit(reads)(jnp.ones(2))
        nnx.jit(lambda v, x: v[...] + nnx.Param(x)[...])(variable, 1.0)


# -- references and formats


def test_reference_modes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"hijax=True is not supported: .*leave out `hijax=`"):
        nnx.Param(1.0, hijax=True)
    with pytest.raises(ValueError, match="ref=True is not supported"):
        nnx.Variable(1.0, ref=True)


def test_a_reference_of_jax_is_refused() -> None:
    ref = jax.new_ref(jnp.ones(2))
    with pytest.raises(ValueError, match=r"Param holds a value .*`Param\(ref\[\.\.\.\]\)`"):
        nnx.Param(ref)
    assert nnx.Param(ref[...]).shape == (2,)


def test_a_scalar_is_formatted() -> None:
    for value in (3.14159, np.float32(3.14159), jnp.float32(3.14159), np.array(3.14159)):
        assert f"{nnx.Param(value):.3f}" == "3.142"
    assert f"{nnx.Variable(7):04d}" == "0007"
    assert f"{nnx.Variable('text'):>6}" == "  text"
    variable = nnx.Param(jnp.ones(2))
    assert f"{variable}" == str(variable) == repr(variable)
    with pytest.raises(TypeError, match="format"):
        f"{variable:.3f}"
    doubled = nnx.Param(jnp.float32(1.0), on_get_value=lambda v, x: x * 2)
    assert f"{doubled:.1f}" == "2.0"
