"""A part is a window on another Variable: nothing is kept in it."""

import gc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx
from weft._variable.part import check_apart, is_part, part_of, take_part


@pytest.fixture
def whole():
    return nnx.Param(jnp.arange(12.0).reshape(4, 3), out_sharding=("layers", "in"))


def test_reads_follow_the_whole(whole):
    part, several = part_of(whole, 1), part_of(whole, range(1, 3))
    assert part[...].tolist() == [3, 4, 5] and several.shape == (2, 3)
    whole[...] = whole * 2
    assert part.value.tolist() == part.get_raw_value().tolist() == [6, 8, 10]
    assert several[1].tolist() == [12, 14, 16]


WRITES = {
    "set_value": lambda v, x: v.set_value(x),
    "set_raw_value": lambda v, x: v.set_raw_value(x),
    "item": lambda v, x: v.__setitem__(..., x),
    "slice": lambda v, x: v.__setitem__(slice(None), x),
    "value": lambda v, x: setattr(v, "value", x),
    "copy_from": lambda v, x: v.copy_from(v.copy(x)),
    "update": lambda v, x: nnx.update(v, x),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_writes_reach_the_whole(whole, write):
    write(part_of(whole, 2), jnp.ones(3))
    assert whole[...].tolist() == [[0, 1, 2], [3, 4, 5], [1, 1, 1], [9, 10, 11]]


def test_hooks_see_the_part():
    whole = nnx.Param(jnp.ones((2, 3)), on_set_value=lambda v, x: x * v.value.sum())
    part_of(whole, 0)[...] = jnp.ones(3)
    assert whole[...].tolist() == [[3, 3, 3], [1, 1, 1]]


def test_a_place_has_one_part(whole):
    part = part_of(whole, 1)
    assert part_of(whole, 1) is part and part_of(part_of(whole, range(1, 4)), 0) is part
    assert type(part) is nnx.Param and is_part(part) and not is_part(whole)
    assert part.out_sharding == ("in",) and part_of(whole, range(2)).out_sharding[0] == "layers"
    whole.set_metadata(tag="new")
    assert part_of(whole, 1).tag == "new"
    del part
    gc.collect()
    other = nnx.Param(jnp.zeros((4, 3)))
    assert part_of(other, 1)[...].tolist() == [0, 0, 0]


def test_parts_of_parts(whole):
    backwards = part_of(whole, range(3, -1, -1))
    assert backwards[0].tolist() == [9, 10, 11]
    part_of(part_of(backwards, range(0, 4, 2)), 1)[...] = jnp.zeros(3)
    assert whole[1].tolist() == [0, 0, 0]
    cell = part_of(part_of(whole, 3), 2)
    cell[...] = 7.0
    assert whole[3, 2] == 7 and cell.out_sharding == ()


def test_specs_stay_specs():
    spec = jax.sharding.PartitionSpec
    with nnx.use_eager_sharding(False):
        whole = nnx.Param(jnp.ones((2, 3)), out_sharding=spec("layers", "in"))
    assert part_of(whole, 0).out_sharding == spec("in")


def test_trees_keys_and_numpy_arrays():
    tree = nnx.Variable({"a": jnp.zeros((2, 3)), "key": jax.random.split(jax.random.key(0), 2)})
    key = jax.random.key(5)
    part_of(tree, 1).set_value({"a": jnp.ones(3), "key": key})
    assert tree["a"][:, 0].tolist() == [0, 1] and bool(tree["key"][1] == key)
    array = np.zeros((2, 3), np.float32)
    kept = nnx.Variable(array)
    part_of(kept, 1).set_value(jnp.ones(3))
    assert kept.get_raw_value()[:, 0].tolist() == [0, 1] and not array.any()
    count = nnx.RngCount(jnp.zeros(2, jnp.uint32))
    part_of(count, 1).set_value(3)
    assert count[...].tolist() == [0, 3] and count.dtype == jnp.uint32


def test_abstract_values():
    whole = nnx.Param(jax.ShapeDtypeStruct((4, 3), jnp.float32))
    assert part_of(whole, range(1, 3)).shape == (2, 3)
    part = part_of(whole, 1)
    assert part[...] == jax.ShapeDtypeStruct((3,), jnp.float32)
    part.set_value(jax.ShapeDtypeStruct((3,), jnp.float32))
    assert whole[...] == jax.ShapeDtypeStruct((4, 3), jnp.float32)


def test_copies_are_no_parts(whole):
    part = part_of(whole, 1)
    for copied in (part.copy(), jax.tree.map(lambda x: x, part), nnx.clone(part)):
        assert not is_part(copied) and copied.out_sharding == ("in",)
        copied[...] = jnp.zeros(3)
    assert part[...].tolist() == [3, 4, 5]


def test_under_a_trace(whole):
    @nnx.jit
    def double(v):
        part_of(v, 1)[...] *= 2
        return part_of(v, 1)[...]

    assert double(whole).tolist() == [6, 8, 10] and whole[1].tolist() == [6, 8, 10]
    with pytest.raises(nnx.TraceContextError, match=r"cannot write Param of shape \(3,\)"):
        nnx.jit(lambda x: part_of(whole, 1).set_value(x))(jnp.ones(3))


def test_values_that_do_not_fit_are_refused(whole):
    part = part_of(whole, 1)
    message = (
        r"cannot write part \[1\] of a stacked Param: its value is f32\[3\], found f32\[4\]\. All"
    )
    with pytest.raises(nnx.StructureError, match=message):
        part.set_value(jnp.ones(4))
    with pytest.raises(nnx.StructureError, match=r"f32\[3\], found bf16\[3\]"):
        part.set_value(jnp.ones(3, jnp.bfloat16))
    with pytest.raises(nnx.StructureError, match=r"f32\[3\], found a float"):
        part.set_value(1.0)
    with pytest.raises(nnx.StructureError, match=r"the structure PyTreeDef\(\*\), found PyTreeDef"):
        part.set_value((jnp.ones(3),))
    with pytest.raises(
        nnx.StructureError, match=r"part \[1:3\] .* its metadata is .*, found .*tag"
    ):
        part_of(whole, range(1, 3)).set_metadata(tag="a")
    assert whole[1].tolist() == [3, 4, 5]


def test_parts_in_common_are_refused(whole):
    def check(*variables):
        check_apart((("arguments", i), v) for i, v in enumerate(variables))

    check(part_of(whole, 0), part_of(whole, 1), nnx.Param(jnp.ones(3)))
    check(part_of(whole, range(2)), part_of(whole, 2), part_of(whole, range(3, 4)))
    for variables in (
        (whole, part_of(whole, 0)),
        (part_of(whole, range(2)), part_of(whole, 1)),
        (part_of(whole, range(2)), part_of(whole, range(1, 4))),
        (part_of(whole, 1), part_of(part_of(whole, 1), 2)),
    ):
        with pytest.raises(
            nnx.AliasError, match=r"arguments\[0\].* have layers of a Stack in common"
        ):
            check(*variables)


def test_arrays_are_copied():
    array = jnp.arange(4.0)
    assert take_part(array, 1) == 1 and take_part(array, range(1, 3)).tolist() == [1, 2]
