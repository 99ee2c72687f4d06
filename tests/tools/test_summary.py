"""`tabulate`: rows, sizes and costs of a model's parts."""

import importlib.util

import jax
import jax.numpy as jnp
import pytest

import weft as nnx


class Block(nnx.Module):
    def __init__(self, rngs):
        self.linear = nnx.Linear(4, 4, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.drop(self.norm(self.linear(x)))


class Model(nnx.Module):
    def __init__(self, rngs):
        self.blocks = [Block(rngs), Block(rngs)]
        self.head = nnx.Linear(4, 2, use_bias=False, rngs=rngs)

    def __call__(self, x, *, scale=1):
        for block in self.blocks:
            x = block(x)
        return self.head(x) * scale, {"last": x}

    def first(self, x):
        return self.blocks[0](x)


X = jax.ShapeDtypeStruct((3, 4), jnp.float32)


@pytest.fixture(scope="module")
def model():
    return Model(nnx.Rngs(0))


def rows_of(table):
    """The cells of each row, lines of a cell joined by newlines."""
    rows, current = [], None
    for line in table.splitlines():
        if line[:1] in ("│", "|"):
            cells = [cell.strip() for cell in line.strip("│|").split(line[0])]
            current = (
                cells
                if current is None
                else [f"{a}\n{b}".strip() for a, b in zip(current, cells, strict=True)]
            )
        elif current is not None:
            rows.append(current)
            current = None
    return {row[0]: row[1:] for row in rows}


def has_rich():
    return importlib.util.find_spec("rich") is not None


@pytest.fixture(params=["rich", "plain"])
def drawing(request, monkeypatch):
    if request.param == "plain":
        find = importlib.util.find_spec
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda n, *rest: None if n == "rich" else find(n, *rest)
        )
    elif not has_rich():
        pytest.skip("rich is not installed")


def test_a_row_per_call_with_shapes_and_sizes(model, drawing):
    table = nnx.tabulate(model, X)
    assert table.splitlines()[0].strip() == "Model Summary"
    assert "Total Parameters: 64 (256 B)" in table
    rows = rows_of(table)
    assert list(rows) == [
        *([] if has_rich() and "━" in table else ["path"]),
        "",
        *(f"blocks/{i}{part}" for i in (0, 1) for part in ("", "/linear", "/norm", "/drop")),
        "head",
    ]
    assert rows["blocks/0"] == [
        *("Block", "float32[3,4]", "float32[3,4]"),
        *("8 (32 B)", "28 (112 B)", "2 (12 B)"),
    ]
    assert rows["blocks/1/norm"] == [
        *("BatchNorm", "float32[3,4]", "float32[3,4]"),
        "mean: float32[4]\nvar: float32[4]\n8 (32 B)",
        "bias: float32[4]\nscale: float32[4]\n8 (32 B)",
        "",
    ]
    assert rows["head"][-2] == "kernel: float32[4,2]\n8 (32 B)"
    assert rows[""] == ["", "", "Total", "16 (64 B)", "64 (256 B)", "4 (24 B)"]


def test_inputs_and_outputs_in_words():
    class Many(nnx.Module):
        def __call__(self, x, pair, *, flag, rngs):
            return [x, pair], None

    inputs = (X, (X, {"a": X}))
    row = rows_of(nnx.tabulate(Many(), *inputs, flag=True, rngs=nnx.Rngs(0)))
    assert list(row) == [""] or "" in row
    table = nnx.tabulate(Many(), *inputs, flag=True, rngs=nnx.Rngs(0))
    for text in ("- float32[3,4]", "- a: float32[3,4]", "flag: True", "rngs: Rngs", "- None"):
        assert text in table


def test_nothing_is_computed_and_the_model_stays(model):
    before = nnx.clone(model)
    graphdef = nnx.graphdef(model)
    nnx.tabulate(model, jnp.ones((3, 4)))
    assert nnx.graphdef(model) == graphdef and type(model.head) is nnx.Linear
    assert jax.tree.all(
        jax.tree.map(lambda a, b: (a == b).all(), nnx.state(model), nnx.state(before))
    )


def test_classes_stay_as_they_are_during_the_call():
    before = dict(vars(Block))

    class Looking(Block):
        def __call__(self, x):
            assert dict(vars(Block)) == before
            return super().__call__(x)

    nnx.tabulate(Looking(nnx.Rngs(0)), X)


def test_abstract_models_python_values_and_other_methods(model):
    abstract = nnx.eval_shape(lambda: Model(nnx.Rngs(0)))
    assert nnx.tabulate(abstract, X, scale=2) == nnx.tabulate(model, X, scale=2)
    rows = rows_of(nnx.tabulate(model, X, method="first"))
    assert "blocks/0/linear" in rows and "head" not in rows
    assert rows_of(nnx.tabulate(nnx.Sequential([model.head]), X))["layers/0"][0] == "Linear"


@pytest.mark.parametrize(
    ("depth", "paths"), [(0, []), (1, ["head"]), (2, ["blocks/0", "blocks/1"])]
)
def test_depth(model, depth, paths):
    infos = []
    nnx.tabulate(model, X, depth=depth, row_filter=lambda row: infos.append(row) or True)
    shown = ["/".join(map(str, info.path)) for info in infos]
    assert "" in shown and set(paths) <= set(shown)
    assert max(len(info.path) for info in infos) == depth


def test_rows_are_filtered():
    class Drawing(nnx.Module):
        def __init__(self):
            self.rngs = nnx.Rngs(0)

        def __call__(self):
            return self.rngs.default()

    infos = []
    assert "RngStream" not in nnx.tabulate(Drawing())
    table = nnx.tabulate(Drawing(), row_filter=lambda row: infos.append(row) or True)
    assert "RngStream" in table
    assert [(i.call_order, i.type, i.path) for i in infos] == [
        (0, Drawing, ()),
        (1, nnx.RngStream, ("rngs", "default")),
    ]
    assert infos[0].flops is None and infos[0].outputs.shape == ()


def test_shared_parts_have_a_row_per_call_and_count_once():
    layer = nnx.Linear(4, 4, use_bias=False, rngs=nnx.Rngs(0))
    infos = []
    table = nnx.tabulate(
        nnx.Sequential(layer, layer), X, row_filter=lambda row: infos.append(row) or True
    )
    assert [info.path for info in infos] == [(), ("layers", 0), ("layers", 0)]
    assert infos[1].object_id == infos[2].object_id
    assert "Total Parameters: 16 (64 B)" in table


def test_arrays_without_a_variable_and_subtypes_are_counted():
    class Mixed(nnx.Module):
        def __init__(self):
            self.table = jnp.ones(3)
            self.a = nnx.LoRAParam(jnp.ones(2))
            self.plain = nnx.Variable("text")

        def __call__(self):
            return self.a.value

    table = nnx.tabulate(Mixed())
    assert "table: float32[3]" in table and "plain: 'text'" in table
    assert "a: float32[2]" in table and "LoRAParam" not in table  # it counts as a Param
    assert "3 (12 B)" in table and "Total Parameters: 2 (8 B)" in table
    assert "Total Parameters: 0 (0 B)" in nnx.tabulate(nnx.Dropout(0.5, rngs=nnx.Rngs(0)), X)


# -- costs
def test_flops_of_calls():
    layer = nnx.Linear(4, 2, use_bias=False, rngs=nnx.Rngs(0))
    infos = []
    table = nnx.tabulate(
        layer,
        X,
        compute_flops=True,
        compute_vjp_flops=True,
        row_filter=lambda row: infos.append(row) or True,
    )
    assert infos[0].flops == 2 * 3 * 4 * 2
    assert infos[0].vjp_flops == 2 * infos[0].flops or infos[0].vjp_flops == 3 * infos[0].flops
    assert "vjp_flops" in table


def test_flops_of_every_part():
    infos = []
    layers = [nnx.Linear(4, 4, rngs=nnx.Rngs(0)), nnx.relu]
    nnx.tabulate(
        nnx.Sequential(layers),
        X,
        compute_flops=True,
        row_filter=lambda row: infos.append(row) or True,
    )
    counts = {info.path: info.flops for info in infos}
    assert counts[()] > counts[("layers", 0)] > 0
    assert all(info.vjp_flops is None for info in infos)


# -- errors
@pytest.mark.parametrize("obj", [[nnx.Module()], nnx.Module(), 3], ids=["list", "no call", "int"])
def test_things_that_cannot_be_called(obj):
    with pytest.raises(TypeError, match=r"a Module with a method '__call__', found a"):
        nnx.tabulate(obj, X)
