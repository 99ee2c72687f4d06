"""What an object shows of itself, in the words of the NNX API."""

import jax.numpy as jnp
import pytest

import weft as nnx


class Point(nnx.reprlib.Representable):
    def __init__(self, **parts):
        self.parts = parts

    def __nnx_repr__(self):
        yield nnx.reprlib.Object(type(self), start="<", end=">", kv_sep=": ", empty_repr="nothing")
        for name, value in self.parts.items():
            yield nnx.reprlib.Attr(name, value)


def test_it_is_laid_out_as_a_model():
    assert repr(Point()) == "Point<nothing>"
    assert repr(Point(x=jnp.ones(2), y="a")) == "Point<x: f32[2] [1., 1.], y: 'a'>"
    assert repr(Point(x="a" * 80, y=Point(z=1))) == (
        f"Point<\n  x: '{'a' * 80}',\n  y: Point<z: 1>,\n>"
    )
    assert nnx.reprlib.get_repr(Point(x=1)) == "Point<x: 1>"


def test_modules_may_say_what_they_show():
    class Model(nnx.Module):
        def __init__(self):
            self.hidden, self.point = 1, Point(x=2)

        def __nnx_repr__(self):
            yield nnx.reprlib.Object("Shown", comment=" # said " + "so" * 20)
            yield nnx.reprlib.Attr("raw", "as\nit is", use_raw_value=True, end="!")
            yield nnx.reprlib.Attr("point", self.point, start="> ")

    assert repr(Model()) == (
        f"Shown(  # said {'so' * 20}\n  raw=as\n  it is!,\n  > point=Point<x: 2>,\n)"
    )


def test_base_class():
    with pytest.raises(NotImplementedError):
        repr(nnx.reprlib.Representable())
