"""`vmap`, `pmap`, `shard_map` and `transform_metadata`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx
from tests.devices import devices, make_mesh

P = jax.sharding.PartitionSpec


class Scaled(nnx.Module):
    """Multiplies by a weight and keeps what it saw last."""

    def __init__(self, size=2, weight=1.0):
        self.w = nnx.Param(jnp.full(size, weight))
        self.seen = nnx.BatchStat(jnp.zeros(()))

    def __call__(self, x):
        self.seen[...] = jnp.sum(x) + 0.0 * self.seen
        return self.w * x


def stacked(number=3, size=2):
    """Returns `number` models in one; model `i` has weight `i`."""

    def make(weight):
        return Scaled(size, weight)

    return nnx.vmap(make)(jnp.arange(float(number)))


def data_mesh(number=2, name="data"):
    return make_mesh((number,), (name,), axis_types=(jax.sharding.AxisType.Auto,))


def error_of(kind, call, *args, **kwargs):
    with pytest.raises(kind) as caught:
        call(*args, **kwargs)
    text = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
    assert not any(line.endswith(" ") for line in text.splitlines())
    return text


# -- vmap: axes


def test_modules_made_inside_come_out_stacked():
    models = stacked()
    assert models.w.shape == (3, 2)
    assert models.seen.shape == (3,)
    np.testing.assert_array_equal(models.w[:, 0], [0.0, 1.0, 2.0])


def test_a_mapped_module_is_written_per_slice():
    models = stacked()
    y = nnx.vmap(lambda m, x: m(x))(models, jnp.arange(6.0).reshape(3, 2))
    np.testing.assert_array_equal(y, [[0, 0], [2, 3], [8, 10]])
    np.testing.assert_array_equal(models.seen[...], [1.0, 5.0, 9.0])


@pytest.mark.parametrize("axis", [1, -1, 2])
def test_other_axes(axis):
    x = jnp.arange(24.0).reshape(2, 3, 4)
    expected = jax.vmap(lambda x: x + 1.0, in_axes=axis, out_axes=axis)(x)
    got = nnx.vmap(lambda x: x + 1.0, in_axes=axis, out_axes=axis)(x)
    np.testing.assert_array_equal(got, expected)


def test_a_variable_keeps_its_axis():
    model = nnx.Dict(w=nnx.Param(jnp.arange(6.0).reshape(2, 3)))

    def double(m):
        assert m["w"].shape == (2,)
        m["w"][...] = 2.0 * m["w"]

    nnx.vmap(double, in_axes=1)(model)
    np.testing.assert_array_equal(model["w"], 2.0 * jnp.arange(6.0).reshape(2, 3))


def test_axes_in_containers():
    def f(pair, named):
        return {"sum": pair[0] + pair[1], "rest": (named["x"], named["y"])}

    axes = (([0, None]), {"x": 1, "y": None})
    out = nnx.vmap(f, in_axes=axes, out_axes={"sum": 0, "rest": (1, None)})(
        [jnp.zeros(3), jnp.ones(2)], {"x": jnp.zeros((2, 3)), "y": jnp.ones(4)}
    )
    assert jax.tree.map(jnp.shape, out) == {"rest": ((2, 3), (4,)), "sum": (3, 2)}


def test_state_axes_by_filter():
    models = stacked()
    models.seen = nnx.BatchStat(jnp.zeros(()))
    axes = nnx.StateAxes({nnx.Param: 0, ...: None})

    def forward(model, x):
        model.seen[...] = model.seen + 1.0  # not batched: the same for all
        return model.w * x

    y = nnx.vmap(forward, in_axes=(axes, None))(models, jnp.ones(2))
    np.testing.assert_array_equal(y[:, 0], [0.0, 1.0, 2.0])
    assert models.seen[...] == 1.0


def test_state_axes_look_at_paths_and_come_out_too():
    axes = nnx.StateAxes({nnx.PathContains("w"): 1, ...: 0})
    models = nnx.vmap(lambda _: Scaled(), out_axes=axes)(jnp.arange(3))
    assert models.w.shape == (2, 3)
    assert models.seen.shape == (3,)
    assert nnx.vmap(lambda m: m, in_axes=axes, out_axes=axes)(models) is models


def test_state_axes_compare_and_print():
    axes = nnx.StateAxes({nnx.Param: 0, "cache": None, ...: nnx.Carry})
    assert axes == nnx.StateAxes(axes.items())
    assert hash(axes) == hash(nnx.StateAxes(axes.items()))
    assert axes != nnx.StateAxes({nnx.Param: 1, "cache": None, ...: nnx.Carry})
    assert axes.filters == (nnx.Param, "cache", ...)
    assert axes.axes == (0, None, nnx.Carry)
    assert repr(axes).startswith("StateAxes({Param: 0, 'cache': None, ...: ")


def test_keyword_arguments_have_the_axes_of_their_parameters():
    def f(a, b=10.0, *, c=1.0):
        return (a + b) * c

    x = jnp.arange(3.0)
    mapped = nnx.vmap(f, in_axes=(0, None))
    np.testing.assert_array_equal(mapped(x, b=1.0), x + 1.0)
    np.testing.assert_array_equal(mapped(b=1.0, a=x), x + 1.0)
    np.testing.assert_array_equal(mapped(x), x + 10.0)
    np.testing.assert_array_equal(nnx.vmap(f, in_axes=None)(1.0, c=x), 11.0 * x)


def test_axis_size_and_axis_name():
    assert nnx.vmap(lambda: jnp.ones(2), axis_size=4)().shape == (4, 2)
    norm = nnx.BatchNorm(2, axis_name="batch", rngs=nnx.Rngs(0))
    x = jnp.arange(6.0).reshape(3, 2)
    y = nnx.vmap(lambda m, x: m(x[None]), in_axes=(None, 0), axis_name="batch")(norm, x)
    expected = nnx.BatchNorm(2, rngs=nnx.Rngs(0))
    np.testing.assert_allclose(y[:, 0], expected(x), rtol=1e-5)
    np.testing.assert_allclose(norm.mean, expected.mean, rtol=1e-5)


def test_spmd_axis_name():
    mesh = data_mesh()
    spec = jax.sharding.NamedSharding(mesh, P(None))
    jaxpr = jax.make_jaxpr(
        nnx.vmap(lambda x: jax.lax.with_sharding_constraint(x, spec), spmd_axis_name="data")
    )(jnp.ones((2, 2)))
    (equation,) = jaxpr.eqns
    assert equation.params["sharding"].spec[0] == "data"


def test_decorator_nesting_and_bound_methods():
    @nnx.vmap(in_axes=(None, 0))
    @nnx.vmap(in_axes=(0, None))
    def apply(model, x):
        return model.w * x

    assert apply(stacked(), jnp.ones((4, 2))).shape == (4, 3, 2)
    assert apply.__name__ == "apply"
    norm = nnx.LayerNorm(2, rngs=nnx.Rngs(0))
    assert nnx.vmap(norm)(jnp.ones((4, 2))).shape == (4, 2)


def test_plain_vmap_of_a_jitted_method():
    class Reader(nnx.Module):
        def __init__(self):
            self.w = nnx.Param(jnp.ones(2))

        @nnx.jit
        def __call__(self, x):
            return self.w * x

    reader = Reader()
    assert jax.vmap(reader.__call__)(jnp.ones((3, 2))).shape == (3, 2)
    assert jax.vmap(nnx.jit(lambda m, x: m.w * x), in_axes=(None, 0))(
        Scaled(), jnp.ones((3, 2))
    ).shape == (3, 2)


def test_only_what_is_written_comes_out():
    models = stacked()

    def with_weft(models, x):
        return nnx.vmap(lambda m, x: m(x))(models, x)

    def by_hand(w, seen, x):
        return jax.vmap(lambda w, x: (jnp.sum(x), w * x))(w, x)

    x = jnp.ones((3, 2))
    jaxpr = nnx.make_jaxpr(with_weft)(models, x)
    expected = jax.make_jaxpr(by_hand)(models.w[...], models.seen[...], x)
    assert jaxpr.out_avals == expected.out_avals


# -- vmap: random streams


def test_an_unsplit_stream_gives_all_rows_one_mask_and_counts_once():
    dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(0))
    y = nnx.vmap(lambda m, x: m(x), in_axes=(None, 0))(dropout, jnp.ones((3, 16)))
    np.testing.assert_array_equal(y, jnp.broadcast_to(y[0], y.shape))
    assert dropout.rngs.count[...] == 1


def test_a_split_stream_gives_rows_masks_of_their_own():
    dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(0))
    axes = nnx.StateAxes({nnx.RngState: 0, ...: None})
    forward = nnx.split_rngs(splits=3)(nnx.vmap(lambda m, x: m(x), in_axes=(axes, 0)))
    y = forward(dropout, jnp.ones((3, 16)))
    assert len({row.tobytes() for row in np.asarray(y)}) == 3
    assert dropout.rngs.key.shape == ()


def test_layers_made_under_vmap_own_stacked_streams():
    @nnx.split_rngs(splits=3)
    @nnx.vmap
    def make(rngs):
        return nnx.Dropout(0.5, rngs=rngs)

    layers = make(nnx.Rngs(0))
    assert layers.rngs.key.shape == layers.rngs.count.shape == (3,)
    y = nnx.scan(lambda x, layer: (layer(x), x), length=3)(jnp.ones(16), layers)
    assert y[1].shape == (3, 16)
    np.testing.assert_array_equal(layers.rngs.count, [1, 1, 1])


# -- vmap: mistakes


def test_forgotten_split_names_the_stream_and_the_line():
    make = nnx.vmap(lambda rngs: nnx.Linear(2, 2, rngs=rngs))
    message = error_of(nnx.PrefixError, make, nnx.Rngs(params=0))
    assert "maps rngs.params.count over axis 0, but its shape is ()" in message
    assert "stream 'params' has one key for all" in message
    assert "`@nnx.split_rngs(splits=N)` above `@nnx.vmap`" in message
    assert "nnx.StateAxes({nnx.RngState: None, ...: 0})" in message


def test_axes_of_the_wrong_length_show_arguments_beside_them():
    def f(model, x):
        return x

    message = error_of(nnx.PrefixError, nnx.vmap(f, in_axes=(0, 0, None)), 1.0, 2.0)
    assert "given 3 prefixes for 2 arguments:\n  arguments: (model, x)" in message
    assert "prefixes:  (0, 0, None)\nGive one per positional argument" in message
    message = error_of(nnx.PrefixError, nnx.vmap(f, in_axes=(0, [0, 0])), jnp.ones(2), (1, 2, 3))
    assert "x has 3 children but its prefix [0, 0] has 2" in message
    message = error_of(nnx.PrefixError, nnx.vmap(f, in_axes=(0, {"a": 0})), jnp.ones(2), {"b": 1})
    assert "the prefix of x has no entry 'b': found ['a']" in message


def test_out_axes_of_the_wrong_structure():
    mapped = nnx.vmap(lambda x: (x, x), out_axes=(0, 0, 0))
    message = error_of(nnx.PrefixError, mapped, jnp.ones(3))
    assert "output has 2 children but its prefix (0, 0, 0) has 3" in message


def test_a_missing_axis_names_the_path():
    message = error_of(nnx.PrefixError, nnx.vmap(lambda m: None, in_axes=1), Scaled())
    assert "maps m.seen over axis 1, but its shape is (). Give it the axis None" in message


def test_different_lengths_name_both_paths():
    f = nnx.vmap(lambda m, x: None)
    message = error_of(nnx.PrefixError, f, nnx.Dict(w=nnx.Param(jnp.ones(3))), jnp.ones(4))
    assert "axes of different lengths: m.w has 3, x has 4. Give x the length 3 along" in message
    assert "its axis 0, or the axis None if it is not mapped, `in_axes=(0, None)`:\n" in message


@pytest.mark.parametrize(
    ("axes", "remedy"),
    [
        (
            0,
            "Give y the axis 1, which has 3, `in_axes=(0, 1, 0)`, or None if it is not mapped",
        ),
        ((0, 0, None), "or None if it is not mapped, `in_axes=(0, None, None)`"),
        (
            (0, nnx.StateAxes({...: 0}), None),
            "Give y the axis 1, which has 3, or None if it is not",
        ),
    ],
)
def test_different_lengths_tell_the_axis_that_fits(axes, remedy):
    f = nnx.vmap(lambda x, y, z: None, in_axes=axes)
    assert remedy in error_of(nnx.PrefixError, f, jnp.ones(3), jnp.ones((4, 3)), jnp.ones(3))


def test_different_lengths_in_one_argument():
    f = nnx.vmap(lambda x: None)
    message = error_of(nnx.PrefixError, f, {"a": jnp.ones(3), "b": jnp.ones(4)})
    assert (
        "Give x.b the length 3 along its axis 0, or the axis None if it is not mapped:" in message
    )


def test_a_length_that_differs_from_the_given_one():
    f = nnx.vmap(lambda m, x: x, in_axes=(None, 0), axis_size=3)
    message = error_of(nnx.PrefixError, f, Scaled(), jnp.ones(4))
    assert "axes of different lengths: `axis_size` has 3, x has 4" in message
    message = error_of(
        nnx.PrefixError, nnx.scan(lambda c, x: (c, x), length=5), 1.0, jnp.ones(4)
    )  # fmt: skip
    assert "`length` has 5, x has 4. Give x the length 5 along its axis 0, or the axis " in message
    assert "if it is not mapped, and leave out `length` if that is wrong:\n" in message


@pytest.mark.parametrize("transform", [nnx.vmap, nnx.pmap])
@pytest.mark.parametrize("axis", ["a", 1.0, True])
def test_axes_that_are_none(transform, axis):
    for options in ({"in_axes": (None, axis)}, {"in_axes": (None, 0), "out_axes": axis}):
        message = error_of(TypeError, transform, lambda m, x: x, **options)
        assert f"takes axes, as ints, or None, found {axis!r}:\n  function:" in message


def test_what_is_no_array_names_its_path():
    class Odd:
        def __repr__(self):
            return "odd" * 100

    for transform in (nnx.vmap, nnx.pmap):
        f = transform(lambda m, options: None, in_axes=(0, None))
        message = error_of(TypeError, f, jnp.ones(1), {"mode": Odd()})
        assert "' was given oddodd" in message
        assert len(message) < 400
        assert ", a Odd, as options.mode, which is no array. Bind it to the function, " in message
        assert "`functools.partial(f, options=...)`" in message


def test_outputs_without_the_axis_that_they_are_to_have():
    f = nnx.vmap(lambda x: {"a": x, "b": x}, out_axes={"a": 0, "b": 2})
    message = error_of(nnx.PrefixError, f, jnp.ones((3, 2)))
    assert "puts output.b together over axis 2, but one slice of it has the shape (2,)" in message
    f = nnx.vmap(lambda x: x, out_axes=(0, 0))
    message = error_of(nnx.PrefixError, f, jnp.ones(3))
    assert "output is a single array, but its prefix is the tuple (0, 0): give one entry" in message


def test_more_slices_than_devices():
    f = nnx.pmap(lambda x: x, devices=devices(2))
    message = error_of(nnx.PrefixError, f, jnp.ones(3))
    assert "maps over 3 slices, one for each device, but there are 2 devices" in message


def test_a_filter_that_is_missing():
    axes = nnx.StateAxes({nnx.Param: 0})
    message = error_of(nnx.PrefixError, nnx.vmap(lambda m: None, in_axes=axes), stacked())
    assert "no filter of StateAxes({Param: 0}) matches seen, a BatchStat" in message
    assert "`StateAxes({..., ...: None})`" in message


def test_one_variable_under_two_axes():
    shared = nnx.Param(jnp.ones((2, 2)))
    f = nnx.vmap(lambda a, b: None, in_axes=(0, 1))
    message = error_of(nnx.AliasError, f, [shared], {"x": shared})
    assert "a[0] has 0, b.x has 1" in message
    f = nnx.vmap(lambda m: {"model": m}, in_axes=0, out_axes=None)
    message = error_of(nnx.AliasError, f, stacked())
    assert "m.seen has 0, output.model.seen has None" in message


def test_a_batched_write_to_a_shared_variable():
    f = nnx.vmap(lambda m, x: m(x), in_axes=(None, 0))
    model = Scaled()
    message = error_of(ValueError, f, model, jnp.ones((3, 2)))
    assert "nnx.vmap of" in message
    assert "a value with the mapped axis is written to m.seen, shared by all slices" in message
    assert "nnx.StateAxes({nnx.BatchStat: 0, ...: None})" in message
    assert model.seen[...] == 0.0


def test_a_batched_value_returned_as_shared():
    message = error_of(ValueError, nnx.vmap(lambda x: x, out_axes=None), jnp.ones(3))
    assert "is returned as shared" in message


def test_an_unrelated_value_error_has_no_note():
    def fails(x):
        raise ValueError("mine")

    assert "nnx.vmap" not in error_of(ValueError, nnx.vmap(fails), jnp.ones(3))


# -- pmap


def test_pmap_maps_over_devices():
    models = stacked(2)
    x = jnp.ones((2, 2))
    y = nnx.pmap(lambda m, x: m(x), axis_name="i", devices=devices(2))(models, x)
    np.testing.assert_array_equal(y, [[0, 0], [1, 1]])
    np.testing.assert_array_equal(models.seen, [2.0, 2.0])


def test_pmap_with_static_arguments_and_a_method():
    @nnx.pmap(static_broadcasted_argnums=1, in_axes=(0, None), devices=devices(2))
    def scale(x, how):
        return x * how["by"]

    np.testing.assert_array_equal(scale(jnp.ones(2), {"by": 3.0}), [3.0, 3.0])
    norm = nnx.LayerNorm(2, rngs=nnx.Rngs(0))
    assert nnx.pmap(norm.__call__, axis_size=2)(jnp.ones((2, 2))).shape == (2, 2)


def test_pmap_traces_once_per_structure():
    traces = []

    @nnx.pmap(in_axes=(0, 0, None), static_broadcasted_argnums=2)
    def step(model, x, how):
        traces.append(how)
        model.count = nnx.BatchStat(jnp.zeros(())) if how == "new" else model.seen
        return model(x)

    models, x = stacked(2), jnp.ones((2, 2))
    for value in range(4):
        step(models, x + value, "old")
        np.testing.assert_array_equal(models.seen, [2.0 * (1 + value)] * 2)
        assert models.count is models.seen
        del models.count
    step(stacked(2), x, "old")
    # JAX may trace again for arrays that are on the devices already.
    assert traces.count("old") <= 2
    for _ in range(3):
        step(models, x, "new")
        assert models.count is not models.seen
        del models.count
    assert traces.count("new") <= 2
    traces.clear()
    models.extra = 1.0  # another structure
    step(models, x, "new")
    assert traces and set(traces) == {"new"}


def test_pmap_keeps_a_limited_number_of_structures(monkeypatch):
    monkeypatch.setattr("weft._lift.map._MOST_STRUCTURES", 2)
    traces = []

    @nnx.pmap(static_broadcasted_argnums=1)
    def scale(x, by):
        traces.append(by)
        return x * by

    for by in (1.0, 2.0, 3.0, 3.0, 1.0):
        np.testing.assert_array_equal(scale(jnp.ones(2), by), [by, by])
    assert traces == [1.0, 2.0, 3.0, 1.0]


def test_pmap_names_outputs_of_each_call():
    wrong = nnx.pmap(lambda x: x.sum(), out_axes=1)
    for _ in range(2):
        assert "one slice of it has the shape ()" in error_of(nnx.PrefixError, wrong, jnp.ones(2))


def test_pmap_warns_of_captured_variables():
    captured = nnx.Param(jnp.ones(()))
    scale = nnx.pmap(lambda x: x * captured)
    with pytest.warns(UserWarning, match=r"Param .* is read inside nnx\.pmap .*a constant"):
        scale(jnp.ones(2))


def test_pmap_forgotten_split():
    message = error_of(nnx.PrefixError, nnx.pmap(lambda rngs: rngs.params()), nnx.Rngs(0))
    assert "above `@nnx.pmap`" in message


# -- axis names in metadata


def named(size=2):
    return nnx.Param(jnp.ones(size), out_sharding=("model",))


PARTITION = {nnx.PARTITION_NAME: "layers"}


def test_partition_names_are_added_and_removed():
    model = nnx.vmap(lambda _: nnx.Dict(w=named()), transform_metadata=PARTITION)(jnp.arange(3))
    assert model["w"].out_sharding == ("layers", "model")

    def inside(m):
        assert m["w"].out_sharding == ("model",)
        m["w"][...] = m["w"] + 1.0
        m["new"] = named()

    nnx.vmap(inside, transform_metadata=PARTITION)(model)
    assert model["w"].out_sharding == model["new"].out_sharding == ("layers", "model")
    nnx.scan(inside, in_axes=0, out_axes=0, transform_metadata=PARTITION)(model)
    assert model["w"].out_sharding == ("layers", "model")
    np.testing.assert_array_equal(model["w"], jnp.full((3, 2), 3.0))


def test_partition_names_at_other_axes_and_of_shared_variables():
    def make(_):
        return nnx.Dict(w=named(), whole=named())

    axes = nnx.StateAxes({nnx.PathContains("w"): -1, ...: None})
    model = nnx.vmap(make, out_axes=axes, transform_metadata=PARTITION)(jnp.arange(3))
    assert model["w"].out_sharding == ("model", "layers")
    assert model["whole"].out_sharding == ("model",)


def test_partition_name_none_names_an_axis_that_is_not_sharded():
    axes = {nnx.PARTITION_NAME: None}
    model = nnx.vmap(lambda _: nnx.Dict(w=named()), transform_metadata=axes)(jnp.arange(3))
    assert model["w"].out_sharding == (None, "model")


def test_metadata_set_inside_gets_the_axis_name():
    model = nnx.Dict(w=nnx.Param(jnp.ones((3, 2))))
    nnx.vmap(lambda m: m["w"].set_metadata(out_sharding=("model",)), transform_metadata=PARTITION)(
        model
    )
    assert model["w"].out_sharding == ("layers", "model")


def test_a_wrong_partition_name():
    f = nnx.vmap(lambda w: None, transform_metadata=PARTITION)
    weight = nnx.Param(jnp.ones((3, 2)), out_sharding=("other", "model"))
    assert "has axis 'other' at 0, expected 'layers'" in error_of(ValueError, f, weight)


def test_transform_metadata_around_plain_jax():
    @nnx.transform_metadata(in_axes=(0, None), out_axes=0, partition="layers")
    def inside(m, x):
        assert m["w"].out_sharding == ("model",)
        m["w"][...] = m["w"] * x
        return nnx.Dict(v=named())

    model = nnx.Dict(w=nnx.Param(jnp.ones((3, 2)), out_sharding=("layers", "model")))
    out = inside(model, 2.0)
    assert model["w"].out_sharding == out["v"].out_sharding == ("layers", "model")
    assert model["w"][0, 0] == 2.0


def test_axes_of_scan_that_are_not_there():
    scan = lambda i, o: nnx.scan(lambda c, x: (c, x), in_axes=i, out_axes=o)  # noqa: E731
    x = jnp.ones((3, 2))
    with pytest.raises(nnx.PrefixError, match=r"maps x over axis 2, but its shape is \(3, 2\)"):
        scan((nnx.Carry, 2), (nnx.Carry, 0))(jnp.zeros(()), x)
    with pytest.raises(nnx.PrefixError, match=r"maps c over axis 0.*or nnx\.Carry if it is"):
        scan((0, nnx.Carry), (nnx.Carry, 0))(jnp.zeros(()), x)
    for axis in (2, -3):
        found = rf"puts output\[1\] together over axis {axis}, but one slice .* the shape \(2,\)"
        with pytest.raises(nnx.PrefixError, match=found):
            scan((nnx.Carry, 0), (nnx.Carry, axis))(jnp.zeros(()), x)


def test_axes_by_path_from_a_state():
    make = lambda: nnx.BatchNorm(2, rngs=nnx.Rngs(0))  # noqa: E731
    state = nnx.state(make())
    state["mean"], state["var"], state["bias"], state["scale"] = 0, 0, None, 1
    norms = nnx.vmap(make, out_axes=nnx.StateAxes(state), axis_size=3)()
    shapes = {path[-1]: x.shape for path, x in nnx.to_flat_state(nnx.state(norms))}
    assert shapes == {"bias": (2,), "mean": (3, 2), "scale": (2, 3), "var": (3, 2)}
    axes = nnx.StateAxes(jax.tree.map(lambda _: 0, nnx.state(make())))
    norms = nnx.vmap(make, out_axes=0, axis_size=3)()
    assert nnx.vmap(lambda m: m.scale + 0, in_axes=(axes,))(norms).shape == (3, 2)


@pytest.mark.parametrize("transform", [nnx.vmap, nnx.pmap], ids=["vmap", "pmap"])
def test_axes_by_filter_of_which_one_has_nothing(transform):
    devices(2)
    axes = nnx.StateAxes({nnx.RngState: 0, ...: None})
    draw = transform(lambda rngs: rngs.params(), in_axes=(axes,), axis_size=2)
    rngs = nnx.Rngs(0).split(2)
    assert draw(rngs).shape == (2,) and rngs.default.count[...].tolist() == [1, 1]


def test_metadata_of_other_names_gets_and_loses_the_axis():
    metadata = {nnx.PARTITION_NAME: None, "nick": "layers", "count": 3, "missing": 1, "text": "t"}

    def make():
        return nnx.Param(jnp.ones((2, 2)), nick=("in", "out"), count=(1, 2), text="x")

    stacked = nnx.vmap(make, out_axes=1, axis_size=4, transform_metadata=metadata)()
    assert (stacked.nick, stacked.count) == (("in", "layers", "out"), (1, 3, 2))
    assert stacked.text == "x" and not stacked.has_metadata("missing")

    def read(v):
        assert (v.nick, v.count) == (("in", "out"), (1, 2))
        return v.sum()

    nnx.vmap(read, in_axes=1, transform_metadata=metadata)(stacked)
    assert stacked.nick == ("in", "layers", "out")


def test_what_is_no_array_among_the_outputs():
    message = error_of(TypeError, nnx.vmap(lambda x: {"a": x, "b": "text"}), jnp.ones(2))
    assert "leaves output.b as 'text', a str, which is no array. Return arrays" in message
