import jax
import jax.numpy as jnp
import pytest

import weft as nnx
from weft.nn.layer_rngs import draw_key, find_stream, keep_stream


def test_a_kept_stream_is_a_fork():
    rngs = nnx.Rngs(noise=3)
    kept = keep_stream(rngs, "noise", "Layer")
    assert int(rngs.noise.count[...]) == 1
    assert kept() == nnx.Rngs(noise=3).noise.fork()()
    assert keep_stream(None, "noise", "Layer") is None
    assert keep_stream(rngs.noise, "other", "Layer") is not rngs.noise


def test_keys_come_from_the_call_first():
    key = jax.random.key(7)
    stream = nnx.Rngs(1).default

    def draw(given, kept=None):
        return draw_key(given, kept, "noise", "Layer", "nnx.Layer(")

    assert draw(key, stream) == key
    legacy = jax.random.PRNGKey(7)
    assert draw(legacy, stream) is legacy
    assert draw(nnx.Rngs(1)) == draw(None, nnx.Rngs(1).default) == draw(nnx.Rngs(1).default)


def test_a_missing_stream_names_it_and_those_there_are():
    with pytest.raises(ValueError, match=r"stream 'noise', but .* only \['params'\]") as error:
        find_stream(nnx.Rngs(params=0), "noise", "Layer")
    assert "`nnx.Rngs(..., noise=1)`" in str(error.value)


def test_what_is_no_source_of_keys_is_refused():
    with pytest.raises(TypeError, match=r"Layer takes `rngs` as .* found int. Write `nnx.Layer"):
        keep_stream(3, "noise", "Layer")
    for given in (3, jnp.ones(2)):
        with pytest.raises(
            TypeError, match=r"at the call as an nnx\.Rngs, an nnx\.RngStream or a key"
        ):
            draw_key(given, None, "noise", "Layer", "nnx.Layer(")
