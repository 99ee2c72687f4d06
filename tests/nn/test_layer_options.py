import types

import pytest

from weft.nn.layer_options import choose_option


class Layer(types.SimpleNamespace):
    pass


def test_the_call_counts_before_the_layer():
    assert choose_option(Layer(decode=True), "decode", None) is True
    assert choose_option(Layer(decode=True), "decode", False) is False


def test_neither_is_an_error_that_shows_all_ways():
    with pytest.raises(ValueError, match="Layer does not know its `decode`") as error:
        choose_option(Layer(decode=None), "decode", None)
    for remedy in (
        "`nnx.Layer(..., decode=False)`",
        "`layer(x, decode=False)`",
        "`nnx.view(model, decode=False)`",
    ):
        assert remedy in str(error.value)
