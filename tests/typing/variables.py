# pyright: strict, reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnnecessaryTypeIgnoreComment=true
"""What Variables are to a type checker: boxes that act as the array in them."""

from collections.abc import Iterator
from typing import assert_type

import jax
import jax.numpy as jnp
import numpy as np

import weft as nnx

ARRAY = jnp.arange(6.0).reshape(2, 3)


def boxes() -> None:
    assert_type(nnx.Param(ARRAY), nnx.Param[jax.Array])
    assert_type(nnx.BatchStat(1.0), nnx.BatchStat[float])
    assert_type(nnx.Variable({"a": ARRAY}), nnx.Variable[dict[str, jax.Array]])
    param = nnx.Param(ARRAY)
    assert_type(param.copy(), nnx.Param[jax.Array])
    assert_type(param.replace(ARRAY), nnx.Param[jax.Array])


def values() -> None:
    param = nnx.Param(ARRAY)
    assert_type(param[...], jax.Array)
    assert_type(param[0, 1], jax.Array)
    assert_type(param.value, jax.Array)
    assert_type(param.get_value(), jax.Array)
    assert_type(param.raw_value, jax.Array)
    assert_type(iter(param), Iterator[jax.Array])
    assert_type(len(param), int)
    param[...] = ARRAY
    param[0] = 1
    param.value = param + 1
    param.value = nnx.Param(ARRAY)
    param.set_value(ARRAY)
    count = nnx.Variable(0)
    assert_type(count[...], int)
    count.value += 1
    count[...] += 1
    heads = nnx.Variable({"a": ARRAY})
    assert_type(heads["a"], jax.Array)
    assert_type(nnx.Variable([ARRAY])[0], jax.Array)
    assert_type(nnx.Variable((ARRAY, ARRAY))[0], jax.Array)


def arithmetic() -> None:
    param = nnx.Param(ARRAY)
    assert_type(param + 1, jax.Array)
    assert_type(1.5 - param, jax.Array)
    assert_type(param * ARRAY, jax.Array)
    assert_type(ARRAY / param, jax.Array)
    assert_type(param @ param.T, jax.Array)
    assert_type(ARRAY @ nnx.Param(ARRAY.T), jax.Array)
    assert_type(param**2 // np.float32(3) % param, jax.Array)
    assert_type(-param, jax.Array)
    assert_type(abs(param), jax.Array)
    assert_type(divmod(param, 2), tuple[jax.Array, jax.Array])
    flags = nnx.Variable(ARRAY > 1)
    assert_type(~flags & (param < 2) | flags, jax.Array)
    before = param
    param += 1
    param *= ARRAY
    assert_type(param, nnx.Param[jax.Array])
    assert param is before


def comparison() -> None:
    param = nnx.Param(ARRAY)
    assert_type(param == 1, jax.Array)
    assert_type(param != param, jax.Array)
    assert_type(param < 1, jax.Array)
    assert_type(2 >= param, jax.Array)


def numbers() -> None:
    count, rate = nnx.Variable(3), nnx.Variable(0.5)
    assert_type(count + 1, int)
    assert_type(count * 0.5, float)
    assert_type(count / 2, float)
    assert_type(1 - rate, float)
    assert_type(rate / 2, float)
    assert_type(count > 2, bool)
    assert_type(int(count), int)
    assert_type(float(nnx.Param(jnp.ones(()))), float)


def attributes() -> None:
    param = nnx.Param(ARRAY)
    assert_type(param.shape, tuple[int, ...])
    assert_type(param.ndim, int)
    assert_type(param.size, int)
    assert_type(param.T, jax.Array)
    assert_type(param.sum(axis=0), jax.Array)
    assert_type(param.mean(), jax.Array)
    assert_type(param.reshape(3, 2), jax.Array)
    assert_type(param.astype(jnp.int32), jax.Array)
    assert jnp.zeros(2, param.dtype).dtype == param.dtype


def functions() -> None:
    param = nnx.Param(ARRAY)
    assert_type(jnp.asarray(param), jax.Array)
    assert_type(jnp.sum(param[...]), jax.Array)
    assert_type(np.asarray(param).ndim, int)
    assert_type(param.__jax_array__(), jax.Array)


def metadata() -> None:
    param = nnx.Param(ARRAY, out_sharding=(None, "model"), group="decay")
    assert param.group == "decay"
    assert param.get_metadata("group") == "decay"
    assert_type(param.has_metadata("group"), bool)
