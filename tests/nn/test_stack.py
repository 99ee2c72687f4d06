"""A Stack is a loop over its blocks, and its layers are the blocks."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import weft as nnx
from tests.nn.stacks import WIDTH, Block, N, assert_close, linear, unrolled


def blocks_of(seed, make=Block, n=N):
    """The blocks that a Stack of the same seed has, made one by one."""
    keys = nnx.Rngs(seed).split(n)
    return [make(jax.tree.map(lambda x, i=i: x[i], keys)) for i in range(n)]


def leaves(node):
    """Arrays by path, keys as their data."""

    def plain(v):
        raw = v.get_raw_value()
        is_key = jnp.issubdtype(raw.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(raw) if is_key else raw)

    return {path: plain(v) for path, v in nnx.to_flat_state(nnx.state(node))}


def assert_same(a, b, rtol=1e-6):
    a, b = leaves(a), leaves(b)
    assert a.keys() == b.keys()
    for path in a:
        np.testing.assert_allclose(a[path], b[path], rtol=rtol, atol=1e-6, err_msg=str(path))


# -- made


def test_parameters_are_those_of_blocks_made_one_by_one(stack):
    for i, block in enumerate(blocks_of(0)):
        found = leaves(stack[i])
        for path, value in leaves(block).items():
            np.testing.assert_array_equal(found[path], value)
    assert nnx.graphdef(stack[0]) == nnx.graphdef(blocks_of(0)[0])


def test_parameters_are_those_of_split_rngs_over_vmap():
    by_hand = nnx.split_rngs(splits=N)(nnx.vmap(linear))(nnx.Rngs(0))
    stack = nnx.Stack(linear, N, rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(stack.stacked.kernel[...], by_hand.kernel[...])


def test_a_single_stream_may_be_given():
    stack = nnx.Stack(lambda rngs: nnx.Dropout(0.5, rngs=rngs), N, rngs=nnx.Rngs(0).default)
    assert stack.stacked.rngs.key.shape == (N,)


def test_the_streams_given_are_counted_once():
    rngs = nnx.Rngs(params=0, dropout=1)
    nnx.Stack(Block, N, rngs=rngs)
    assert (int(rngs.params.count[...]), int(rngs.dropout.count[...])) == (1, 1)


def test_it_can_be_abstract():
    stack = nnx.eval_shape(lambda: nnx.Stack(Block, N, rngs=nnx.Rngs(0)))
    assert stack.stacked.linear.kernel[...] == jax.ShapeDtypeStruct((N, WIDTH, WIDTH), jnp.float32)
    assert stack[1].linear.kernel[...] == jax.ShapeDtypeStruct((WIDTH, WIDTH), jnp.float32)
    assert nnx.unstack(stack)[0].linear.bias.shape == (WIDTH,)


def test_the_axis_of_the_blocks_has_a_name_in_sharding_metadata(x):
    def make(rngs):
        init = nnx.with_partitioning(nnx.initializers.lecun_normal(), (None, "model"))
        return nnx.Linear(WIDTH, WIDTH, kernel_init=init, rngs=rngs)

    with nnx.use_eager_sharding(False):
        stack = nnx.Stack(make, N, rngs=nnx.Rngs(0), partition="layers")
        other = nnx.Stack(make, N, rngs=nnx.Rngs(0))
    assert stack.stacked.kernel.out_sharding == ("layers", None, "model")
    assert other.stacked.kernel.out_sharding == (None, None, "model")
    assert stack[0].kernel.out_sharding == (None, "model")
    assert stack[:2].stacked.kernel.out_sharding == ("layers", None, "model")
    blocks = nnx.unstack(stack)
    assert blocks[0].kernel.out_sharding == (None, "model")
    assert nnx.stack(blocks, partition="layers").stacked.kernel.out_sharding == (
        "layers",
        None,
        "model",
    )
    np.testing.assert_array_equal(stack(x), other(x))


@pytest.mark.parametrize("n", [0, -1])
def test_no_blocks_are_refused(n):
    with pytest.raises(ValueError, match=rf"at least one block, found n={n}: `nnx.Stack\("):
        nnx.Stack(Block, n, rngs=nnx.Rngs(0))


def test_other_numbers_of_blocks_are_refused():
    for n, found in (((2.0,), "2.0"), ((True,), "True"), ((), "none")):
        with pytest.raises(TypeError, match=rf"the number of blocks, found {found}: `nnx.Stack\("):
            nnx.Stack(Block, *n, rngs=nnx.Rngs(0))
    with pytest.raises(TypeError, match=r"an nnx.RngStream, found none. Write"):
        nnx.Stack(Block, 2)
    with pytest.raises(TypeError, match=r"found a list: .* a Stack by `nnx.stack\(blocks\)`"):
        nnx.Stack([linear(nnx.Rngs(0))])


def test_other_rngs_are_refused():
    with pytest.raises(TypeError, match=r"an nnx.Rngs or an nnx.RngStream, found int. Write"):
        nnx.Stack(Block, N, rngs=0)


def test_what_does_not_make_a_block_of_streams_is_refused():
    made = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    remedy = r"write `nnx.Stack\(lambda rngs: Linear\(..., rngs=rngs\), n, rngs=rngs\)`"
    with pytest.raises(TypeError, match=rf"found a Linear: {remedy}"):
        nnx.Stack(made, N, rngs=nnx.Rngs(0))
    with pytest.raises(TypeError, match=rf"found Linear: missing a required argument.*{remedy}"):
        nnx.Stack(nnx.Linear, N, rngs=nnx.Rngs(0))
    with pytest.raises(TypeError, match=r"of random streams, found Block: too many positional"):
        nnx.Stack(lambda: made, N, rngs=nnx.Rngs(0))


def test_what_is_no_module_is_refused():
    with pytest.raises(TypeError, match=r"must return a Module that can be called, found tuple"):
        nnx.Stack(lambda rngs: (linear(rngs),), N, rngs=nnx.Rngs(0))


def test_blocks_in_place_of_what_makes_them_are_refused():
    block = linear(nnx.Rngs(0))
    for given, found, how in (
        ([block], "list", r"`nnx.stack\(blocks\)`"),
        (nnx.List([block]), "List", r"`nnx.stack\(blocks\)`"),
        (block, "Linear", r"`nnx.stack\(\[block, ...\]\)`"),
        (3, "int", r"`nnx.stack\(blocks\)`"),
    ):
        with pytest.raises(TypeError, match=rf"makes a block .*found a {found}: write.*{how}"):
            nnx.Stack(given, N, rngs=nnx.Rngs(0))


def test_another_remat_is_refused():
    with pytest.raises(TypeError, match=r"None, a bool or a policy, found 'dots': `remat=jax"):
        nnx.Stack(linear, N, rngs=nnx.Rngs(0), remat="dots")


def test_a_captured_variable_is_refused():
    shared = linear(nnx.Rngs(0))

    class Tied(nnx.Module):
        def __init__(self, rngs):
            self.layers = [linear(rngs), shared]

        def __call__(self, x):
            return x

    with pytest.raises(nnx.StructureError) as error:
        nnx.Stack(Tied, N, rngs=nnx.Rngs(0))
    assert "Tied.layers[1].bias, a Param, was made outside" in str(error.value)
    assert "`stack(x, shared)`" in str(error.value)


def test_streams_from_outside_are_refused():
    rngs = nnx.Rngs(0)
    with pytest.raises(nnx.TraceContextError, match=r"inside nnx.vmap of 'Stack'") as error:
        nnx.Stack(lambda _: linear(rngs), N, rngs=rngs)
    assert "`nnx.Stack(lambda rngs: Block(rngs=rngs), n, rngs=rngs)`" in "".join(
        error.value.__notes__
    )


# -- called


def test_it_is_the_loop_over_its_blocks(stack, x):
    blocks = blocks_of(0)
    for _ in range(2):  # the second time with new statistics and other noise
        assert_close(stack(x), unrolled(blocks, x))
    assert_same(nnx.unstack(stack), nnx.List(blocks))
    assert stack.stacked.dropout.rngs.count[...].tolist() == [2] * N


def test_layers_drop_different_elements():
    stack = nnx.Stack(lambda rngs: nnx.Dropout(0.5, rngs=rngs), N, rngs=nnx.Rngs(0), has_aux=False)
    masks = [layer(jnp.ones(64)) > 0 for layer in stack]
    assert not any(bool((masks[0] == mask).all()) for mask in masks[1:])
    together = np.logical_and.reduce(masks)
    np.testing.assert_array_equal(nnx.Stack.__call__(_reset(stack), jnp.ones(64)) > 0, together)


def _reset(stack):
    stack.stacked.rngs.count[...] = jnp.zeros_like(stack.stacked.rngs.count)
    return stack


@pytest.mark.parametrize(
    ("remat", "unroll"),
    [
        (False, 2),
        (None, True),
        (True, 1),
        (True, 2),
        (jax.checkpoint_policies.dots_saveable, 1),
    ],
)
def test_options_do_not_change_results(remat, unroll, x):
    stack = nnx.Stack(Block, N, rngs=nnx.Rngs(0), remat=remat, unroll=unroll)
    blocks = blocks_of(0)

    def loss(model):
        return ((model(x) if isinstance(model, nnx.Stack) else unrolled(model, x)) ** 2).mean()

    value, grads = nnx.value_and_grad(loss)(stack)
    expected, expected_grads = nnx.value_and_grad(loss)(nnx.List(blocks))
    assert_close(value, expected)
    for i in range(N):
        np.testing.assert_allclose(
            grads.stacked.linear.kernel[i], expected_grads[i].linear.kernel, rtol=1e-4, atol=1e-6
        )
    assert_same(nnx.unstack(stack), nnx.List(blocks))


def test_remat_computes_blocks_again():
    def primitives(remat):
        stack = nnx.Stack(linear, N, rngs=nnx.Rngs(0), remat=remat)
        grad = nnx.grad(lambda m, x: nnx.relu(m(x)).sum())
        return str(nnx.make_jaxpr(grad)(stack, jnp.ones((2, WIDTH))))

    assert "checkpoint" in primitives(True) or "remat" in primitives(True)
    assert "checkpoint" not in primitives(False) and "remat" not in primitives(False)


def test_further_arguments_stay_what_they_are(stack, x):
    blocks = blocks_of(0)
    shift = jnp.ones(WIDTH)
    found = stack(x, shift, deterministic=True)
    assert_close(found, unrolled(blocks, x, shift, deterministic=True))

    class Probe(nnx.Module):
        def __call__(self, x, options, *, mode):
            seen.append(
                (options["flag"], options["name"], mode, isinstance(options["x"], jax.Array))
            )
            return x * options["scale"]

    for remat in (False, True):
        seen = []
        probe = nnx.Stack(lambda rngs: Probe(), N, rngs=nnx.Rngs(0), remat=remat)
        options = {"flag": True, "name": "a", "scale": 2, "x": x}
        assert float(probe(jnp.ones(()), options, mode=None)) == 2**N
        assert set(seen) == {(True, "a", None, True)}


def test_what_all_blocks_share_is_an_argument(x):
    class Reader(nnx.Module):
        def __init__(self, rngs):
            self.linear = linear(rngs)

        def __call__(self, x, shared):
            return shared(self.linear(x))

    shared = linear(nnx.Rngs(7))
    stack = nnx.Stack(Reader, N, rngs=nnx.Rngs(0))
    blocks = blocks_of(0, Reader)
    assert_close(stack(x, shared), unrolled(blocks, x, shared))
    grads = nnx.grad(lambda shared: stack(x, shared).sum())(shared)
    expected = nnx.grad(lambda shared: unrolled(blocks, x, shared).sum())(shared)
    np.testing.assert_allclose(grads.kernel[...], expected.kernel[...], rtol=1e-4)
    dropout, again = (nnx.Dropout(0.5, rngs=nnx.Rngs(0)) for _ in range(2))
    assert_close(stack(x, dropout), unrolled(blocks, x, again))
    assert dropout.rngs.count[...] == N


def test_the_value_may_be_a_pytree(x):
    class Pair(nnx.Module):
        def __init__(self, rngs):
            self.linear = linear(rngs)

        def __call__(self, state):
            y = self.linear(state["x"])
            return {"x": y, "total": state["total"] + y.sum()}

    stack = nnx.Stack(Pair, N, rngs=nnx.Rngs(0))
    start = {"x": x, "total": jnp.zeros(())}
    found, expected = stack(start), unrolled(blocks_of(0, Pair), start)
    assert_close(found["total"], expected["total"])


def test_each_block_may_have_an_output(x):
    class Noted(nnx.Module):
        def __init__(self, rngs):
            self.linear = linear(rngs)

        def __call__(self, x):
            y = self.linear(x)
            return y, {"mean": y.mean(), "y": y}

    stack = nnx.Stack(Noted, N, rngs=nnx.Rngs(0), has_aux=True)
    y, notes = stack(x)
    assert notes["y"].shape == (N, *x.shape) and notes["mean"].shape == (N,)
    np.testing.assert_array_equal(notes["y"][-1], y)
    with pytest.raises(
        TypeError, match=r"must return a pair `\(x, output\)`, found .*, from a Linear"
    ):
        nnx.Stack(linear, N, rngs=nnx.Rngs(0), has_aux=True)(x)


def test_a_block_that_changes_the_shape_is_refused(x):
    stack = nnx.Stack(lambda rngs: nnx.Linear(WIDTH, 2, rngs=rngs), N, rngs=nnx.Rngs(0))
    with pytest.raises(nnx.StructureError) as error:
        stack(x)
    assert "nnx.scan of 'Stack' must keep shapes and dtypes" in str(error.value)
    assert "x was float32[5,4] before and is float32[5,2] after" in str(error.value)


def test_sown_values_are_stacked(x):
    class Sower(nnx.Module):
        def __init__(self, rngs):
            self.linear = linear(rngs)

        def __call__(self, x):
            x = self.linear(x)
            self.sow(nnx.Intermediate, "y", x)
            return x

    stack = nnx.Stack(Sower, N, rngs=nnx.Rngs(0))
    y = stack(x)
    (sown,) = nnx.pop(stack, nnx.Intermediate).stacked.y.value
    assert sown.shape == (N, *x.shape)
    np.testing.assert_array_equal(sown[-1], y)


def test_evaluation_is_for_all_layers(stack, x):
    stack.eval()
    blocks = nnx.List(blocks_of(0))
    blocks.eval()
    assert_close(stack(x), unrolled(blocks, x))
    assert stack[0].dropout.deterministic and stack[1].norm.use_running_average


def test_only_what_blocks_write_comes_out(stack, x):
    jaxpr = nnx.make_jaxpr(lambda m, x: m(x))(stack, x)
    written = [(N,), (N, WIDTH), (N, WIDTH)]  # counters, means and variances
    assert sorted(aval.shape for aval in jaxpr.out_avals) == sorted([*written, x.shape])
    (scan,) = [e for e in jaxpr.eqns if e.primitive.name == "scan"] or [
        e
        for outer in jaxpr.eqns
        for p in outer.params.values()
        for e in getattr(getattr(p, "jaxpr", None), "eqns", [])
        if e.primitive.name == "scan"
    ]
    assert sorted(v.aval.shape for v in scan.outvars) == sorted([*written, x.shape])


def test_depth_does_not_change_the_size_of_the_program(x):
    def size(n):
        stack = nnx.Stack(linear, n, rngs=nnx.Rngs(0))
        return len(str(nnx.make_jaxpr(nnx.grad(lambda m, x: m(x).sum()))(stack, x)).splitlines())

    assert size(2) == size(30)


def test_blocks_are_traced_once(x):
    calls = []

    class Counted(nnx.Module):
        def __init__(self, rngs):
            self.linear = linear(rngs)

        def __call__(self, x):
            calls.append(1)
            return self.linear(x)

    stack = nnx.Stack(Counted, N, rngs=nnx.Rngs(0))
    stack(x)
    stack(x)
    assert len(calls) == 1


def test_it_trains(stack, x):
    def train(model, call):
        optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)

        @nnx.jit
        def step(model, optimizer, x):
            loss, grads = nnx.value_and_grad(
                lambda m: (call(m, x, deterministic=True) ** 2).mean()
            )(model)
            optimizer.update(model, grads)
            return loss

        return [float(step(model, optimizer, x)) for _ in range(4)]

    blocks = nnx.unstack(stack)
    losses = train(stack, nnx.Stack.__call__)
    expected = train(blocks, unrolled)
    assert_close(losses, expected)
    assert losses[-1] < losses[0]
    assert_same(nnx.unstack(stack), blocks, rtol=1e-4)


def test_stacks_in_a_stack(x):
    make = lambda rngs: nnx.Stack(linear, 2, rngs=rngs)  # noqa: E731
    stack = nnx.Stack(make, N, rngs=nnx.Rngs(0))
    assert stack.stacked.stacked.kernel.shape == (N, 2, WIDTH, WIDTH)
    assert_close(stack(x), unrolled(blocks_of(0, make), x))
    stack[1][0].bias[...] = jnp.ones(WIDTH)
    assert stack.stacked.stacked.bias[..., 0].tolist() == [[0, 0], [1, 0], [0, 0]]
    stack[1:][0][:1][0].bias[...] = jnp.zeros(WIDTH)
    assert not stack.stacked.stacked.bias.any()
    assert_same(nnx.stack(nnx.unstack(stack)), stack)


def test_what_a_block_shares_stays_shared(x):
    class Tied(nnx.Module):
        def __init__(self, rngs):
            self.up = linear(rngs)
            self.down = self.up

        def __call__(self, x):
            return self.down(self.up(x))

    stack = nnx.Stack(Tied, N, rngs=nnx.Rngs(0))
    layer = stack[0]
    assert stack.stacked.up is stack.stacked.down and layer.up is layer.down
    blocks = nnx.unstack(stack)
    assert blocks[1].up is blocks[1].down
    restacked = nnx.stack(blocks)
    assert restacked.stacked.up is restacked.stacked.down
    assert_close(stack(x), unrolled(blocks_of(0, Tied), x))


def test_it_works_without_structure_updates(stack, x):
    blocks = nnx.unstack(stack)
    with nnx.set_graph_updates(False):
        y = stack(x)
    assert_close(y, unrolled(blocks, x))
    assert_same(nnx.unstack(stack), nnx.List(blocks))


def test_it_is_a_pytree(stack, x):
    stack.eval()
    y = jax.jit(lambda m, x: m(x))(stack, x)
    assert_close(y, stack(x))
    ensemble = jax.vmap(lambda key: nnx.Stack(linear, N, rngs=nnx.Rngs(key)))(
        jax.random.split(jax.random.key(0), 2)
    )
    assert ensemble.stacked.kernel.shape == (2, N, WIDTH, WIDTH)
    assert jax.vmap(lambda m: m(x))(ensemble).shape == (2, *x.shape)
