"""Distributions and initializers as methods that need no key."""

import inspect
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np

import weft as nnx


def test_distributions_draw_the_next_key():
    rngs = nnx.Rngs(0, noise=1)
    expected = jax.random.normal(jax.random.fold_in(jax.random.key(1), 0), (2,))
    np.testing.assert_array_equal(rngs.noise.normal((2,)), expected)
    expected = jax.random.randint(jax.random.fold_in(jax.random.key(0), 0), (3,), 0, maxval=9)
    np.testing.assert_array_equal(rngs.randint((3,), 0, maxval=9), expected)
    assert (rngs.default.count[...], rngs.noise.count[...]) == (1, 1)


def test_distributions_show_their_signature():
    assert list(inspect.signature(nnx.Rngs(0).uniform).parameters)[:2] == ["shape", "dtype"]
    assert nnx.Rngs.uniform.__name__ == "uniform"
    assert "jax.random.uniform" in nnx.Rngs.uniform.__doc__


def test_a_name_that_jax_drops_is_missed_by_one_method_alone():
    code = (
        "import jax\n"
        "del jax.random.ball, jax.nn.initializers.he_normal\n"
        "import weft as nnx\n"
        "rngs = nnx.Rngs(0)\n"
        "assert rngs.uniform((2,)).shape == (2,) and rngs.he_uniform()((2, 2)).shape == (2, 2)\n"
        "for draw in (rngs.ball, rngs.kaiming_normal):\n"
        "    try: draw(2)\n"
        "    except AttributeError as error: print(error)\n"
        "assert rngs.default.count[...] == 2\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "module 'jax.random' has no attribute 'ball'",
        "module 'jax.nn.initializers' has no attribute 'he_normal'",
    ]


def test_initializers_draw_a_key_per_call():
    rngs = nnx.Rngs(0)
    init = rngs.he_normal(in_axis=0, out_axis=1)
    assert rngs.default.count[...] == 0
    first, second = init((2, 3)), init([2, 3], jnp.bfloat16)
    key = jax.random.fold_in(jax.random.key(0), 0)
    np.testing.assert_array_equal(first, jax.nn.initializers.he_normal(0, 1)(key, (2, 3)))
    assert second.dtype == jnp.bfloat16
    assert rngs.default.count[...] == 2
