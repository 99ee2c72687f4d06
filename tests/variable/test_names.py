"""Collection names of Variable types."""

import pytest

import weft as nnx
from weft._variable import names


@pytest.fixture(autouse=True)
def restored_names(monkeypatch):
    monkeypatch.setattr(names, "_TYPES", dict(names._TYPES))
    monkeypatch.setattr(names, "_NAMES", dict(names._NAMES))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("params", nnx.Param),
        ("batch_stats", nnx.BatchStat),
        ("cache", nnx.Cache),
        ("intermediates", nnx.Intermediate),
        ("perturbations", nnx.Perturbation),
    ],
)
def test_general_types_have_the_names_of_linen(name, kind):
    assert nnx.variable_type_from_name(name) is kind
    assert nnx.variable_name_from_type(kind) == name


def test_registering_by_call_and_by_decorator():
    class First(nnx.Variable):
        pass

    assert nnx.register_variable_name("first", First) is First

    @nnx.register_variable_name("second")
    class Second(nnx.Variable):
        pass

    assert nnx.variable_type_from_name("first") is First
    assert nnx.variable_name_from_type(Second) == "second"


def test_registering_again_is_allowed_for_the_same_type():
    nnx.register_variable_name("params", nnx.Param)
    assert nnx.variable_type_from_name("params") is nnx.Param


def test_a_name_in_use_is_refused():
    class Other(nnx.Variable):
        pass

    with pytest.raises(ValueError, match=r"'params' stands for Param already.*overwrite=True"):
        nnx.register_variable_name("params", Other)
    nnx.register_variable_name("params", Other, overwrite=True)
    assert nnx.variable_type_from_name("params") is Other
    with pytest.raises(ValueError, match="Param has no collection name"):
        nnx.variable_name_from_type(nnx.Param)


def test_a_type_has_one_name():
    class Renamed(nnx.Variable):
        pass

    nnx.register_variable_name("old", Renamed)
    nnx.register_variable_name("new", Renamed)
    assert nnx.variable_name_from_type(Renamed) == "new"
    with pytest.raises(ValueError, match="no Variable type has the collection name 'old'"):
        nnx.variable_type_from_name("old")


def test_unknown_names_and_types_are_registered_on_demand():
    with pytest.raises(ValueError, match=r"collection name 'norms'; known are .*'params'"):
        nnx.variable_type_from_name("norms")
    kind = nnx.variable_type_from_name("norms", base=nnx.Param, allow_register=True)
    assert issubclass(kind, nnx.Param) and kind.__name__ == "norms"
    assert nnx.variable_type_from_name("norms") is kind

    class Fresh(nnx.Variable):
        pass

    with pytest.raises(ValueError, match="Fresh has no collection name"):
        nnx.variable_name_from_type(Fresh)
    assert nnx.variable_name_from_type(Fresh, allow_register=True) == "Fresh"
    assert nnx.variable_type_from_name("Fresh") is Fresh


def test_sow_takes_a_collection_name():
    module = nnx.Module()
    module.sow("intermediates", "seen", 1.0)
    assert type(module.seen) is nnx.Intermediate
