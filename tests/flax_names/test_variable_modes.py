"""Modes that Variables do not have: accepted where they ask for nothing, refused otherwise."""

import pytest

import weft as nnx


def test_defaults_say_that_variables_are_plain():
    assert dict(nnx.var_defaults()) == {"hijax": False, "ref": False}
    assert nnx.var_defaults().hijax is nnx.var_defaults()["ref"] is False
    assert len(nnx.var_defaults()) == 2 and "other" not in nnx.var_defaults()
    assert repr(nnx.var_defaults()) == "VarDefaults(hijax=False, ref=False)"
    with nnx.var_defaults(hijax=False, ref=None):
        assert nnx.Param(1.0).ref is False


@pytest.mark.parametrize("mode", ["hijax", "ref"])
def test_other_defaults_are_refused(mode):
    with pytest.raises(ValueError, match=f"{mode}=True is not supported"):
        nnx.var_defaults(**{mode: True})


def test_with_vars_copies_the_objects_and_keeps_the_variables():
    layer = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    model = nnx.Dict(a=layer, b=layer)
    copy = nnx.with_vars(model, hijax=False, ref=False, mutable=True, only=nnx.Param)
    assert copy is not model and copy.a is copy.b and copy.a is not layer
    assert copy.a.kernel is layer.kernel
    assert nnx.vars_as is nnx.with_vars


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"ref": True}, ValueError, "ref=True is not supported"),
        ({"hijax": True}, ValueError, "hijax=True is not supported"),
        ({"mutable": False}, ValueError, r"can always be written.*nnx\.clone"),
        ({"only": 3}, TypeError, "is not a filter"),
    ],
)
def test_other_modes_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        nnx.with_vars(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), **options)


def test_modes_as_a_decorator():
    @nnx.var_defaults(hijax=False)
    def f():
        return nnx.Param(1)

    assert type(f()) is nnx.Param
