"""`scan` over modules: as carry, as stacked layers, broadcast, and several at once."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx


class Counter(nnx.Module):
    def __init__(self, size=2):
        self.w = nnx.Param(jnp.ones(size))
        self.count = nnx.BatchStat(jnp.zeros(()))

    def __call__(self, x):
        self.count[...] = self.count + 1.0
        return self.w * x

    def step(self, x):
        self.count[...] = self.count + jnp.sum(x)
        return 2.0 * x


def layers(number=3, size=2):
    """Returns `number` layers in one; layer `i` multiplies by `i + 1`."""
    made = nnx.vmap(lambda _: Counter(size))(jnp.arange(number))
    made.w[...] = made.w * jnp.arange(1.0, number + 1)[:, None]
    return made


def error_of(kind, call, *args, **kwargs):
    with pytest.raises(kind) as caught:
        call(*args, **kwargs)
    assert not any(line.endswith(" ") for line in str(caught.value).splitlines())
    return str(caught.value)


CARRY = {"in_axes": nnx.Carry, "out_axes": nnx.Carry}
LAYERS = {"in_axes": (nnx.Carry, 0), "out_axes": nnx.Carry}


# -- where modules may be


def test_stacked_layers():
    stack = layers()
    y = nnx.scan(lambda x, layer: layer(x), **LAYERS)(jnp.ones(2), stack)
    np.testing.assert_array_equal(y, [6.0, 6.0])
    np.testing.assert_array_equal(stack.count, [1.0, 1.0, 1.0])


def test_a_module_as_carry():
    def step(model, x):
        return model, model(x)

    model = Counter()
    out, ys = nnx.scan(step)(model, jnp.arange(6.0).reshape(3, 2))
    assert out is model
    assert model.count[...] == 3.0
    np.testing.assert_array_equal(ys, jnp.arange(6.0).reshape(3, 2))


def test_all_three_at_once_and_state_axes_that_carry():
    shared = Counter()
    axes = nnx.StateAxes({nnx.BatchStat: nnx.Carry, ...: None})
    stack, carried = layers(), Counter()

    @nnx.scan(in_axes=(0, (nnx.Carry), axes, 1), out_axes=(nnx.Carry, 1))
    def step(layer, carry, shared, x):
        model, y = carry
        y = shared(layer(model(y))) + x
        return (model, y), y

    x = jnp.zeros((2, 3))
    (out, y), ys = step(stack, (carried, jnp.ones(2)), shared, x)
    assert out is carried
    assert carried.count[...] == shared.count[...] == 3.0
    np.testing.assert_array_equal(stack.count, [1.0, 1.0, 1.0])
    np.testing.assert_array_equal(y, [6.0, 6.0])
    np.testing.assert_array_equal(ys[0], [1.0, 2.0, 6.0])


def test_state_axes_without_an_explicit_carry():
    axes = nnx.StateAxes({nnx.BatchStat: nnx.Carry, ...: 0})
    model = layers()
    model.count = nnx.BatchStat(jnp.zeros(()))
    nnx.scan(lambda m, x: m(x), in_axes=(axes, None), out_axes=0)(model, jnp.ones(2))
    assert model.count[...] == 3.0


def test_the_carry_may_hold_what_state_axes_carry_too():
    model = nnx.Dict(n=nnx.Variable(jnp.zeros(())))
    axes = nnx.StateAxes({...: nnx.Carry})

    def step(m, carry):
        same, x = carry
        assert same is m
        m["n"][...] = m["n"] + x
        return same, x * 2.0

    out, x = nnx.scan(step, length=3, in_axes=(axes, nnx.Carry), out_axes=nnx.Carry)(
        model, (model, jnp.ones(()))
    )
    assert out is model
    assert (model["n"][...], x) == (7.0, 8.0)


def test_carry_at_a_nested_place():
    def step(inputs):
        return {"y": inputs["x"], "out": [inputs["c"] + inputs["x"]]}

    axes = {"c": nnx.Carry, "x": 0}
    out = nnx.scan(step, in_axes=(axes,), out_axes={"y": 0, "out": [nnx.Carry]})(
        {"c": jnp.zeros(()), "x": jnp.arange(4.0)}
    )
    assert out["out"][0] == 6.0
    np.testing.assert_array_equal(out["y"], jnp.arange(4.0))


def test_a_new_object_at_a_place_of_the_carry():
    def step(model, x):
        fresh = Counter()
        fresh.w[...] = model.w + x
        return fresh

    model = Counter()
    out = nnx.scan(step, **LAYERS)(model, jnp.arange(3.0))
    assert out is not model
    np.testing.assert_array_equal(out.w, [4.0, 4.0])
    np.testing.assert_array_equal(model.w, [1.0, 1.0])


def test_arrays_as_attributes():
    class Holder(nnx.Module):
        def __init__(self):
            self.x = jnp.zeros(())

    def step(holder):
        holder.x = holder.x + 1.0
        return holder

    carried, by_filter = Holder(), Holder()
    nnx.scan(step, length=3, **CARRY)(carried)
    axes = nnx.StateAxes({...: nnx.Carry})
    nnx.scan(lambda h: step(h) and None, length=3, in_axes=(axes,), out_axes=0)(by_filter)
    assert carried.x == by_filter.x == 3.0
    by_filter.x = jnp.arange(3.0)
    nnx.scan(lambda h: step(h) and None, in_axes=0, out_axes=0)(by_filter)
    np.testing.assert_array_equal(by_filter.x, [1.0, 2.0, 3.0])


def test_what_a_layer_sows_comes_out_stacked():
    class Sows(nnx.Module):
        def __init__(self):
            self.w = nnx.Param(jnp.full(2, 2.0))

        def __call__(self, x):
            self.sow(nnx.Intermediate, "seen", x)
            self.ready = True
            return self.w * x

    class Carried(nnx.Pytree):
        def __init__(self, x):
            self.x = nnx.Variable(x)

    def step(carry, layer):
        carry.x[...] = layer(carry.x[...])
        return carry

    stack = nnx.vmap(lambda _: Sows())(jnp.arange(3))
    forward = nnx.scan(step, **LAYERS)
    np.testing.assert_array_equal(forward(Carried(jnp.ones(2)), stack).x, [8.0, 8.0])
    np.testing.assert_array_equal(stack.seen[0][:, 0], [1.0, 2.0, 4.0])
    assert stack.ready
    forward(Carried(jnp.ones(2)), stack)
    assert [x.shape for x in stack.seen] == [(3, 2), (3, 2)]
    nnx.pop(stack, nnx.Intermediate)
    plain = nnx.scan(lambda x, layer: layer(x), **LAYERS)(jnp.ones(2), stack)
    np.testing.assert_array_equal(plain, [8.0, 8.0])
    np.testing.assert_array_equal(stack.seen[0][:, 0], [1.0, 2.0, 4.0])


@nnx.split_rngs(splits=3)
@nnx.vmap
def make_dropouts(rngs):
    return nnx.Dropout(0.5, rngs=rngs)


def test_dropout_in_stacked_layers_draws_apart():
    stack = make_dropouts(nnx.Rngs(0))
    step = nnx.scan(lambda x, layer: (x, layer(x)))
    ys = step(jnp.ones(32), stack)[1]
    assert len({row.tobytes() for row in np.asarray(ys)}) == 3
    grads = nnx.grad(lambda x, stack: step(x, stack)[1].sum())(jnp.ones(32), stack)
    assert set(np.asarray(grads)) <= {0.0, 2.0, 4.0, 6.0}
    np.testing.assert_array_equal(stack.rngs.count, [2, 2, 2])


def test_plain_grad_through_a_scan_over_layers_with_streams():
    graphdef, state = nnx.split(make_dropouts(nnx.Rngs(0)))
    step = nnx.scan(lambda x, layer: (x, layer(x)))

    def loss(x, state):
        stack = nnx.merge(graphdef, state)
        return step(x, stack)[1].sum(), nnx.state(stack, nnx.RngCount)

    grads, counts = jax.jit(jax.grad(loss, has_aux=True))(jnp.ones(32), state)
    assert set(np.asarray(grads)) <= {0.0, 2.0, 4.0, 6.0}
    np.testing.assert_array_equal(jax.tree.leaves(counts)[0], [1, 1, 1])


# -- options


def test_axes_of_arrays():
    x = jnp.arange(24.0).reshape(2, 3, 4)

    @nnx.scan(in_axes=(nnx.Carry, -1), out_axes=(nnx.Carry, 1))
    def step(total, x):
        return total + x.sum(), 2.0 * x

    total, ys = step(jnp.zeros(()), x)
    assert total == x.sum()
    np.testing.assert_array_equal(ys, jnp.moveaxis(2.0 * x, -1, 1))


def test_without_carry():
    np.testing.assert_array_equal(
        nnx.scan(lambda x, y: x + y, in_axes=(0, None), out_axes=0)(jnp.arange(3.0), 1.0),
        [1.0, 2.0, 3.0],
    )


def test_length_reverse_and_unroll():
    def step(c, x):
        return 2.0 * c + x, c

    x = jnp.arange(4.0)
    expected = jax.lax.scan(step, jnp.ones(()), x, reverse=True)
    for unroll in (1, 2, True, 4):
        out = nnx.scan(step, reverse=True, unroll=unroll)(jnp.ones(()), x)
        jax.tree.map(np.testing.assert_array_equal, out, expected)
        jaxpr = jax.make_jaxpr(nnx.scan(step, unroll=unroll))(jnp.ones(()), x)
        (equation,) = scans_in(jaxpr.jaxpr)
        assert equation.params["unroll"] == (4 if unroll is True else unroll)
    assert nnx.scan(lambda c: c * 2.0, length=3, **CARRY)(1.0) == 8.0
    assert nnx.scan(step, length=4, _split_transpose=True)(jnp.ones(()), x)[1].shape == (4,)
    with pytest.raises(ValueError, match="length"):
        nnx.scan(step, length=5)(jnp.ones(()), x)


def test_no_iterations():
    out, ys = nnx.scan(lambda m, x: (m, m(x)))(model := Counter(), jnp.ones((0, 2)))
    assert out is model
    assert ys.shape == (0, 2)
    assert model.count[...] == 0.0


def test_keywords_defaults_and_methods():
    def step(c, x, scale=2.0, *, bias=0.0):
        return c + scale * x + bias

    add = nnx.scan(step, **LAYERS)
    x = jnp.arange(3.0)
    assert add(0.0, x) == add(c=0.0, x=x) == 6.0
    assert add(0.0, x=x, scale=1.0, bias=1.0) == 6.0
    model = Counter()
    assert nnx.scan(model.step, length=3, **CARRY)(jnp.ones(())) == 8.0
    assert model.count[...] == 7.0
    axes = nnx.StateAxes({...: nnx.Carry})
    by_argument = nnx.scan(Counter.step, length=2, in_axes=(axes, nnx.Carry), out_axes=nnx.Carry)
    assert by_argument(model, jnp.ones(())) == 4.0
    assert model.count[...] == 10.0


def test_a_weak_carry_is_promoted_as_jax_does():
    out = nnx.scan(lambda c, x: c + x, **LAYERS)(0, jnp.arange(3.0))
    assert out == 3.0
    assert out.dtype == jnp.float32


def test_modes():
    stack = layers()
    step = nnx.scan(lambda x, layer: layer(x), graph=False, graph_updates=False, **LAYERS)
    np.testing.assert_array_equal(step(jnp.ones(2), stack), [6.0, 6.0])
    np.testing.assert_array_equal(stack.count, [1.0, 1.0, 1.0])
    shared = nnx.Dict(a=stack.w, b=stack.w)
    with pytest.raises(nnx.SharedReferenceError, match=r"layer\.a and at layer\.b"):
        step(jnp.ones(2), shared)


# -- what comes out


def scans_in(jaxpr):
    """Yields the scans of a jaxpr and of those inside it."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "scan":
            yield equation
        for parameter in jax.tree.leaves(list(equation.params.values())):
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                yield from scans_in(inner)


def shapes(variables):
    return sorted(x.aval.shape for x in variables)


def test_read_only_parameters_are_no_outputs():
    stack, model = layers(size=4), Counter(size=4)
    model.big = nnx.Param(jnp.ones((7, 7)))

    def forward(x, stack, model):
        def step(x, layer, model):
            return layer(x) * model.w + model.big.sum()

        return nnx.scan(step, in_axes=(nnx.Carry, 0, None), out_axes=nnx.Carry)(x, stack, model)

    jaxpr = nnx.make_jaxpr(forward)(jnp.ones(4), stack, model).jaxpr
    (scan,) = scans_in(jaxpr)
    assert shapes(scan.outvars) == shapes(jaxpr.outvars) == [(3,), (4,)]  # counts, and x
    inner = scan.params["jaxpr"].jaxpr
    assert not {id(x) for x in inner.outvars} & {id(x) for x in inner.invars}


def test_many_layers_under_grad_inside_a_loop_keep_parameters_inside():
    def forward(x, layer):
        return jnp.tanh(layer.w * x), None

    def by_hand(w, x):
        return jax.lax.scan(lambda x, w: (jnp.tanh(w * x), None), x, w)[0].sum()

    def loss(stack, x):
        return nnx.scan(forward)(x, stack)[0].sum()

    def train(stack, x):
        def once(_, stack):
            stack.w[...] = stack.w - nnx.grad(loss)(stack, x)["w"]
            return stack

        nnx.fori_loop(0, 3, once, stack)

    stack = layers(50)
    jaxpr = nnx.make_jaxpr(train)(stack, jnp.ones(2))
    assert [x.shape for x in jaxpr.out_avals] == [(50, 2)]
    grads = jax.make_jaxpr(jax.grad(by_hand))(stack.w[...], jnp.ones(2))
    ours = nnx.make_jaxpr(lambda stack, x: nnx.grad(loss)(stack, x)["w"][...])(stack, jnp.ones(2))
    ours, expected = ([shapes(e.outvars) for e in scans_in(j.jaxpr)] for j in (ours, grads))
    assert ours == expected


@pytest.mark.parametrize("with_grad", [False, True], ids=["forward", "grad"])
def test_memory_is_that_of_jax(with_grad):
    stack, x = layers(20, 32), jnp.ones((64, 32))

    def by_hand(w, count, x):
        def body(x, layer):
            w, count = layer
            return jnp.tanh(w * x), count + 1.0

        y, counts = jax.lax.scan(body, x, (w, count))
        return y.sum(), counts

    def with_weft(stack, x):
        return nnx.scan(lambda x, layer: jnp.tanh(layer(x)), **LAYERS)(x, stack).sum()

    if with_grad:
        ours, raw = nnx.grad(with_weft), jax.grad(by_hand, has_aux=True)
    else:
        ours, raw = with_weft, by_hand
    ours = nnx.jit(ours).lower(stack, x).compile().memory_analysis()
    raw = jax.jit(raw).lower(stack.w[...], stack.count[...], x).compile().memory_analysis()
    assert ours.temp_size_in_bytes <= 1.05 * raw.temp_size_in_bytes
    assert ours.output_size_in_bytes <= 1.05 * raw.output_size_in_bytes


def test_a_carried_module_that_is_only_read_comes_out_as_it_was():
    def step(m, x):
        return m, m.w * x

    model = Counter()
    before = model.w[...]
    nnx.scan(step)(model, jnp.ones((3, 2)))
    assert model.w[...] is before


# -- mistakes


def step_of_two(x, layer):
    return x, x


def test_carry_in_the_wrong_order_shows_the_signature():
    message = error_of(
        nnx.PrefixError, nnx.scan(step_of_two, in_axes=(0, nnx.Carry)), 1.0, layers()
    )
    assert "nnx.scan of 'step_of_two' maps x over axis 0, but its shape is ()" in message
    assert "function: step_of_two(x, layer)\n  in_axes:  (0, nnx.Carry)" in message


def test_carry_on_one_side_only():
    message = error_of(nnx.PrefixError, nnx.scan, step_of_two, in_axes=(0, 0))
    assert "needs nnx.Carry in both in_axes and out_axes, or in neither" in message
    assert (
        "function: step_of_two(x, layer)\n  in_axes:  (0, 0)\n  out_axes: (nnx.Carry, 0)" in message
    )


def test_two_carries():
    message = error_of(nnx.PrefixError, nnx.scan, step_of_two, in_axes=(nnx.Carry, nnx.Carry))
    assert "can have one nnx.Carry in in_axes, found 2" in message
    assert "Put all that is carried into one argument, `(a, b)`" in message


def test_axes_that_do_not_match_the_arguments():
    message = error_of(nnx.PrefixError, nnx.scan(step_of_two), 1.0, jnp.ones(3), jnp.ones(3))
    assert "given 2 prefixes for 3 arguments" in message
    message = error_of(nnx.PrefixError, nnx.scan(step_of_two, in_axes=((nnx.Carry,), 0)), 1.0, 1.0)
    assert "given to nnx.Carry" in message or "prefix" in message


def test_a_result_without_the_place_of_the_carry():
    f = nnx.scan(lambda c, x: c, out_axes=(nnx.Carry, 0))
    message = error_of(nnx.PrefixError, f, jnp.zeros(()), jnp.ones(3))
    assert "without the place that out_axes gives to nnx.Carry" in message
    assert "out_axes: (nnx.Carry, 0)" in message


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (
            lambda c, x: c,
            r"returns f32\[2\] without the place that out_axes gives to ",
        ),
        (lambda c, x: None, r"returns None without the place that out_axes gives to nnx\.Carry"),
        (
            lambda c, x: (c,),
            r"returns a tuple of one value\. `out_axes` has 2 places: ",
        ),
        (
            lambda c, x: (c, x, x),
            r"returns 3 values\. .*`return carry, y`, or .*`out_axes=nnx",
        ),
    ],
)
def test_a_body_that_returns_too_little_or_too_much(body, found):
    f = nnx.scan(body, in_axes=(nnx.Carry, 0), out_axes=(nnx.Carry, 0))
    with pytest.raises(nnx.PrefixError, match=found):
        f(jnp.zeros(2), jnp.ones((3, 2)))


def test_a_new_value_under_the_axis_none():
    f = nnx.scan(lambda c, x: (c, x), out_axes=(nnx.Carry, None))
    message = error_of(nnx.PrefixError, f, jnp.zeros(()), jnp.ones(3))
    assert "returns a value under the axis None, but every iteration makes another" in message
    assert "out_axes: (nnx.Carry, None)" in message

    def adds(x, m):
        m.new = nnx.Cache(x)
        return x

    f = nnx.scan(adds, length=2, in_axes=(nnx.Carry, None), out_axes=nnx.Carry)
    assert "adds m.new under the axis None" in error_of(nnx.PrefixError, f, 1.0, Counter())


def test_different_lengths():
    message = error_of(nnx.PrefixError, nnx.scan(lambda c, x, y: (c, x), in_axes=(nnx.Carry, 0, 0)),
                       1.0, layers(), jnp.ones(4))  # fmt: skip
    assert "maps over axes of different lengths: x.count has 3, y has 4" in message


def test_a_static_attribute_changed_in_the_body():
    def step(x, layer):
        layer.mode = "b"
        return x

    stack = layers()
    stack.mode = "a"
    message = error_of(nnx.StructureError, nnx.scan(step, **LAYERS), 1.0, stack)
    assert "changes the static attribute layer.mode to 'b': the body is traced once" in message
    assert "`nnx.Variable(value)`" in message
    message = error_of(
        nnx.StructureError, nnx.scan(lambda c, x: [step(x, c), c][1], **LAYERS), stack, jnp.ones(3)
    )
    assert "c.mode was 'a' (static) before and is 'b' (static) after" in message


def test_forgotten_split_under_scan():
    dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(0))
    message = error_of(nnx.PrefixError, nnx.scan(lambda x, d: d(x), **LAYERS), jnp.ones(2), dropout)
    assert "the random stream 'default' has one key for all" in message
    assert "above `@nnx.scan`" in message


def test_one_variable_in_two_roles():
    stack = layers()
    f = nnx.scan(lambda x, a, b: x, in_axes=(nnx.Carry, 0, None), out_axes=nnx.Carry)
    message = error_of(nnx.AliasError, f, 1.0, stack, {"again": stack})
    assert "a.count has 0, b.again.count has None" in message
    f = nnx.scan(lambda c, layer: (c, layer), out_axes=(nnx.Carry, 1))
    message = error_of(nnx.AliasError, f, jnp.zeros(()), stack)
    assert "layer.count has 0, output[1].count has 1" in message


# -- JAX's cache, and transforms around and inside


def test_the_same_function_is_traced_once():
    traces = []

    def step(x, layer):
        traces.append(1)
        return layer(x)

    def forward(x, stack):
        return nnx.scan(step, **LAYERS)(x, stack)

    stack = layers()
    for _ in range(3):
        forward(jnp.ones(2), stack)
    nnx.jit(lambda x, stack: forward(forward(x, stack), stack))(jnp.ones(2), layers())
    assert len(traces) == 1


@pytest.mark.parametrize("x", [jnp.ones(2), 1, 1.0], ids=["array", "int", "float"])
def test_a_body_is_traced_as_often_as_by_jax(x):
    traces = []

    def step(c, x):
        traces.append(1)
        return c + x, c

    for scan in (jax.lax.scan, nnx.scan(lambda c, x: step(c, x))):
        scan = functools.partial(scan, step) if scan is jax.lax.scan else scan
        scan(x, jnp.ones((3, 2)) if isinstance(x, jax.Array) else jnp.ones(3))
    by_jax, ours = len(traces) - len(traces) // 2, len(traces) // 2
    assert ours == by_jax


def test_grad_inside_scan_inside_jit():
    @nnx.jit
    def train(model, xs):
        def step(model, x):
            def loss(model):
                return jnp.sum(model(x) ** 2)

            value, grads = nnx.value_and_grad(loss)(model)
            model.w[...] = model.w - 0.1 * grads["w"]
            return model, value

        return nnx.scan(step)(model, xs)[1]

    model = Counter()
    losses = train(model, jnp.ones((3, 2)))
    w = jnp.ones(2)
    for loss in losses:
        np.testing.assert_allclose(loss, jnp.sum(w**2), rtol=1e-6)
        w = w - 0.2 * w
    np.testing.assert_allclose(model.w, w, rtol=1e-6)
    assert model.count[...] == 3.0


def test_nested_scans_and_vmap_inside():
    grid = nnx.vmap(lambda _: layers(2))(jnp.arange(3))

    def row(x, layers):
        return nnx.scan(lambda x, layer: nnx.vmap(layer_of(layer))(x), **LAYERS)(x, layers)

    def layer_of(layer):
        return lambda x: layer.w * x

    y = nnx.scan(row, **LAYERS)(jnp.ones((5, 2)), grid)
    np.testing.assert_array_equal(y, jnp.full((5, 2), 8.0))


def test_plain_jax_around_and_inside():
    def total(w, x):
        stack = layers()
        stack.w[...] = w

        def step(x, layer):
            return jax.lax.cond(x.sum() > 0, lambda x: jnp.sin(layer.w * x), lambda x: x, x)

        return nnx.scan(step, **LAYERS)(x, stack).sum()

    def by_hand(w, x):
        return jax.lax.scan(lambda x, w: (jnp.sin(w * x), None), x, w)[0].sum()

    w, x = layers().w[...], jnp.full(2, 0.3)
    grad = jax.jit(jax.grad(total))(w, x)
    np.testing.assert_allclose(grad, jax.grad(by_hand)(w, x), rtol=1e-6)
    np.testing.assert_allclose(
        jax.hessian(total, 1)(w, x), jax.hessian(by_hand, 1)(w, x), rtol=1e-5
    )
