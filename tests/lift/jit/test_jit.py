"""`nnx.jit`: its options, stages and errors. What it does to objects is in the laws' table."""

from __future__ import annotations

import functools
import inspect
import re
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

import weft as nnx
from tests.devices import devices
from tests.lift.jit.models import Counter, Wide, X, layer, shardings_of_wide, train_wide

# -- how it is called


def test_all_ways_to_make_one() -> None:
    model = layer()
    expected = model(X)

    @nnx.jit
    def plain(model: Any, x: Any) -> Any:
        """Applies."""
        return model(x)

    @nnx.jit(static_argnames="scale")
    def with_options(model: Any, x: Any, *, scale: Any = 1.0) -> Any:
        return model(x) * scale

    partial = functools.partial(nnx.jit, keep_unused=True)
    for f in (plain, with_options, partial(lambda m, x: m(x)), nnx.jit()(lambda m, x: m(x))):
        np.testing.assert_array_equal(f(model, X), plain(model, X))
    np.testing.assert_allclose(plain(model, X), expected, rtol=1e-6)
    assert (plain.__name__, plain.__doc__) == ("plain", "Applies.")
    assert inspect.isfunction(plain)
    assert isinstance(plain, nnx.transforms.compilation.JitWrapped)
    np.testing.assert_array_equal(nnx.jit(model)(X), plain(model, X))


def test_methods() -> None:
    class Decorated(Counter):
        @nnx.jit
        def jitted(self, x: Any) -> Any:
            return self.count(x)

    model = Decorated()
    assert float(model.jitted(jnp.ones(2))) == 2.0
    assert float(nnx.jit(model.count)(jnp.ones(2))) == 2.0
    assert float(nnx.jit(model.jitted)(jnp.ones(2))) == 2.0
    scaled = nnx.jit(model.count, static_argnums=1)
    assert float(scaled(jnp.ones(2), 3.0)) == 6.0
    assert float(model.calls) == 4.0
    assert isinstance(Decorated.jitted, type(nnx.jit(len)))


def test_keyword_arguments() -> None:
    model = Counter()
    f = nnx.jit(lambda model, *, x, other=None: model.count(x))
    f(model, x=jnp.ones(2))
    f(model=model, x=jnp.ones(2), other={"m": model})
    assert float(model.calls) == 2.0


def test_arguments_that_are_no_objects() -> None:
    f = nnx.jit(lambda x, tree: {"sum": x + tree["a"][0], "none": tree["b"]})
    out = f(1, {"a": [2.0], "b": None})
    assert float(out["sum"]) == 3.0
    assert out["none"] is None
    with pytest.raises(TypeError, match=r"not a valid JAX type|abstract array"):
        f("text", {"a": [1.0], "b": None})


def test_all_of_it_without_arguments() -> None:
    model = nnx.jit(lambda: layer())()
    np.testing.assert_allclose(model.kernel[...], layer().kernel[...], rtol=1e-6)


# -- static arguments


def test_static_arguments() -> None:
    traces = []

    def f(model: Any, config: Any, x: Any, mode: str = "a") -> Any:
        traces.append((config, mode))
        return model(x)

    model = layer()
    for jitted in (
        nnx.jit(f, static_argnums=(1, 3)),
        nnx.jit(f, static_argnames=("config", "mode")),
        nnx.jit(f, static_argnums=1, static_argnames="mode"),
    ):
        traces.clear()
        for config, mode in (({"a": [1]}, "a"), ({"a": [1]}, "a"), ({"a": [2]}, "a")):
            jitted(model, config, X, mode=mode)
        jitted(model, {"a": [2]}, X, mode="b")
        assert traces == [({"a": [1]}, "a"), ({"a": [2]}, "a"), ({"a": [2]}, "b")]


def test_static_self_may_hold_what_changes_at_each_call() -> None:
    """An object that equals only itself is one static argument, as for `jax.jit`."""

    class Trainer:
        def __init__(self) -> None:
            self.scale, self.history = 2.0, []
            self.last: Any = None

        @functools.partial(nnx.jit, static_argnums=0)
        def step(self, model: Any, x: Any) -> Any:
            return model(x).sum() * self.scale

    trainer, model = Trainer(), layer()
    for _ in range(3):
        trainer.history.append(trainer.step(model, X))
        trainer.last = trainer.history[-1]
    assert Trainer.step.cache_info().traces == 1
    Trainer().step(model, X)
    assert Trainer.step.cache_info().traces == 2


def test_negative_static_positions() -> None:
    f = nnx.jit(lambda x, n: x * n, static_argnums=-1)
    assert float(f(1.0, 3)) == 3.0


def test_arguments_that_the_function_does_not_have() -> None:
    def f(model: Any, x: Any) -> Any:
        return model

    name = re.escape("'test_arguments_that_the_function_does_not_have.<locals>.f'")
    with pytest.raises(ValueError, match=f"{name} has no argument 'a', 'y'; it has model, x"):
        nnx.jit(f, static_argnames=("y", "a"))
    with pytest.raises(ValueError, match=f"{name} has no argument 'z'"):
        nnx.jit(f, donate_argnames="z")
    with pytest.raises(ValueError, match=f"{name} has 2 positional arguments, found position 2"):
        nnx.jit(f, donate_argnums=(0, 2))
    with pytest.raises(ValueError, match="found position -3"):
        nnx.jit(f, static_argnums=-3)
    nnx.jit(lambda *args, **kwargs: None, static_argnums=5, static_argnames="any")


def test_functions_without_a_signature() -> None:
    x = jnp.arange(6.0).reshape(3, 2)
    np.testing.assert_array_equal(nnx.jit(getattr, static_argnums=1)(x, "T"), x.T)


# -- shardings


def mesh() -> Mesh:
    return Mesh(np.array(devices(2)), ("data",))


def test_shardings_of_arguments_and_results() -> None:
    split = NamedSharding(mesh(), PartitionSpec("data"))
    whole = NamedSharding(mesh(), PartitionSpec())
    f = nnx.jit(lambda m, x: (m(x), x), in_shardings=(whole, split), out_shardings=(whole, split))
    y, x = f(layer(), jnp.ones((4, 2)))
    assert y.sharding.is_equivalent_to(whole, 2)
    assert x.sharding.is_equivalent_to(split, 2)


def test_what_is_elsewhere_is_moved_once() -> None:
    split = NamedSharding(mesh(), PartitionSpec("data"))
    whole = NamedSharding(mesh(), PartitionSpec())
    f = nnx.jit(lambda m, x: m(x), in_shardings=(whole, None))
    for place in (devices(2)[1], split):
        model = layer()
        nnx.update(model, jax.device_put(nnx.state(model), place))
        f(model, X)
        moved = model.kernel[...]
        assert moved.sharding.is_equivalent_to(whole, 2)
        f(model, X)
        assert model.kernel[...] is moved


@pytest.mark.parametrize(
    "static",
    [
        {"static_argnums": (2, 3)},
        {"static_argnums": (-1, -2)},
        {"static_argnames": ("options", "mode")},
        {"static_argnums": (2, 3), "static_argnames": ("options", "mode")},
    ],
)
def test_static_arguments_have_no_shardings(static: dict[str, Any]) -> None:
    whole = NamedSharding(mesh(), PartitionSpec())
    split = NamedSharding(mesh(), PartitionSpec("data"))

    def f(model: Any, x: Any, options: Any, mode: str = "double") -> Any:
        assert options == {"scale": [2.0]}  # static, and it cannot be hashed
        return model(x) * (options["scale"][0] if mode == "double" else 1.0)

    model, x, options = layer(), jnp.ones((4, 2)), {"scale": [2.0]}
    jitted = nnx.jit(f, in_shardings=(whole, split), out_shardings=split, **static)
    for args, kwargs in (
        ((model, x, options), {}),
        ((model, x, options, "double"), {}),
        ((model, x), {"mode": "double", "options": options}),
    ):
        y = jitted(*args, **kwargs)
        assert y.sharding.is_equivalent_to(split, 2)
        np.testing.assert_allclose(y, 2 * model(x), rtol=1e-6)
    np.testing.assert_allclose(jitted(model, x, options, "plain"), model(x), rtol=1e-6)


def test_static_arguments_before_those_with_shardings() -> None:
    split = NamedSharding(mesh(), PartitionSpec("data"))
    first = nnx.jit(lambda n, x: x * n, in_shardings=(split,), static_argnums=0)
    assert first(2.0, jnp.ones(4)).sharding.is_equivalent_to(split, 1)
    model = Counter()
    bound = nnx.jit(model.count, in_shardings=(split,), static_argnums=1)
    assert float(bound(jnp.ones(2), 3.0)) == 6.0


def test_shardings_by_filter() -> None:
    split = NamedSharding(mesh(), PartitionSpec(None, "data"))
    whole = NamedSharding(mesh(), PartitionSpec())
    by_filter = nnx.StateSharding({nnx.PathContains("kernel"): split, ...: whole})
    assert by_filter.shardings == (split, whole)
    assert by_filter.filters == (nnx.PathContains("kernel"), ...)

    def double(model: Any) -> None:
        model.kernel[...] = model.kernel[...] * 2.0
        model.bias[...] = model.bias[...] + 1.0

    model = layer()
    nnx.jit(double, in_shardings=(by_filter,))(model)
    assert model.kernel.sharding.is_equivalent_to(split, 2)
    assert model.bias.sharding.is_equivalent_to(whole, 1)


def test_shardings_beside_the_wrong_number_of_arguments() -> None:
    one = SingleDeviceSharding(jax.devices()[0])
    f = nnx.jit(lambda model, x, y: model, in_shardings=(one, None))
    found = re.escape(
        "was given 2 prefixes for 3 arguments:\n  arguments: (model, x, y)\n  prefixes"
    )
    with pytest.raises(nnx.PrefixError, match=found):
        f(layer(), X, X)


# -- donation


def test_donated_arguments() -> None:
    model, x = Counter(), jnp.ones(2)

    def step(model: Any, x: Any) -> Any:
        model.calls[...] = model.calls[...] + 1.0
        return x * 2.0

    for options in ({"donate_argnums": (0, 1)}, {"donate_argnames": ("model", "x")}):
        calls, read, given = model.calls[...], model.w[...], x + 0.0
        nnx.jit(step, **options)(model, given)
        assert calls.is_deleted()
        assert given.is_deleted()
        assert not read.is_deleted()  # only read: it is no output
        assert model.w[...].tolist() == [1.0, 1.0]
    assert float(model.calls) == 2.0


def test_what_to_donate() -> None:
    with pytest.raises(ValueError, match="donate must be 'written' or None, found 'all'"):
        nnx.jit(lambda m: m, donate="all")


# -- shapes


def test_shapes_of_results() -> None:
    model = Counter()
    jitted = nnx.jit(lambda model, x, mode: (model.count(x), mode), static_argnames="mode")
    out = nnx.jit(lambda model, x: model.count(x)).eval_shape(model, jnp.ones(2))
    assert out == jax.ShapeDtypeStruct((), jnp.float32)
    out, _ = jitted.eval_shape(model, jnp.ones(2), mode=1.0)
    assert out.shape == ()
    assert nnx.jit(model.count).eval_shape(jnp.ones(2)).shape == ()
    assert float(model.calls) == 0.0


# -- one program


def test_nested_jit_and_grad() -> None:
    model = Counter()
    inner = nnx.jit(lambda model, x: model.count(x))

    @nnx.jit
    def outer(model: Any, x: Any) -> Any:
        inner(model, x)
        grads = nnx.grad(lambda m: inner(m, x))(model)
        return grads

    grads = outer(model, jnp.array([1.0, 3.0]))
    assert grads.w[...].tolist() == [1.0, 3.0]
    assert float(model.calls) == 2.0


def test_inside_plain_jax() -> None:
    inner = nnx.jit(lambda model, x: model.count(x))

    @jax.jit
    def outer(model: Any, x: Any) -> Any:
        inner(model, x)
        return model

    out = outer(Counter(), jnp.ones(2))
    assert float(out.calls) == 1.0
    stacked = jax.tree.map(lambda *xs: jnp.stack(xs), Counter(), Counter())
    with pytest.warns(UserWarning, match="what is written here .* is lost"):
        grads = jax.grad(lambda m: inner(m, jnp.ones(2)))(Counter())
        assert jax.vmap(inner, (0, None))(stacked, jnp.ones(2)).tolist() == [2.0, 2.0]
    assert grads.w[...].tolist() == [1.0, 1.0]


def test_errors_of_the_function_come_out_as_they_are() -> None:
    def bad(model: Any) -> None:
        raise KeyError("mine")

    model = Counter()
    for _ in range(2):
        with pytest.raises(KeyError, match="mine"):
            nnx.jit(bad)(model)


def test_what_has_no_call() -> None:
    class Model(nnx.Module):
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def forward(self, x: Any) -> Any:
            return self.inner(x)

    model = Model(nnx.Linear(2, 2, rngs=nnx.Rngs(0)))
    with pytest.raises(TypeError, match=r"a Model is not callable.*`model.method`"):
        nnx.jit(model)
    assert nnx.jit(model.forward)(jnp.ones((1, 2))).shape == (1, 2)


# -- shardings and stages go the way of all calls


@pytest.mark.parametrize("committed", [False, True])
def test_shardings_place_variables_once(committed: bool) -> None:
    spec, split, same = shardings_of_wide()
    m = Wide()
    if committed:
        m.kernel[...] = jax.device_put(m.kernel[...], same)
        m.scale[...] = jax.device_put(m.scale[...], same)
    forward = nnx.jit(lambda m, x: (m.kernel * m.scale).sum() + x, in_shardings=(spec, None))
    for _ in range(3):
        assert float(forward(m, 1.0)) == 497.0
    assert m.kernel[...].sharding == split and m.scale[...].sharding == same
    arrays = [m.kernel[...], m.scale[...]]
    forward(m, 2.0)
    assert [m.kernel[...] is arrays[0], m.scale[...] is arrays[1]] == [True, True]


def test_a_jitted_function_by_value() -> None:
    cloudpickle = pytest.importorskip("cloudpickle")
    m, x, factor = Wide(), jnp.ones(2), 2.0
    train = nnx.jit(lambda m, x: train_wide(m, x * factor))
    train(m, x), train(m, x)
    copy, twin = cloudpickle.loads(cloudpickle.dumps((train, m)))
    np.testing.assert_allclose(copy(twin, x), train(m, x))
    assert copy.cache_info().traces == 1
    bound = cloudpickle.loads(cloudpickle.dumps(nnx.jit(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))))
    assert bound(jnp.ones((1, 2))).shape == (1, 3)


def test_programs_carry_the_name_of_the_function() -> None:
    def my_step(m: Wide, x: Any) -> Any:
        return x if m.kernel.sum() > x else -x

    with pytest.raises(jax.errors.TracerBoolConversionError) as caught:
        nnx.jit(my_step)(Wide(), 1.0)
    assert f"my_step at {__file__}" in str(caught.value)
    assert "m.kernel" in str(caught.value) and "kept[" not in str(caught.value)
    assert "jit_forward" in nnx.jit(Named().forward).lower(1.0).as_text().splitlines()[0]


class Named(nnx.Module):
    def forward(self, x: Any) -> Any:
        return x


# -- inside of a trace of JAX, with an object from outside
def _quietly(call: Any) -> Any:
    def run(x: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a captured Variable is a constant
            return call(x)

    return run


def test_shardings_of_a_captured_object() -> None:
    spec, _, _ = shardings_of_wide()
    m = Wide()
    forward = nnx.jit(lambda m, x: (m.kernel * m.scale).sum() + x, in_shardings=(spec, None))
    assert float(jax.jit(_quietly(lambda x: forward(m, x)))(1.0)) == 497.0
    np.testing.assert_array_equal(m.kernel, np.arange(32.0).reshape(8, 4))


def test_a_captured_object_is_not_written() -> None:
    m, x = Wide(), jnp.ones(2)
    train = nnx.jit(train_wide)
    for _ in range(4):
        train(m, x)
    before = np.array(nnx.clone(m).kernel)
    with pytest.raises(nnx.TraceContextError, match="cannot write Param of shape"):
        jax.jit(_quietly(lambda x: train(m, x)))(x)
    np.testing.assert_array_equal(m.kernel, before)
    np.testing.assert_allclose(train(m, x), (before + 2).sum())


def test_shardings_that_depend_on_values() -> None:
    """Objects of one structure may be placed apart."""
    _, split, same = shardings_of_wide()
    large = nnx.StateSharding({lambda path, v: float(v[...].ravel()[0]) > 0: split, ...: same})
    total = nnx.jit(lambda m: m.kernel.sum(), in_shardings=(large,))
    for start, sharding in ((1.0, split), (0.0, same), (1.0, split)):
        m = Wide()
        m.kernel[...] = m.kernel + start
        m.scale[...] = jnp.zeros(4)
        for _ in range(2):
            assert float(total(m)) == 496.0 + 32 * start
        assert m.kernel[...].sharding == sharding


def test_shardings_beside_a_keyword_without_arrays() -> None:
    _, _, same = shardings_of_wide()
    total = nnx.jit(lambda v, *, mask=None: v.sum(), in_shardings=(same,))
    v = nnx.Variable(jnp.ones(2))
    for _ in range(2):
        assert float(total(v, mask=None)) == 2.0
