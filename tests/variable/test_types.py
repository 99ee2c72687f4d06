"""The types of Variables, and which is a kind of which."""

from __future__ import annotations

import weft as nnx


def test_types_of_variables() -> None:
    for kind in (nnx.Param, nnx.BatchStat, nnx.Cache, nnx.Intermediate, nnx.Perturbation):
        assert issubclass(kind, nnx.Variable)
        assert repr(kind(1.0)) == f"{kind.__name__}(1.0)"
    assert issubclass(nnx.Perturbation, nnx.Intermediate)


def test_filters_by_a_type_select_its_kinds() -> None:
    model = nnx.Dict(
        seen=nnx.Intermediate(1.0),
        nudge=nnx.Perturbation(2.0),
        key=nnx.RngKey(3.0),
        drawn=nnx.RngCount(4.0),
        moment=nnx.OptVariable(5.0),
        step=nnx.OptState(6.0),
        count=nnx.OptArray(7.0),
    )
    for kind, names in {
        nnx.Intermediate: ["nudge", "seen"],
        nnx.Perturbation: ["nudge"],
        nnx.RngState: ["drawn", "key"],
        nnx.OptState: ["count", "moment", "step"],
    }.items():
        assert list(nnx.state(model, kind)) == names
