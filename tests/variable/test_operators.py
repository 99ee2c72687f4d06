"""A Variable acts as its value: operators, conversions, comparison, `jnp` functions."""

from __future__ import annotations

import math
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx
from tests.devices import on_cpu

ARITHMETIC = "add sub mul truediv floordiv mod pow".split()
BITS = "lshift rshift and_ xor or_".split()
FLOATS = (jnp.array([3.0, 5.0]), jnp.array([2.0, 4.0]))
INTS = (jnp.array([12, 5]), jnp.array([2, 3]))


@pytest.mark.parametrize("name", [*ARITHMETIC, *BITS, "matmul"])
def test_binary_operators(name: str) -> None:
    function = getattr(operator, name)
    a, b = INTS if name in BITS else FLOATS
    expected = function(a, b)
    for left, right in ((nnx.Param(a), b), (a, nnx.Param(b)), (nnx.Param(a), nnx.Param(b))):
        found = function(left, right)
        assert not isinstance(found, nnx.Variable)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", [*ARITHMETIC, *BITS, "matmul"])
def test_in_place_operators(name: str) -> None:
    function = getattr(operator, f"i{name.rstrip('_')}")
    a, b = INTS if name in BITS else FLOATS
    variable = nnx.Param(a)
    assert function(variable, nnx.Param(b)) is variable
    np.testing.assert_array_equal(variable[...], getattr(operator, name)(a, b))


def test_in_place_on_an_attribute_keeps_the_variable() -> None:
    model = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    kernel = model.kernel
    model.kernel += 1.0
    assert model.kernel is kernel


@pytest.mark.parametrize("name", "lt le gt ge eq ne".split())
def test_comparisons(name: str) -> None:
    function = getattr(operator, name)
    a, b = jnp.array([1.0, 2.0, 3.0]), jnp.array([1.0, 3.0, 2.0])
    expected = function(a, b)
    for left, right in ((nnx.Param(a), b), (nnx.Param(a), nnx.Param(b)), (a, nnx.Param(b))):
        np.testing.assert_array_equal(function(left, right), expected)


def test_divmod() -> None:
    for left, right in ((nnx.Param(7), 2), (7, nnx.Param(2))):
        assert divmod(left, right) == (3, 1)


@pytest.mark.parametrize("function", [operator.neg, operator.pos, abs], ids=["neg", "pos", "abs"])
def test_unary_operators(function: Any) -> None:
    np.testing.assert_array_equal(function(nnx.Param(FLOATS[0])), function(FLOATS[0]))


def test_conversions() -> None:
    assert (int(nnx.Param(jnp.array(3))), float(nnx.Param(2)), complex(nnx.Param(1))) == (3, 2, 1)
    assert operator.index(nnx.Variable(2)) == 2
    assert [10, 20][nnx.Variable(1)] == 20
    assert ~nnx.Variable(5) == -6
    assert round(nnx.Param(2.567), 1) == 2.6
    assert round(nnx.Param(2.4)) == 2
    assert (math.trunc(nnx.Param(2.5)), math.floor(nnx.Param(2.5)), math.ceil(nnx.Param(2.5))) == (
        2,
        2,
        3,
    )
    assert bool(nnx.Param(jnp.array(True))) is True
    assert (math.floor(nnx.Param(jnp.array(2.5))), math.ceil(nnx.Param(jnp.array(2.5)))) == (2, 3)
    assert f"{nnx.Param(jnp.array(2.5)):.2f} {nnx.Param('a'):>2}" == "2.50  a"
    assert f"{nnx.Variable(1)}" == str(nnx.Variable(1))


def test_containers() -> None:
    variable = nnx.Variable([1, 2, 3])
    assert len(variable) == 3
    assert list(variable) == [1, 2, 3]
    assert 2 in variable
    assert nnx.Variable(lambda x, y=0: x + y)(1, y=2) == 3


def test_numpy_and_jax_take_it_as_an_array() -> None:
    variable = nnx.Param(jnp.array([1.0, 4.0]))
    assert np.asarray(variable).tolist() == [1.0, 4.0]
    assert np.asarray(variable, dtype=np.float64).dtype == np.float64
    assert np.array(variable, copy=True).tolist() == [1.0, 4.0]
    functions: list[Any] = [
        jnp.sqrt,
        jnp.sum,
        jnp.asarray,
        jnp.exp,
        lambda x: jnp.dot(x, x),
        lambda x: jnp.concatenate([x, x]),
        lambda x: jnp.stack([x, x]),
        lambda x: jnp.where(x > 1, x, 0.0),
        lambda x: jnp.einsum("i,i->", x, x),
        jax.nn.relu,
        jax.nn.softmax,
    ]
    for function in functions:
        np.testing.assert_array_equal(function(variable), function(variable[...]))
    assert jnp.asarray(nnx.Param(2.0)).shape == ()


def test_numpy_copies_as_it_is_told() -> None:
    value = np.arange(3.0)
    variable = nnx.Variable(value)
    assert np.shares_memory(np.asarray(variable), value)
    assert np.shares_memory(np.array(variable, copy=False), value)
    assert not np.shares_memory(np.array(variable, copy=True), value)
    assert not np.shares_memory(variable.__array__(copy=True), value)
    with pytest.raises(ValueError, match="avoid copy"):
        np.array(variable, dtype=np.float32, copy=False)


@pytest.mark.parametrize(
    "value", [jnp.arange(3.0), np.arange(3.0, dtype=np.float32), [0.0, 1.0, 2.0]], ids=type
)
def test_other_libraries_take_over_its_memory(value: Any) -> None:
    variable = on_cpu(nnx.Param(value))
    for take in (np.from_dlpack, jax.dlpack.from_dlpack):
        np.testing.assert_array_equal(take(variable), [0.0, 1.0, 2.0])
    assert tuple(variable.__dlpack_device__()) == (1, 0)
    assert not hasattr(variable, "__cuda_array_interface__"), "it is on the CPU"


def test_what_was_handed_out_is_never_overwritten() -> None:
    variable = on_cpu(nnx.Param(jnp.arange(3.0)))
    step = nnx.jit(lambda v: v.set_value(v[...] + 1))
    for i in range(4):
        seen = np.from_dlpack(variable)
        step(variable)
        assert seen.tolist() == [i, i + 1, i + 2]


@pytest.mark.parametrize(
    "left", [np.float32(2.0), np.full(2, 2.0, np.float32)], ids=["scalar", "array"]
)
def test_numpy_on_the_left(left: Any) -> None:
    variable = nnx.Param(jnp.array([1.0, 4.0]))
    for function in (operator.add, operator.mul, operator.sub, operator.lt, operator.eq):
        expected = function(jnp.asarray(left), variable[...])
        for found in (
            function(left, variable),
            nnx.jit(lambda v, f=function: f(left, v))(variable),
        ):
            assert isinstance(found, jax.Array)
            np.testing.assert_array_equal(found, expected)


TRUTHS: dict[str, tuple[Any, bool]] = {
    "zeros": (jnp.zeros(2), True),
    "zero": (jnp.zeros(()), True),
    "bfloat16": (jnp.zeros(2, jnp.bfloat16), True),
    "float8": (jnp.zeros(2, jnp.float8_e4m3fn), True),
    "complex": (jnp.zeros(2, complex), True),
    "no elements": (jnp.zeros(0), True),
    "NumPy": (np.zeros(2), True),
    "NumPy scalar": (np.float32(0), True),
    "Python float": (0.0, True),
    "Python complex": (0j, True),
    "abstract": (jax.ShapeDtypeStruct((2,), jnp.float32), True),
    "key": (jax.random.key(0), True),
    "false": (jnp.array(False), False),
    "true": (jnp.array(True), True),
    "count of none": (jnp.zeros((), int), False),
    "count": (jnp.ones((), int), True),
    "NumPy flag": (np.array(False), False),
    "Python flag": (False, False),
    "Python int": (0, False),
    "None": (None, False),
    "empty dict": ({}, False),
    "dict": ({"a": jnp.zeros(2)}, True),
    "empty tuple": ((), False),
    "text": ("", False),
}


@pytest.mark.parametrize("name", TRUTHS)
def test_truth(name: str) -> None:
    """A parameter is there or not, whatever its values; flags, counts and containers are asked."""
    value, expected = TRUTHS[name]
    assert bool(nnx.Param(value)) is expected
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jnp.inexact):
        assert nnx.jit(lambda v: bool(v))(nnx.Param(value)) == expected


def test_truth_of_many_flags_is_an_error() -> None:
    with pytest.raises(ValueError, match="ambiguous"):
        bool(nnx.Variable(jnp.array([True, False])))


def test_truth_of_a_traced_value_names_the_variable() -> None:
    @nnx.jit
    def f(v: nnx.Param) -> Any:
        return 1 if v > 0 else 2

    @nnx.jit
    def g(v: nnx.Param) -> Any:
        return 1 if v else 2

    variable = nnx.Param(jnp.array(1))
    with pytest.raises(jax.errors.TracerBoolConversionError):
        f(variable)
    with pytest.raises(jax.errors.TracerBoolConversionError) as caught:
        g(variable)
    (note,) = [note for note in caught.value.__notes__ if "Param" in note]
    assert note.startswith("The value is that of a Param. ")
    assert "`jnp.where(condition, a, b)`" in note
    assert "`jax.lax.cond(condition, true_fun, false_fun)`" in note


def test_equality_of_containers() -> None:
    def tree(x: float, name: str = "a") -> nnx.Variable:
        return nnx.Variable({name: jnp.array([x, 2.0]), "key": jax.random.key(0), "s": "text"})

    assert (tree(1.0) == tree(1.0)) is True
    assert (tree(1.0) != tree(1.0)) is False
    assert (tree(1.0) == tree(3.0)) is False
    assert tree(1.0) != tree(1.0, "b")
    assert tree(1.0) != 1
    assert tree(1.0) == tree(1.0).value
    assert nnx.Variable((jnp.ones(2),)) != nnx.Variable((jnp.ones(3),))
    assert (nnx.Variable(None) == None) is True  # noqa: E711


def test_hooks_see_operators() -> None:
    seen = []
    variable = nnx.Param(
        1.0,
        on_get_value=lambda variable, value: seen.append("get") or value,
        on_set_value=lambda variable, value: seen.append("set") or value,
    )
    _ = variable + 1.0
    variable += 1.0
    assert seen == ["get", "get", "set"]
