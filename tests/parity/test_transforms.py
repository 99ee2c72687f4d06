"""The transforms beside those of flax.nnx: the same program with either library, bit for bit."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx_weft

nnx_flax = pytest.importorskip("flax.nnx", reason="flax is not installed")


def flat(nnx, node):
    """Returns the arrays of an object by path, keys as numbers."""
    state = nnx.to_flat_state(nnx.state(node))
    leaves = {path: getattr(leaf, "get_value", lambda leaf=leaf: leaf)() for path, leaf in state}
    is_key = lambda x: jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)  # noqa: E731
    return {
        path: np.asarray(jax.random.key_data(x) if is_key(x) else x) for path, x in leaves.items()
    }


def assert_equal(ours, theirs):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def scan_layers_forward(nnx, seed, x, num_layers, features, out_axes=None):
    """Stacks layers by `split_rngs` over `vmap`, and runs them one after the other by `scan`."""

    @nnx.split_rngs(splits=num_layers)
    @nnx.vmap
    def make(rngs):
        return nnx.Linear(features, features, rngs=rngs)

    layers = make(nnx.Rngs(seed))

    if out_axes is None:

        @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        def forward(x, layer):
            return nnx.relu(layer(x))
    else:

        @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=(nnx.Carry, 0))
        def forward(x, layer):
            x = nnx.relu(layer(x))
            return x, x

    return layers, forward(x, layers)


@pytest.mark.parametrize(
    ("number", "features", "ys"), [(3, 4, None), (1, 2, None), (3, 4, "stacked")]
)
def test_scan_layers_forward(number, features, ys):
    x = jax.random.normal(jax.random.key(1), (2, features))
    layers, ours = scan_layers_forward(nnx_weft, 0, x, number, features, ys)
    _, theirs = scan_layers_forward(nnx_flax, 0, x, number, features, ys)
    assert_equal(ours, theirs)
    assert layers.kernel.value.shape == (number, features, features)
    y = x
    for i in range(number):
        y = jax.nn.relu(y @ layers.kernel[i] + layers.bias[i])
    np.testing.assert_allclose(ours if ys is None else ours[0], y, rtol=1e-6)
    if ys is not None:
        np.testing.assert_allclose(ours[1][-1], y, rtol=1e-6)


def block_of(nnx):
    class Block(nnx.Module):
        def __init__(self, features, rngs):
            self.linear = nnx.Linear(features, features, rngs=rngs)
            self.norm = nnx.BatchNorm(features, rngs=rngs)
            self.dropout = nnx.Dropout(0.5, rngs=rngs)

        def __call__(self, x):
            return x + self.dropout(nnx.relu(self.norm(self.linear(x))))

    return Block


X = jax.random.normal(jax.random.key(2), (4, 3))


def train(nnx):
    model = block_of(nnx)(3, nnx.Rngs(0))

    @nnx.jit
    def step(model, x):
        loss = lambda m: jnp.mean(m(x) ** 2)  # noqa: E731
        value, grads = nnx.value_and_grad(loss)(model)
        again = nnx.grad(loss, argnums=nnx.DiffState(0, nnx.PathContains("kernel")))(model)
        return value, grads, again

    value, grads, again = step(model, X)
    return value, flat(nnx, grads), flat(nnx, again), flat(nnx, model)


def stacked_blocks(nnx):
    axes = nnx.StateAxes({(nnx.Param, nnx.BatchStat, nnx.RngState): 0, ...: None})

    @nnx.split_rngs(splits=3)
    @nnx.vmap(in_axes=(axes,), out_axes=axes)
    def make(rngs):
        return block_of(nnx)(3, rngs)

    blocks = make(nnx.Rngs(0, dropout=1))

    @nnx.jit
    @nnx.scan(in_axes=(nnx.Carry, axes), out_axes=nnx.Carry)
    def forward(x, block):
        return block(x)

    return forward(X, blocks), flat(nnx, blocks)


def ensemble(nnx):
    @nnx.split_rngs(splits=4)
    @nnx.vmap(in_axes=0, out_axes=0)
    def make(rngs):
        return nnx.Linear(3, 2, rngs=rngs)

    models = make(nnx.Rngs(7))
    forward = nnx.vmap(lambda m, x: m(x), in_axes=(0, None), out_axes=1)
    grads = nnx.vmap(nnx.grad(lambda m, x: jnp.sum(m(x) ** 2)), in_axes=(0, None))(models, X)
    return forward(models, X), flat(nnx, models), flat(nnx, grads)


def loops(nnx):
    a, b = block_of(nnx)(3, nnx.Rngs(0)), nnx.Linear(3, 3, rngs=nnx.Rngs(1))

    def body(carry):
        i, a, b, x = carry
        b.bias[...] = b.bias[...] + 1.0
        return i + 1, a, b, b(a(x))

    i, _, _, y = nnx.while_loop(lambda c: c[0] < 3, body, (0, a, b, X))
    _, _, z = nnx.fori_loop(0, 2, lambda i, c: body((i, *c))[1:], (a, b, X))
    return i, y, z, flat(nnx, a), flat(nnx, b)


def branches(nnx):
    model = block_of(nnx)(3, nnx.Rngs(0))

    def write(m, x):
        m.linear.bias[...] = m.linear.bias[...] + 1.0
        return m(x)

    outs = [nnx.cond(pred, write, lambda m, x: x, model, X) for pred in (True, False)]
    outs += [nnx.switch(i, [write, lambda m, x: x, lambda m, x: m(x)], model, X) for i in (0, 5)]
    return outs, flat(nnx, model)


def remat_and_eval_shape(nnx):
    model = block_of(nnx)(3, nnx.Rngs(0))
    y = nnx.jit(lambda m, x: nnx.remat(lambda m, x: m(x))(m, x))(model, X)
    shapes = nnx.eval_shape(lambda: block_of(nnx)(3, nnx.Rngs(0)))
    paths = nnx.to_flat_state(nnx.state(shapes))
    return y, flat(nnx, model), [(path, str(leaf.get_value())) for path, leaf in paths]


def tree_mode(nnx):
    model = block_of(nnx)(3, nnx.Rngs(0))
    options = {"graph": False, "graph_updates": False}
    weights = nnx.Linear(3, 3, rngs=nnx.Rngs(1))
    y = nnx.jit(lambda m, x: m(x), **options)(model, X)
    grads = nnx.grad(lambda m, x: jnp.sum(m(x) ** 2), **options)(weights, X)
    out, pull = nnx.vjp(lambda m, x: m(x), weights, X, **options)
    gm, gx = pull(jnp.ones_like(out))
    tangent = jax.tree.map(jnp.ones_like, weights)
    _, moved = nnx.jvp(lambda m, x: m(x), (weights, X), (tangent, X), **options)
    assert type(grads) is type(gm) is nnx.Linear
    return y, flat(nnx, model), flat(nnx, grads), flat(nnx, gm), gx, moved


def custom_rule(nnx):
    given = []

    @nnx.custom_vjp(nondiff_argnums=(1,))
    def f(m, scale, x):
        return jnp.sin(m(x)) * scale

    def bwd(scale, residuals, cotangents):
        x = residuals
        (of_m, of_x), dy = cotangents
        given.append((flat(nnx, of_m), of_x, dy))
        of_m["kernel"] = of_m["kernel"].replace(x.T @ dy)
        return of_m, 3.0 * dy

    f.defvjp(lambda m, scale, x: (f(m, scale, x), x), bwd)
    model = nnx.Linear(3, 3, rngs=nnx.Rngs(0))
    gm, gx = nnx.grad(lambda m, x: jnp.sum(f(m, 2.0, x)), argnums=(0, 1))(model, X)
    return given, flat(nnx, gm), gx


PROGRAMS = [
    *(train, stacked_blocks, ensemble, loops, branches, remat_and_eval_shape, tree_mode),
    custom_rule,
]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda f: f.__name__)
def test_program(program: types.FunctionType):
    assert_equal(program(nnx_weft), program(nnx_flax))
