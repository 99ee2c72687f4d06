"""That initializers compile as one program each; their bits are compared in tests/parity."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx
from weft.nn import initializers

COMPILED = "/jax/core/compile/backend_compile_duration"


@contextlib.contextmanager
def compiled_programs():
    """Gives a list that gets an element for each program that XLA compiles in the block."""
    found = []

    def see(event, seconds, **_):
        if event == COMPILED:
            found.append(event)

    jax.clear_caches()
    jax.monitoring.register_event_duration_secs_listener(see)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(see)


@pytest.mark.parametrize(
    "init",
    [
        initializers.lecun_normal(),
        initializers.truncated_normal(0.02),
        initializers.variance_scaling(1.0, "fan_avg", "uniform"),
        initializers.orthogonal(2.0),
        initializers.constant(0.5),
    ],
    ids=lambda init: init.name,
)
def test_one_program_for_all_keys(init):
    keys = jax.random.key(0), jax.random.key(1)
    with compiled_programs() as programs:
        for key in keys:
            init(key, (3, 5), jnp.float32)
        assert len(programs) == 1
        init(keys[0], [3, 5], jnp.float32)
        assert len(programs) == 1
        init(keys[0], (4, 5), jnp.float32)
        assert len(programs) == 2


def test_a_model_compiles_a_program_for_each_initializer_and_shape():
    class Model(nnx.Module):
        def __init__(self, rngs):
            self.embed = nnx.Embed(7, 3, rngs=rngs)
            self.layers = nnx.List([nnx.Linear(3, 3, rngs=rngs) for _ in range(3)])
            self.norm = nnx.LayerNorm(3, rngs=rngs)
            self.head = nnx.Linear(3, 7, use_bias=False, rngs=rngs)

    with compiled_programs() as programs:
        Model(nnx.Rngs(0))
    # One makes keys; the others are for the embedding and two kernels.
    assert len(programs) == 1 + 3


@pytest.mark.parametrize("make", [initializers.lecun_normal, initializers.orthogonal])
def test_what_is_traced_is_what_jax_traces(make):
    ours, theirs, key = make(), getattr(jax.nn.initializers, make.__name__)(), jax.random.key(0)
    keys = jax.random.split(key, 2)

    def traced(init):
        def each(key):
            return init(key, (4, 3), jnp.float32)

        return [
            jax.make_jaxpr(each)(key),
            jax.make_jaxpr(lambda: each(key))(),
            jax.make_jaxpr(jax.vmap(each))(keys),
            jax.make_jaxpr(jax.jit(each))(key),
            jax.eval_shape(each, key),
        ]

    assert list(map(str, traced(ours))) == list(map(str, traced(theirs)))


def test_keys_that_are_mapped_over_give_each_its_own_array():
    keys, init = jax.random.split(jax.random.key(0), 2), initializers.normal()
    mapped = jax.vmap(lambda key: init(key, (3,), jnp.float32))(keys)
    each = [init(key, (3,), jnp.float32) for key in keys]
    np.testing.assert_allclose(mapped, each, rtol=1e-6)

    @nnx.vmap
    def make(key):
        return nnx.Linear(2, 3, rngs=nnx.Rngs(key))

    assert make(keys).kernel.shape == (2, 2, 3)


def test_an_initializer_of_the_user_runs_for_each_layer():
    seen = []

    def init(key, shape, dtype):
        seen.append(isinstance(key, jax.core.Tracer))
        return np.full(shape, len(seen), dtype)

    layers = [nnx.Linear(2, 3, kernel_init=init, rngs=nnx.Rngs(0)) for _ in range(2)]
    assert seen == [False, False]
    assert [int(layer.kernel[0, 0]) for layer in layers] == [1, 2]


def test_raw_key_data_follow_the_setting_for_them():
    data, init = jnp.arange(4, dtype=jnp.uint32), initializers.normal()
    for name in ("rbg", "unsafe_rbg"):
        with jax.default_prng_impl(name):
            expected = jax.nn.initializers.normal()(data, (3,))
            np.testing.assert_array_equal(init(data, (3,)), expected)


def test_arrays_as_arguments_are_no_constants_of_a_program():
    init = initializers.constant(np.arange(3.0, dtype=np.float32))
    with compiled_programs():
        np.testing.assert_array_equal(init(jax.random.key(0), (2, 3)), [[0, 1, 2], [0, 1, 2]])


def test_wrong_calls_fail_as_those_of_jax():
    key = jax.random.key(0)
    for args in [(key, (2.5, 1)), (key, 3), ("key", (2, 3)), (key, (3,)), (key, (-1, 2))]:
        with pytest.raises((TypeError, ValueError)) as expected:
            jax.nn.initializers.lecun_normal()(*args)
        with pytest.raises(expected.type) as found:
            initializers.lecun_normal()(*args)
        assert str(found.value) == str(expected.value)
