"""Blocks become a Stack and a Stack becomes blocks, with nothing lost on the way."""

import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx

N, WIDTH = 3, 4


class Block(nnx.Module):
    def __init__(self, rngs, width=WIDTH, rate=0.5):
        self.linear = nnx.Linear(width, width, rngs=rngs)
        self.dropout = nnx.Dropout(rate, rngs=rngs)

    def __call__(self, x):
        return self.dropout(self.linear(x))


@pytest.fixture
def blocks():
    rngs = nnx.Rngs(0)
    return [Block(rngs) for _ in range(N)]


def test_there_and_back(blocks):
    stack = nnx.stack(blocks)
    assert type(stack) is nnx.Stack and len(stack) == N
    x = jnp.ones((2, WIDTH))
    y = stack(x)
    for block in blocks:
        x = block(x)
    np.testing.assert_allclose(y, x, rtol=1e-6)
    again = nnx.unstack(stack)
    assert type(again) is nnx.List and nnx.graphdef(again[1]) == nnx.graphdef(blocks[1])
    for block, other in zip(blocks, again, strict=True):
        np.testing.assert_array_equal(block.linear.kernel[...], other.linear.kernel[...])
        assert bool(block.dropout.rngs.key == other.dropout.rngs.key)
        assert int(other.dropout.rngs.count[...]) == 1


def test_both_are_copies(blocks):
    stack = nnx.stack(blocks)
    stack.stacked.linear.bias[...] = jnp.ones((N, WIDTH))
    assert not blocks[0].linear.bias.any()
    unstacked = nnx.unstack(stack)
    unstacked[0].linear.bias[...] = jnp.zeros(WIDTH)
    unstacked[0].dropout.rate = 0.1
    assert stack.stacked.linear.bias.all() and stack.stacked.dropout.rate == 0.5


def test_options_and_parts(blocks):
    stack = nnx.stack(nnx.List(blocks), remat=True, unroll=2, has_aux=True, partition="layers")
    assert (stack.remat, stack.unroll, stack.has_aux) == (True, 2, True)
    assert stack.partition == "layers"
    assert len(nnx.unstack(stack[1:])) == 2
    assert len(nnx.stack(stack)) == N  # its layers are blocks too


def test_numbers_and_arrays_are_stacked():
    class Scale(nnx.Module):
        def __init__(self, i):
            self.scale = nnx.Variable(float(i))
            self.table = jnp.full(2, i)

        def __call__(self, x):
            return x * self.scale

    stack = nnx.stack([Scale(1), Scale(2)])
    assert stack.stacked.scale[...].tolist() == [1, 2] and stack.stacked.table.shape == (2, 2)
    assert float(stack(jnp.ones(()))) == 2


def refusal(blocks):
    with pytest.raises(nnx.StructureError) as error:
        nnx.stack(blocks)
    assert "put several Stacks in a row" in str(error.value) or "share" in str(error.value)
    return str(error.value)


def test_other_shapes_are_refused_by_path(blocks):
    blocks[2] = Block(nnx.Rngs(0), width=8)
    text = refusal(blocks)
    assert "blocks[0].linear.bias is f32[4] and blocks[2].linear.bias is f32[8]" in text
    blocks[2] = Block(nnx.Rngs(0))
    blocks[2].linear.kernel = nnx.Param(blocks[2].linear.kernel.astype(jnp.bfloat16))
    text = refusal(blocks)
    assert "linear.kernel is f32[4,4] and blocks[2].linear.kernel is bf16[4,4]" in text
    blocks[2].linear.kernel = nnx.Param((jnp.ones(1),))
    assert "PyTreeDef(*) and blocks[2].linear.kernel is PyTreeDef((*,))" in refusal(blocks)


def test_other_structures_are_refused_by_path(blocks):
    blocks[1].dropout.rate = 0.1
    text = refusal(blocks)
    assert "blocks[0].dropout.rate is 0.5 (static)" in text
    assert "blocks[1].dropout.rate is 0.1 (static)" in text
    blocks[1] = nnx.Linear(WIDTH, WIDTH, rngs=nnx.Rngs(0))
    assert "blocks[0]" in refusal(blocks) and "is a Block" in refusal(blocks)


def test_functions_made_for_each_block_count_as_the_same(blocks):
    def scaled(factor):
        return lambda x: factor * x

    for block in blocks:
        block.act = scaled(2.0)
        block.linear.kernel.set_metadata(hook=scaled(3.0))
    stack = nnx.stack(blocks)
    assert stack.stacked.act is blocks[0].act
    blocks[1].act = scaled(5.0)
    text = refusal(blocks)
    assert "blocks[0].act is <function" in text
    assert "blocks[1].act is <function" in text


def test_shared_variables_are_refused(blocks):
    blocks[2].linear.kernel = blocks[0].linear.kernel
    text = refusal(blocks)
    assert "blocks[0] and blocks[2] share the Param at linear.kernel" in text
    assert "`stack(x, shared)`" in text


def test_other_arguments_are_refused(blocks):
    with pytest.raises(ValueError, match=r"there are no blocks to stack: `nnx.stack\("):
        nnx.stack([])
    for given, found in ((blocks[0], "Block"), ("ab", "str"), (3, "int")):
        with pytest.raises(TypeError, match=rf"takes blocks or a State, found {found}: `nnx.stack"):
            nnx.stack(given)
    with pytest.raises(TypeError, match=r"blocks, which are Modules, found int at \[1\]: `nnx"):
        nnx.stack([blocks[0], 3])
    with pytest.raises(TypeError, match=r"remat cannot be given with blocks of a State"):
        nnx.stack(nnx.state(nnx.List(blocks)), remat=True)
    with pytest.raises(TypeError, match=r"like cannot be given with blocks of blocks: it is for"):
        nnx.stack(blocks, like=blocks)
    with pytest.raises(TypeError, match=r"like cannot be given .* of a Stack: it is for States"):
        nnx.unstack(nnx.stack(blocks), like=blocks)
    with pytest.raises(TypeError, match=r"unstack takes a Stack or a State, found list: `nnx"):
        nnx.unstack(blocks)
