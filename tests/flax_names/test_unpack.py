"""`unpack`: as `split`, with the GraphDef in each State."""

from __future__ import annotations

import pytest

import weft as nnx


def test_several() -> None:
    model = nnx.BatchNorm(2, rngs=nnx.Rngs(0))
    params, rest = nnx.unpack(model, nnx.Param, ...)
    assert list(params) == ["bias", "scale"]
    assert nnx.merge(params, rest).num_features == 2
    assert nnx.merge(params, rest.state).num_features == 2
    with pytest.raises(nnx.StructureError, match=r"missing: mean"):
        nnx.merge(params)
    with pytest.raises(nnx.SharedReferenceError):
        nnx.unpack(nnx.List([model, model]), graph=False)
