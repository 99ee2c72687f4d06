import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx
from weft.nn.parameters import new_param


class Layer(nnx.Module):
    pass


@pytest.mark.parametrize(("rngs", "found"), [(None, "None of type NoneType"), (0, "0 of type int")])
def test_rngs_of_another_type_are_refused(rngs, found):
    with pytest.raises(
        TypeError, match=rf"Layer expected `rngs` .* found {found}: use `nnx.Layer\("
    ):
        new_param(Layer(), rngs, nnx.initializers.zeros, (2,), jnp.float32)


def test_one_key_is_drawn_for_each_parameter():
    rngs = nnx.Rngs(0, params=1)
    new_param(Layer(), rngs, nnx.initializers.zeros, (2,), jnp.float32)
    assert int(rngs.params.count[...]) == 1


def test_drawn_as_another_shape_keeps_metadata_of_the_initializer():
    init = nnx.with_metadata(lambda key, shape, dtype: jnp.arange(6.0).reshape(shape), group="a")
    param = new_param(
        Layer(), nnx.Rngs(0), init, (3, 1, 2), jnp.float32, {"other": 1}, drawn_as=(3, 2)
    )
    assert (param.group, param.other) == ("a", 1)
    np.testing.assert_array_equal(param[...], np.arange(6.0).reshape(3, 1, 2))


def test_param_type():
    param = new_param(
        Layer(), nnx.Rngs(0), nnx.initializers.zeros, (2,), jnp.float32, param_type=nnx.LoRAParam
    )
    assert type(param) is nnx.LoRAParam
