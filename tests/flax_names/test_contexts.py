"""Several objects taken apart and put together in one index space."""

import pytest

import weft as nnx


def make_layer():
    return nnx.Linear(2, 3, rngs=nnx.Rngs(0))


def test_what_two_objects_share_stays_shared():
    layer = make_layer()
    model = nnx.Dict(layer=layer)
    with nnx.split_context() as ctx:
        first = ctx.split(model, nnx.PathContains("bias"), ...)
        again, rest = ctx.split([layer, nnx.Param(1.0)])
    assert [len(nnx.to_flat_state(state)) for state in first[1:]] == [1, 1]
    assert nnx.to_flat_state(rest).paths == ((1,),)
    with nnx.merge_context() as ctx:
        new = ctx.merge(*first)
        other, param = ctx.merge(again, rest)
    assert other is new.layer and other is not layer
    assert other.kernel is not layer.kernel and other.kernel.value is layer.kernel.value
    assert param.value == 1.0


def test_flat_states_in_a_context():
    layer = make_layer()
    with nnx.split_context() as ctx:
        graphdef, flat = ctx.flatten([layer])
        _, biases, rest = ctx.flatten(
            {"again": layer, "p": nnx.Param(1.0)}, nnx.PathContains("b"), ...
        )
        _, leaves = ctx.flatten(nnx.Param(2.0), with_paths=False)
    assert flat.paths == ((0, "bias"), (0, "kernel"))
    assert (len(biases), rest.paths, leaves[0].value) == (0, (("p",),), 2.0)
    with nnx.merge_context() as ctx:
        assert ctx.unflatten(graphdef, flat)[0].out_features == 3


def test_tags_need_an_update_context():
    found = (
        r"in an update context of the tag 'jit', found none: `with nnx.update_context\('jit'\):`"
    )
    with pytest.raises(ValueError, match=found):
        with nnx.split_context("jit"):
            pass
    with pytest.raises(ValueError, match=found):
        with nnx.merge_context("jit", True):
            pass
    with nnx.update_context("jit"):
        with pytest.raises(ValueError, match=r"which side it is: `nnx.merge_context\('jit', inner"):
            with nnx.merge_context("jit"):
                pass
