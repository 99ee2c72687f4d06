"""Layers are the blocks of a Stack, read and written in their place."""

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import weft as nnx
from tests.nn.stacks import WIDTH, Block, N, assert_close, unrolled


def assert_same(a, b):
    """Compares the Variables of two objects, the random keys left out."""
    a, b = (nnx.to_flat_state(nnx.filter_state(nnx.state(m), nnx.Not(nnx.RngKey))) for m in (a, b))
    assert a.paths == b.paths
    for x, y in zip(a.leaves, b.leaves, strict=True):
        assert_close(x[...], y[...])


def test_layers_are_read_and_written_in_place(stack):
    layer = stack[1]
    layer.linear.bias[...] = jnp.ones(WIDTH)
    layer.linear.kernel[0, 0] = 5.0
    assert stack.stacked.linear.bias[:, 0].tolist() == [0, 1, 0]
    assert float(stack.stacked.linear.kernel[1, 0, 0]) == 5
    stack.stacked.linear.bias[...] = jnp.full((N, WIDTH), 7.0)
    assert layer.linear.bias[0] == 7 and stack[-2].linear.bias[0] == 7


def test_layers_are_iterated_over(stack, x):
    together = nnx.clone(stack)
    assert_close(unrolled(stack, x), together(x))
    assert_same(stack, together)
    assert len(list(stack)) == len(stack) == N
    assert [type(layer) for layer in reversed(stack)] == [Block] * N


def test_blocks_are_not_put_in_place_of_others(stack):
    before = nnx.clone(stack)
    block = Block(nnx.Rngs(1))
    with pytest.raises(TypeError, match=r"none of them can be put in.*`nnx.update\(stack\[1\], n"):
        stack[1] = block
    with pytest.raises(TypeError, match=r"`blocks = nnx.unstack\(stack\); blocks\[1\] = block; st"):
        stack[1] = block
    with pytest.raises(TypeError, match=r"can be taken out: take a .*; del blocks\[-1\]; stack"):
        del stack[-1]
    assert_same(stack, before)
    blocks = nnx.unstack(stack)
    blocks[1] = block
    anew = nnx.stack(blocks)
    nnx.update(stack[1], nnx.state(block))
    assert_same(stack, anew)


def test_a_slice_is_a_stack(stack, x):
    part = stack[1:]
    assert type(part) is nnx.Stack and len(part) == part.n == N - 1
    blocks = nnx.unstack(stack)
    assert_close(part(x), unrolled(blocks[1:], x))
    assert_same(nnx.unstack(stack), blocks)  # statistics and counters reached it
    part[0].linear.bias[...] = jnp.ones(WIDTH)
    stack[::-1][0].linear.bias[...] = jnp.full(WIDTH, 2.0)
    assert stack.stacked.linear.bias[:, 0].tolist() == [0, 1, 2]
    np.testing.assert_array_equal(
        stack[::-1].stacked.linear.kernel[...], stack.stacked.linear.kernel[::-1]
    )
    assert len(stack[2:1]) == 0


def test_a_layer_has_the_types_of_a_block(stack):
    layer, block = stack[0], Block(nnx.Rngs(0))
    assert type(layer) is Block and type(layer.linear.kernel) is nnx.Param
    assert jax.tree.structure(layer) == jax.tree.structure(block)
    total = jax.tree.map(jnp.add, nnx.state(layer, nnx.Param), nnx.state(block, nnx.Param))
    assert_close(total.linear.kernel[...], layer.linear.kernel + block.linear.kernel)
    assert stack[0].linear.kernel is layer.linear.kernel


def test_a_layer_is_updated_by_a_state(stack):
    other = Block(nnx.Rngs(9))
    nnx.update(stack[2], nnx.state(other))
    np.testing.assert_array_equal(stack.stacked.linear.kernel[2], other.linear.kernel[...])
    assert stack.stacked.linear.kernel.shape == (N, WIDTH, WIDTH)
    key = jax.random.key_data(stack.stacked.dropout.rngs.key[2])
    np.testing.assert_array_equal(key, jax.random.key_data(other.dropout.rngs.key[...]))


def test_a_layer_is_an_argument_of_transforms(stack, x):
    @nnx.jit
    def step(layer, x):
        grads = nnx.grad(lambda m: m(x).sum())(layer)
        layer.linear.bias[...] -= grads.linear.bias
        return grads

    layer = stack[1]
    for call in range(1, 3):  # with the layer at hand, and with its arrays written in between
        before = stack.stacked.linear.bias[...]
        grads = step(layer, x)
        assert_close(stack.stacked.linear.bias[...], before.at[1].add(-grads.linear.bias[...]))
        assert stack.stacked.dropout.rngs.count[...].tolist() == [0, call, 0]
        stack.stacked.linear.bias[...] = before * 2 + 1


def test_layers_inside_a_transform(stack, x):
    @nnx.jit
    def zero(stack):
        stack[1].linear.bias[...] = jnp.ones(WIDTH)
        return stack[1].linear.bias[...] + stack.stacked.linear.bias[1]

    assert zero(stack).tolist() == [2.0] * WIDTH
    assert stack.stacked.linear.bias[:, 0].tolist() == [0, 1, 0]


def test_an_optimizer_may_have_one_layer(stack, x):
    layer = stack[1]
    before = stack.stacked.linear.kernel[...]
    optimizer = nnx.Optimizer(layer, optax.sgd(0.1), wrt=nnx.Param)
    optimizer.update(layer, nnx.grad(lambda m: m(x).sum())(layer))
    changed = jnp.abs(stack.stacked.linear.kernel - before).max((1, 2)) > 0
    assert changed.tolist() == [False, True, False]


def test_copies_of_a_layer_are_independent(stack):
    for copied in (
        nnx.clone(stack[0]),
        copy.deepcopy(stack[0]),
        pickle.loads(pickle.dumps(stack[0])),
    ):
        copied.linear.bias[...] = jnp.ones(WIDTH)
        copied.dropout.rate = 0.1
        assert not stack.stacked.linear.bias.any()
    assert pickle.loads(pickle.dumps(stack)).n == N


def test_a_stack_beside_its_layer_is_refused(stack, x):
    use = nnx.jit(lambda a, b: a.linear.bias + b.linear.bias)
    assert use(stack[0], stack[1]).shape == (WIDTH,)
    assert use(stack[0], stack[0]).shape == (WIDTH,)
    first = nnx.jit(lambda a, b: None)
    with pytest.raises(nnx.AliasError) as error:
        first(stack, stack[1])
    expected = "b.dropout.rngs.count and a.stacked.dropout.rngs.count have layers of a Stack in"
    assert expected in str(error.value)
    with pytest.raises(nnx.AliasError, match=r"take the layer inside: `stack\[3\]`"):
        first(stack[:2], stack[1])
    with pytest.raises(nnx.AliasError):
        first(stack[:2], stack[1:])
    first(stack[:2], stack[2:])


def test_structure_cannot_be_changed_through_a_layer(stack, x):
    message = r"cannot change Dropout.rate: the layers of a Stack have their structure .* in common"
    with pytest.raises(nnx.StructureError, match=message):
        stack[0].dropout.rate = 0.1
    with pytest.raises(nnx.StructureError, match=r"cannot change Dropout.deterministic"):
        stack[0].eval()
    with pytest.raises(nnx.StructureError, match=r"cannot change Stack.remat"):
        stack[:2].remat = True

    @nnx.jit
    def change(layer):
        layer.linear.bias[...] = jnp.ones(WIDTH)
        layer.dropout.rate = 0.1

    with pytest.raises(nnx.StructureError, match=r"cannot change Dropout"):
        change(stack[0])
    assert not stack.stacked.linear.bias.any()


def test_a_captured_layer_cannot_be_written(stack):
    layer = stack[0]

    @nnx.jit
    def write(x):
        layer.linear.bias[...] = x

    with pytest.raises(nnx.TraceContextError, match=r"cannot write Param"):
        write(jnp.ones(WIDTH))


def test_arrays_that_no_variable_holds(x):
    class Shifted(nnx.Module):
        def __init__(self, rngs):
            self.shift = rngs.normal((WIDTH,))

        def __call__(self, x):
            return x + self.shift

    stack = nnx.Stack(Shifted, N, rngs=nnx.Rngs(0))
    assert stack.stacked.shift.shape == (N, WIDTH)
    assert_close(stack(x), unrolled(stack, x))
    with pytest.raises(nnx.StructureError, match=r"cannot change Shifted.shift"):
        stack[0].shift = jnp.zeros(WIDTH)


def test_there_is_no_layer_beyond_the_last(stack):
    for index in (N, -N - 1):
        with pytest.raises(IndexError, match=rf"a Stack of 3 blocks has no layer {index}"):
            stack[index]
    with pytest.raises(TypeError, match=r"chosen by an int or a slice, found 'a': `stack\[3\]`"):
        stack["a"]


def test_nothing_is_written_if_one_value_does_not_fit(stack):
    @nnx.jit
    def grow(layer):
        layer.linear.kernel[...] = jnp.ones((WIDTH, WIDTH))
        layer.norm.mean.set_value(jnp.ones(1))

    with pytest.raises(
        nnx.StructureError, match=r"BatchStat: its value is f32\[4\], found f32\[1\]"
    ):
        grow(stack[1])
    assert stack.stacked.linear.kernel[1, 0, 0] != 1
