"""The first module that makes NaN is named, with the phase, however it is called."""

from __future__ import annotations

import functools
import threading
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest
from jax.sharding import AxisType

import weft as nnx
from tests.devices import make_mesh
from tests.nn import test_meshes as layers
from tests.tools.debug.trunks import AT, MODELS, PATH, Plain, X, plant
from weft.tools.debug.checks import PLACE

NonFiniteError = nnx.debug.NonFiniteError


def forward(model: Any, x: Any) -> Any:
    return model(x)


def loss(model: Any, x: Any) -> Any:
    return jnp.mean(model(x) ** 2)


def gradients(model: Any, x: Any) -> Any:
    return nnx.value_and_grad(loss)(model, x)


def by_jax(model: Any, x: Any) -> Any:
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    return jax.value_and_grad(lambda p: loss(nnx.merge(graphdef, p, rest), x))(params)


def train_step(model: Any, x: Any) -> Any:
    optimizer = nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param)

    @nnx.jit
    def step(model: Any, optimizer: Any, x: Any) -> Any:
        value, grads = nnx.value_and_grad(loss)(model, x)
        optimizer.update(model, grads)
        return value

    return step(model, optimizer, x)


CALLS = {
    "un-jitted": lambda: forward,
    "un-jitted value_and_grad": lambda: gradients,
    "nnx.jit": lambda: nnx.jit(forward),
    "jax.jit": lambda: jax.jit(forward),
    "nnx.jit value_and_grad": lambda: nnx.jit(gradients),
    "jax.jit value_and_grad": lambda: jax.jit(gradients),
    "jax.value_and_grad": lambda: jax.jit(by_jax),
    "train step": lambda: train_step,
}
ONLY_FORWARD = {"un-jitted", "nnx.jit", "jax.jit"}
COMPILED = {"nnx.jit", "jax.jit", "nnx.jit value_and_grad", "jax.jit value_and_grad", "train step"}
PAIRS = [
    (kind, call)
    for kind in MODELS
    for call in CALLS
    if kind == "Stacked" or (call in COMPILED and ("Remat" not in kind or call == "train step"))
]
PAIRS += [("Plain", "un-jitted"), ("Remat", "jax.jit value_and_grad")]


@pytest.mark.parametrize("kind, call", PAIRS)
def test_one_layer_of_twelve(kind: str, call: str) -> None:
    model = MODELS[kind](nnx.Rngs(0))
    function = nnx.debug.nans()(CALLS[call]())
    good = nnx.clone(nnx.state(model))
    function(model, X)  # no false alarm
    for phase in ("forward", "backward"):
        if phase == "backward" and call in ONLY_FORWARD:
            continue
        nnx.update(model, nnx.clone(good))
        plant(model, phase)
        with pytest.raises(NonFiniteError) as caught:
            function(model, X)
        assert (caught.value.path, caught.value.phase) == (PATH, phase)


def test_what_is_said_of_the_forward_pass() -> None:
    model = Plain(nnx.Rngs(0))
    plant(model, "forward")
    message = (
        rf"^model\.blocks\[{AT}\]\.attention\.query is the first to make NaN, in the forward pass: "
        r"Query\.__call__ returned 12 NaN in output f32\[3,4\], from x f32\[3,4\], bad f32\[\], "
        r"flat f32\[\], kernel f32\[4,4\], which are finite\. Keep what it computes within bounds, "
        r"as in `jnp\.log\(jnp\.maximum\(x, 1e-6\)\)`, or compute it in float32"
    )
    with pytest.raises(NonFiniteError, match=message), nnx.debug.nans(model):
        model(X)


def test_what_is_said_of_the_backward_pass() -> None:
    model = Plain(nnx.Rngs(0))
    plant(model, "backward")
    message = (
        rf"model\.blocks\[{AT}\]\.attention\.query is the first to make NaN, in the backward pass: "
        r"Query\.__call__ gave 12 NaN in the gradient of x f32\[3,4\], 16 NaN in the gradient of "
        r"kernel f32\[4,4\], from gradients of output f32\[3,4\], which is finite\. A function "
        r"with an infinite slope there, as `jnp\.sqrt` has at 0, needs another argument before it, "
        r"`jnp\.sqrt\(jnp\.where\(x > 0, x, 1\.0\)\)`"
    )
    with pytest.raises(NonFiniteError, match=message):
        nnx.debug.nans()(nnx.jit(gradients))(model, X)


# -- between the modules


class Between(nnx.Module):
    """Computes something itself, between two layers."""

    def __init__(self, function: Any):
        rngs = nnx.Rngs(0)
        self.first, self.last = nnx.Linear(4, 4, rngs=rngs), nnx.Linear(4, 4, rngs=rngs)
        self.function = function

    def __call__(self, x: Any) -> Any:
        return self.last(self.function(self.first(x)))


def test_a_module_that_hands_on_what_it_made_itself() -> None:
    model = nnx.Sequential(Between(lambda x: jnp.log(-jnp.abs(x) - 1.0)))
    message = (
        r"model\.layers\[0\] is the first to make NaN, in the forward pass, before it calls "
        r"model\.layers\[0\]\.last: 12 NaN in inputs f32\[3,4\] of Linear\.__call__\. Keep what"
    )
    with pytest.raises(NonFiniteError, match=message) as caught, nnx.debug.nans(model):
        nnx.jit(forward)(model, X)
    assert caught.value.path == "model.layers[0]"


def test_a_module_whose_own_operations_have_bad_gradients() -> None:
    model = Between(lambda x: jnp.sqrt(x * 0.0))
    message = (
        r"model is the first to make NaN, in the backward pass, after it has called model\.first: "
        r"12 NaN in the gradient of output f32\[3,4\] of Linear\.__call__\. A function with"
    )
    with pytest.raises(NonFiniteError, match=message):
        nnx.debug.nans()(nnx.jit(gradients))(model, X)


def test_a_loss_with_bad_gradients() -> None:
    model = nnx.Linear(4, 4, rngs=nnx.Rngs(0))
    bad = nnx.jit(nnx.grad(lambda model, x: jnp.sqrt(model(x) * 0.0).sum()))
    message = (
        r"the gradient that reaches model from outside has NaN: 12 NaN in the gradient of output "
        r"f32\[3,4\] of Linear\.__call__, in the backward pass\. Look at the loss"
    )
    with pytest.raises(NonFiniteError, match=message):
        nnx.debug.nans()(bad)(model, X)


def test_data_that_are_bad() -> None:
    model = nnx.Linear(4, 4, rngs=nnx.Rngs(0))
    message = (
        r"model is given NaN: 1 NaN in inputs f32\[3,4\] of Linear\.__call__\. Look at the data "
        r"and what is done with it before: `jnp\.isfinite\(x\)\.all\(\)`"
    )
    with pytest.raises(NonFiniteError, match=message), nnx.debug.nans(model):
        model(X.at[0, 0].set(jnp.nan))


def test_a_variable_that_is_bad() -> None:
    model = nnx.Sequential(nnx.Linear(4, 4, rngs=nnx.Rngs(0)))
    model.layers[0].kernel[1, 2] = jnp.inf
    message = (
        r"model\.layers\[0\]\.kernel holds infinities when the forward pass begins to use it: 1 "
        r"infinite in kernel f32\[4,4\] of Linear\.__call__\. The step before wrote it: "
        r".*`optax\.clip_by_global_norm\(1\.0\)`"
    )
    with pytest.raises(NonFiniteError, match=message) as caught, nnx.debug.nans(model):
        nnx.jit(forward)(model, X)
    assert caught.value.path == "model.layers[0].kernel"


# -- what is no fault


class Masked(nnx.Module):
    """Adds minus infinity where a mask is, as attention does."""

    def __call__(self, x: Any, mask: Any) -> Any:
        return jax.nn.softmax(x + mask)


def test_masks_may_be_infinite() -> None:
    mask = jnp.where(jnp.arange(4) < 2, 0.0, -jnp.inf)
    nnx.debug.nans()(nnx.jit(lambda model, x: model(x, mask)))(Masked(), X)

    class Holds(nnx.Module):
        def __init__(self) -> None:
            self.mask = nnx.Variable(mask)

        def __call__(self, x: Any) -> Any:
            return jax.nn.softmax(x + self.mask)

    model = Holds()
    nnx.debug.nans()(nnx.jit(forward))(model, X)
    model.mask[0] = jnp.nan
    with pytest.raises(NonFiniteError, match=r"model\.mask holds NaN when the forward pass"):
        nnx.debug.nans()(nnx.jit(forward))(model, X)


def test_infinities_may_be_left_out() -> None:
    class Huge(nnx.Module):
        def __call__(self, x: Any) -> Any:
            return x / 0.0

    model = Huge()
    with nnx.debug.nans(model, infinities=False):
        model(jnp.ones(2))
    with pytest.raises(NonFiniteError, match="make infinities"), nnx.debug.nans(model):
        model(jnp.ones(2))
    with pytest.raises(NonFiniteError), nnx.debug.nans(model, infinities=False):
        model(jnp.zeros(2))


def test_gradients_that_nobody_asks_for() -> None:
    class Norm(nnx.Module):
        def __call__(self, x: Any) -> Any:
            return jnp.sqrt(jnp.sum(x * x))

    model = nnx.Dict(norm=Norm(), scale=nnx.Param(jnp.ones(())))
    f = nnx.jit(nnx.grad(lambda model, x: model.norm(x) + model.scale))
    nnx.debug.nans()(f)(model, jnp.zeros(2))


def test_layers_in_every_precision() -> None:
    for dtype in (jnp.float16, jnp.bfloat16, jnp.float32):
        model = nnx.Linear(4, 4, dtype=dtype, param_dtype=dtype, rngs=nnx.Rngs(0))
        grad = nnx.jit(nnx.grad(lambda m, x: jnp.sum(m(x) ** 2)))
        nnx.debug.nans()(grad)(model, X.astype(dtype))
        with pytest.raises(NonFiniteError, match="model is the first to make"):
            nnx.debug.nans()(nnx.jit(forward))(model, jnp.full((1, 4), jnp.finfo(dtype).max))


def test_values_of_eight_bits() -> None:
    class Cast(nnx.Module):
        def __call__(self, x: Any) -> Any:
            return (x / x).astype(jnp.float8_e5m2)

    with pytest.raises(NonFiniteError, match=r"1 NaN in output f8_e5m2\[2\]"):
        nnx.debug.nans()(jax.jit(forward))(Cast(), jnp.array([0.0, 1.0]))


@pytest.mark.parametrize("name", ["attention with dropout", "BatchNorm", "LSTMCell", "loops"])
def test_healthy_layers(name: str) -> None:
    layer, x = layers.make(name)
    expected = layers.results(nnx.clone(layer), x)
    layers.assert_close(nnx.debug.nans()(layers.results)(layer, x), expected)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_meshes(kind: Any) -> None:
    mesh = make_mesh((4,), ("data",), axis_types=(kind,))
    with jax.set_mesh(mesh):
        model = nnx.Linear(4, 4, rngs=nnx.Rngs(0))
        x = jax.device_put(jnp.ones((4, 4)), jax.NamedSharding(mesh, jax.P("data")))
        step = nnx.debug.nans()(nnx.jit(gradients))
        step(model, x)
        with pytest.raises(NonFiniteError, match=r"given NaN: 16 NaN in inputs f32\[4,4\]"):
            step(model, x * jnp.nan)


# -- transformations


def test_transformations_of_jax_and_weft() -> None:
    class Root(nnx.Module):
        def __call__(self, x: Any) -> Any:
            return jnp.sqrt(x)

    model = nnx.Sequential(nnx.Identity(), Root())
    good, bad = jnp.ones((2, 3)), jnp.ones((2, 3)).at[1, 1].set(-1.0)
    total = lambda model, x: model(x).sum()  # noqa: E731
    for f in (
        lambda model, x: jax.vmap(model)(x),
        lambda model, x: nnx.vmap(forward, in_axes=(None, 0))(model, x),
        lambda model, x: jax.vmap(jax.grad(lambda x: total(model, x)))(x),
        lambda model, x: jax.lax.cond(True, lambda x: model(x), lambda x: x, x),
        lambda model, x: nnx.cond(True, forward, lambda m, x: x, model, x),
        lambda model, x: nnx.fori_loop(0, 1, lambda i, c: (c[0], c[0](c[1])), (model, x)),
        lambda model, x: nnx.scan(forward, in_axes=(None, 0), out_axes=0)(model, x),
        lambda model, x: jax.hessian(lambda x: total(model, x))(x),
    ):
        looked_at = nnx.debug.nans()(nnx.jit(f))
        looked_at(model, good)
        with pytest.raises(NonFiniteError) as caught:
            looked_at(model, bad)
        assert caught.value.path == "model.layers[1]"


def test_forward_mode_needs_no_backward() -> None:
    model = nnx.Linear(4, 4, rngs=nnx.Rngs(0))
    tangent = lambda model, x: jax.jvp(model, (x,), (x,))  # noqa: E731
    nnx.debug.nans(backward=False)(jax.jit(tangent))(model, X)
    with pytest.raises(TypeError, match="can't apply forward-mode") as caught:
        nnx.debug.nans()(jax.jit(tangent))(model, X)
    assert "write `nnx.debug.nans(model, backward=False)`" in caught.value.__notes__[-1]


def test_differentiation_through_shard_map_needs_no_backward() -> None:
    """JAX has no rules there for arguments of which only some are differentiated."""
    model = Between(jnp.tanh)
    model.first.bias = nnx.BatchStat(model.first.bias[...])  # is not differentiated
    mesh = make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))

    def loss_of(model: Any, x: Any) -> Any:
        mapped = nnx.shard_map(
            lambda model, x: jax.lax.pmean(model(x).sum(), "data"),
            mesh=mesh,
            in_specs=(jax.P(), jax.P("data")),
            out_specs=jax.P(),
        )
        return mapped(model, x)

    x = jnp.ones((4, 4))
    nnx.debug.nans(backward=False)(nnx.grad(loss_of))(model, x)
    with pytest.raises(NotImplementedError, match="symbolic_zeros") as caught:
        nnx.debug.nans()(nnx.grad(loss_of))(model, x)
    assert "write `nnx.debug.nans(model, backward=False)`" in caught.value.__notes__[-1]


def test_a_scan_over_time_has_no_layers() -> None:
    """The number of a step is no part of a path."""
    model = nnx.RNN(nnx.SimpleCell(2, 2, rngs=nnx.Rngs(0)), rngs=nnx.Rngs(0))
    model.cell.dense_h.kernel[...] = jnp.full((2, 2), 1e38)
    model.cell.dense_i.kernel[...] = jnp.full((2, 2), 1e38)
    with pytest.raises(NonFiniteError) as caught:
        nnx.debug.nans()(nnx.jit(forward))(model, jnp.full((1, 3, 2), 10.0))
    assert caught.value.path == "model.cell.dense_i"


def test_loops_in_loops_and_backwards() -> None:
    class Outer(nnx.Module):
        def __init__(self, rngs: Any):
            self.inner = nnx.vmap(Root2)(rngs.split(3))

        def __call__(self, x: Any) -> Any:
            options: Any = {"in_axes": (nnx.Carry, 0), "out_axes": nnx.Carry, "reverse": True}
            return nnx.scan(lambda x, m: m(x), **options)(x, self.inner)

    class Root2(nnx.Module):
        def __init__(self, rngs: Any):
            self.shift = nnx.Param(rngs.normal(()) * 0.0)

        def __call__(self, x: Any) -> Any:
            return jnp.log(x + self.shift) * 0.0 + 1.0

    model = nnx.Dict(outer=nnx.Stack(Outer, 4, rngs=nnx.Rngs(0)))
    function = nnx.debug.nans()(nnx.jit(lambda model, x: model.outer(x)))
    shift = model.outer.stacked.inner.shift
    function(model, jnp.ones(()))
    shift[...] = shift[...].at[2, 0].set(-2.0).at[2, 1].set(-2.0).at[3, 2].set(-2.0)
    with pytest.raises(NonFiniteError) as caught:
        function(model, jnp.ones(()))
    assert caught.value.path == "model.outer[2].inner[1]"


def test_modules_that_a_function_closes_over() -> None:
    model = Plain(nnx.Rngs(0))
    call = jax.jit(lambda x: model(x))
    call(X)
    plant(model, "forward")
    compiled = jax.jit(lambda x: model(x))  # the values are constants in it
    with pytest.raises(NonFiniteError) as caught, nnx.debug.nans(model):
        compiled(X)
    assert caught.value.path == PATH


# -- one program with checks, one without


@pytest.mark.parametrize("jit", [nnx.jit, jax.jit], ids=["nnx", "jax"])
def test_programs_are_kept_apart(jit: Any) -> None:
    traces: list[None] = []

    @jit
    def function(model: Any, x: Any) -> Any:
        traces.append(None)
        return model(x)

    model = nnx.Linear(4, 4, rngs=nnx.Rngs(0))
    bad, counts = X * jnp.nan, []
    for _ in range(3):
        for _ in range(2):
            function(model, bad)
        for _ in range(2):
            with pytest.raises(NonFiniteError), nnx.debug.nans(model):
                function(model, bad)
        counts.append(len(traces))
    assert counts == [2, 2, 2], "each is traced once"


def test_a_closure_is_compiled_anew_inside_and_as_before_outside() -> None:
    model = nnx.Linear(4, 4, rngs=nnx.Rngs(0))
    traces: list[None] = []

    @jax.jit
    def function(x: Any) -> Any:
        traces.append(None)
        return model(x)

    function(X * jnp.nan)
    with pytest.raises(NonFiniteError), nnx.debug.nans(model):
        function(X * jnp.nan)
    function(X * jnp.nan)
    assert len(traces) == 2


def test_the_model_is_as_before() -> None:
    model = Plain(nnx.Rngs(0))
    before = nnx.graphdef(model)
    with nnx.debug.nans(model):
        assert nnx.graphdef(model) != before
        gradients(model, X)
    assert nnx.graphdef(model) == before
    assert type(model) is Plain and not hasattr(model, PLACE)
    with pytest.raises(NonFiniteError), nnx.debug.nans(model):
        model(X * jnp.nan)
    assert nnx.graphdef(model) == before


def test_what_is_written_is_kept() -> None:
    model = nnx.BatchNorm(4, rngs=nnx.Rngs(0))
    expected = nnx.clone(model)
    nnx.jit(forward)(expected, X)
    nnx.debug.nans()(nnx.jit(forward))(model, X)
    assert jnp.allclose(model.mean[...], expected.mean[...]) and model.mean[...].any()


def test_results_are_the_same() -> None:
    model = Plain(nnx.Rngs(0))
    found = nnx.debug.nans()(nnx.jit(gradients))(model, X)
    expected = nnx.jit(gradients)(model, X)
    jax.tree.map(
        functools.partial(jnp.allclose, rtol=1e-6),
        jax.tree.leaves(found),
        jax.tree.leaves(expected),
    )
    assert jax.tree.structure(found) == jax.tree.structure(expected)


# -- several runs


def test_the_first_of_several_steps_is_found() -> None:
    """The step that spoils all parameters is bad in one block; those after it in all."""
    model = Plain(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param)

    @nnx.jit
    def step(model: Any, optimizer: Any, x: Any) -> Any:
        value, grads = nnx.value_and_grad(loss)(model, x)
        optimizer.update(model, grads)
        return value

    for phase in ("backward", "forward"):
        plant(model, None)
        with pytest.raises(NonFiniteError) as caught, nnx.debug.nans(model):
            for i in range(4):
                plant(model, phase if i == 1 else None)
                step(model, optimizer, X)
        assert (caught.value.path, caught.value.phase) == (PATH, phase)
        nnx.update(model, nnx.state(Plain(nnx.Rngs(0))))


def test_an_error_of_the_function_says_what_was_found() -> None:
    model = Plain(nnx.Rngs(0))
    plant(model, "forward")
    with pytest.raises(KeyError) as caught, nnx.debug.nans(model):
        nnx.jit(forward)(model, X)
        raise KeyError("loss")
    assert f"{PATH} is the first to make NaN" in caught.value.__notes__[0]


# -- names


def test_objects_have_names() -> None:
    one, two = (nnx.Linear(4, 4, rngs=nnx.Rngs(0)) for _ in range(2))
    for block, path in (
        (nnx.debug.nans(one, two), r"objects\[1\]"),
        (nnx.debug.nans(one, critic=two), "critic"),
        (nnx.debug.nans({"a": one, "b": [two]}), r"model\.b\[0\]"),
    ):
        with pytest.raises(NonFiniteError, match=rf"^{path} is given NaN"), block:
            two(X * jnp.nan)


def test_methods_and_modules_are_decorated() -> None:
    model = nnx.Linear(4, 4, rngs=nnx.Rngs(0))
    for function in (model, model.__call__):
        with pytest.raises(NonFiniteError, match="model is given NaN"):
            nnx.debug.nans()(function)(X * jnp.nan)


def test_other_methods_are_looked_at() -> None:
    embed = nnx.Embed(3, 4, rngs=nnx.Rngs(0))
    with pytest.raises(NonFiniteError, match=r"in query f32\[3,4\] of Embed\.attend"):
        nnx.debug.nans()(lambda embed, x: embed.attend(x))(embed, X * jnp.nan)


def test_blocks_may_nest() -> None:
    model = nnx.Linear(4, 4, rngs=nnx.Rngs(0))
    block = nnx.debug.nans(model)
    with pytest.raises(NonFiniteError, match=r"^model is"), block:
        with block:
            model(X)
        with nnx.debug.nans(inner=model):
            model(X)
        model(X * jnp.nan)


def test_threads_are_apart() -> None:
    """A healthy model beside one that is not, each in a block of its own thread."""
    barrier = threading.Barrier(2, timeout=60)
    found: list[str | None] = [None, None]

    def run(i: int) -> None:
        model = Plain(nnx.Rngs(0))
        plant(model, "forward" if i else None)
        try:
            with nnx.debug.nans(model):
                barrier.wait()
                for _ in range(3):
                    nnx.jit(forward)(model, X)
        except NonFiniteError as error:
            found[i] = error.path

    threads = [threading.Thread(target=run, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [None, PATH]


def test_the_forward_pass_in_a_loop() -> None:
    """There the compiler may let the backward pass tell first."""
    for phase in ("forward", "backward"):
        model = Plain(nnx.Rngs(0))
        plant(model, phase)

        def body(i: Any, carry: Any) -> Any:
            model, total = carry
            return model, total + nnx.value_and_grad(loss)(model, X)[0]

        with pytest.raises(NonFiniteError) as caught, nnx.debug.nans(model):
            nnx.fori_loop(0, 2, body, (model, jnp.zeros(())))
        assert (caught.value.path, caught.value.phase) == (PATH, phase)


def test_nothing_to_look_at() -> None:
    message = r"as a block expects the objects to look at, found none: write `with nnx\.debug\.nans"
    with pytest.raises(ValueError, match=message), nnx.debug.nans():
        pass
    message = r"looks at Modules, and found none among x, y: name the model, `nnx\.debug\.nans\("
    with pytest.raises(ValueError, match=message):
        nnx.debug.nans()(lambda x, y: x)(1, y=2)


def test_a_function_in_place_of_a_model() -> None:
    message = (
        r"expects models, found a function, 'forward': decorate it with `nnx\.debug\.nans\(\)\("
    )
    with pytest.raises(TypeError, match=message):
        nnx.debug.nans(forward)
