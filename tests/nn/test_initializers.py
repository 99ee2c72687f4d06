import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx
from tests.devices import make_mesh
from weft.nn import initializers

MADE = {
    "constant": lambda: initializers.constant(2.0),
    "delta_orthogonal": initializers.delta_orthogonal,
    "glorot_normal": initializers.glorot_normal,
    "glorot_uniform": initializers.glorot_uniform,
    "he_normal": initializers.he_normal,
    "he_uniform": initializers.he_uniform,
    "kaiming_normal": initializers.kaiming_normal,
    "kaiming_uniform": initializers.kaiming_uniform,
    "lecun_normal": initializers.lecun_normal,
    "lecun_uniform": initializers.lecun_uniform,
    "normal": initializers.normal,
    "orthogonal": initializers.orthogonal,
    "truncated_normal": initializers.truncated_normal,
    "uniform": initializers.uniform,
    "variance_scaling": lambda: initializers.variance_scaling(1.0, "fan_in", "normal"),
    "xavier_normal": initializers.xavier_normal,
    "xavier_uniform": initializers.xavier_uniform,
}


@pytest.mark.parametrize("name", MADE)
def test_is_equal_hashable_and_picklable_by_value(name):
    first, second = MADE[name](), MADE[name]()
    assert first == second
    assert hash(first) == hash(second)
    assert pickle.loads(pickle.dumps(first)) == first
    assert pickle.loads(pickle.dumps(getattr(initializers, name))) is getattr(initializers, name)


def test_defaults_and_spellings_do_not_matter_but_values_and_types_do():
    lecun, constant = initializers.lecun_normal, initializers.constant
    assert lecun() == lecun(-2, out_axis=-1)
    assert lecun(dtype=jnp.bfloat16) == lecun(dtype="bfloat16")
    assert lecun(in_axis=[0, 1]) == lecun(in_axis=(0, 1))
    assert initializers.kaiming_normal() == initializers.he_normal()
    assert constant(jnp.arange(2)) == constant(np.arange(2, dtype=np.int32))
    assert constant(float("nan")) == constant(float("nan"))
    different = [
        lecun(),
        lecun(in_axis=0),
        lecun(dtype=jnp.bfloat16),
        initializers.lecun_uniform(),
        constant(1),
        constant(1.0),
        constant(True),
        constant(0.0),
        constant(-0.0),
        constant(jnp.arange(2)),
        constant(jnp.arange(3)),
        constant(jnp.arange(2.0)),
        "lecun_normal",
    ]
    assert len(set(different)) == len(different)


def test_dtype_of_the_maker_yields_to_that_of_the_call():
    init = initializers.normal(dtype=jnp.bfloat16)
    key = jax.random.key(0)
    assert init(key, (2,)).dtype == jnp.bfloat16
    assert init(key, (2,), jnp.float16).dtype == jnp.float16


def test_zeros_and_ones_are_those_of_jax():
    assert initializers.zeros_init() is initializers.zeros is jax.nn.initializers.zeros
    assert initializers.ones_init() is initializers.ones is jax.nn.initializers.ones


def test_repr_names_the_arguments():
    assert repr(initializers.normal(0.5)) == "normal(stddev=0.5, dtype=None)"


def test_wrong_argument_is_refused_when_the_initializer_is_made():
    with pytest.raises(TypeError, match="unexpected keyword argument 'std'"):
        initializers.normal(std=1.0)


@pytest.mark.parametrize("name", ["zeros", "lecun_normal", "orthogonal"])
def test_out_sharding(name):
    mesh = make_mesh((2,), ("x",), axis_types=(jax.sharding.AxisType.Explicit,))
    spec = jax.sharding.PartitionSpec("x", None)
    init = getattr(initializers, name)
    init = init if name == "zeros" else init()
    plain = init(jax.random.key(0), (4, 2), jnp.float32)
    with jax.set_mesh(mesh):
        sharded = init(jax.random.key(0), (4, 2), jnp.float32, out_sharding=spec)
    assert sharded.sharding.spec == spec
    np.testing.assert_allclose(sharded, plain, rtol=1e-6)


def test_layers_that_differ_in_their_initializer_have_equal_structure():
    first = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    second = nnx.Linear(2, 3, kernel_init=initializers.normal(), rngs=nnx.Rngs(0))
    assert nnx.graphdef(first) == nnx.graphdef(second)
    assert hash(nnx.graphdef(first)) == hash(nnx.graphdef(second))
