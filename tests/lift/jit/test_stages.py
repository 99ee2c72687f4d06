"""The stages of compiling ahead of time: `trace`, `lower`, `compile`, and what comes of it."""

from __future__ import annotations

import copy
import re
import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx
from tests.lift.donated import is_donated
from tests.lift.jit.models import Counter, Wide, X, layer, shardings_of_wide, train_wide


def test_stages() -> None:
    model = Counter()
    jitted = nnx.jit(lambda model, x: model.count(x))
    traced = jitted.trace(model, jnp.ones(2))
    assert len(traced.jaxpr.out_avals) == 2
    lowered = traced.lower()
    assert "stablehlo" in lowered.as_text()
    compiled = lowered.compile()
    assert float(model.calls) == 0.0
    assert float(compiled(model, jnp.ones(2))) == 2.0
    assert float(model.calls) == 1.0
    assert jitted.lower(model, jnp.ones(2)).compile().memory_analysis() is not None
    with pytest.raises(AttributeError):
        _ = compiled.__missing__
    with pytest.raises(AttributeError, match="no_such"):
        _ = compiled.no_such


def test_stages_of_abstract_arguments() -> None:
    model = nnx.eval_shape(layer)
    x = jax.ShapeDtypeStruct((3, 2), jnp.float32)
    compiled = nnx.jit(lambda m, x: m(x)).lower(model, x).compile()
    np.testing.assert_allclose(compiled(layer(), X), layer()(X), rtol=1e-6)


def test_a_compiled_function_refuses_another_structure() -> None:
    model = layer()
    model.scale = 2.0
    compiled = nnx.jit(lambda model, x: model(x) * model.scale).lower(model, X).compile()
    compiled(model, X)
    model.scale = 3.0
    found = re.escape(
        "of another structure: model.scale was 2.0 (static) and is 3.0 (static). Comp"
    )
    with pytest.raises(nnx.StructureError, match=found):
        compiled(model, X)
    with pytest.raises(nnx.StructureError, match=r"model was a Linear and is an array"):
        compiled(X, X)


@pytest.mark.parametrize("options", [{}, {"in_shardings": True}, {"donate": None}])
def test_compiled_ahead_of_time(options: dict[str, Any]) -> None:
    options = {k: (shardings_of_wide()[0], None) if v is True else v for k, v in options.items()}
    m, plain, x = Wide(), Wide(), jnp.ones(2)
    train = nnx.jit(train_wide, **options)
    compiled = train.lower(m, x).compile()
    stats = compiled.memory_analysis()
    if "donate" not in options:
        assert stats.output_size_in_bytes - stats.alias_size_in_bytes < 64
    for run in (compiled, compiled, train, compiled, compiled, compiled, train):
        np.testing.assert_allclose(run(m, x), train_wide(plain, x))
        np.testing.assert_array_equal(nnx.clone(m).kernel, plain.kernel)
    for _ in range(3):
        compiled(m, x), train_wide(plain, x)
    assert is_donated(lambda: compiled(m, x), m.kernel) == ("donate" not in options)
    train_wide(plain, x)
    results: list[Any] = []  # in another thread nothing may be donated: it is copied
    thread = threading.Thread(target=lambda: results.append(compiled(m, x)))
    thread.start()
    thread.join()
    np.testing.assert_allclose(results[0], train_wide(plain, x))
    np.testing.assert_allclose(compiled(m, x), train_wide(plain, x))
    np.testing.assert_array_equal(m.kernel, plain.kernel)
    other = Wide()
    other.scale = None
    with pytest.raises(nnx.StructureError, match=r"m\.scale was a BatchStat and is None"):
        compiled(other, x)


def test_compiled_for_abstract_objects() -> None:
    m, x = Wide(), jnp.ones(2)
    abstract = nnx.eval_shape(Wide)
    compiled = (
        nnx.jit(train_wide).lower(abstract, jax.ShapeDtypeStruct((2,), jnp.float32)).compile()
    )
    plain = Wide()
    for _ in range(3):
        np.testing.assert_allclose(compiled(m, x), train_wide(plain, x))
    assert is_donated(lambda: compiled(m, x), m.kernel)


def test_what_is_compiled_ahead_of_time_stays_when_caches_are_cleared() -> None:
    m, plain, x = Wide(), Wide(), jnp.ones(2)
    compiled = nnx.jit(train_wide).lower(m, x).compile()
    for _ in range(2):
        np.testing.assert_allclose(compiled(m, x), train_wide(plain, x))
        nnx.clear_caches()
    np.testing.assert_allclose(compiled(Wide(), x), train_wide(Wide(), x))


def test_stages_while_another_function_holds_the_arrays() -> None:
    m, plain, x = Wide(), Wide(), jnp.ones(2)
    step, train = nnx.jit(train_wide), nnx.jit(train_wide)
    train.lower(m, x)
    for _ in range(4):
        step(m, x), train_wide(plain, x)
    compiled = train.lower(m, x).compile()
    np.testing.assert_allclose(compiled(m, x), train_wide(plain, x))
    np.testing.assert_array_equal(m.kernel, plain.kernel)


def test_what_is_compiled_ahead_of_time_keeps_arrays_where_nothing_is_to_be_donated() -> None:
    m, plain, x = Wide(), Wide(), jnp.ones(2)
    compiled = nnx.jit(train_wide).lower(m, x).compile()
    for _ in range(2):
        held, value = m.kernel[...], np.array(m.kernel)
        with nnx.set_auto_donation(False):
            np.testing.assert_allclose(compiled(m, x), train_wide(plain, x))
        np.testing.assert_array_equal(held, value)
        np.testing.assert_array_equal(m.kernel, plain.kernel)


def test_stages_can_be_copied() -> None:
    m, x = Wide(), jnp.ones(2)
    traced = nnx.jit(train_wide).trace(m, x)
    for stage in (traced, traced.lower()):
        assert type(copy.copy(stage)) is type(stage)
    np.testing.assert_allclose(copy.copy(traced).lower().compile()(m, x), train_wide(Wide(), x))
