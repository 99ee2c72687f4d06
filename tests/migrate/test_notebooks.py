"""Notebooks: imports in cells are changed, and nothing else of the file."""

import json

import pytest

from weft.migrate.notebooks import migrate_notebook


def cell(source, kind="code"):
    return {"cell_type": kind, "metadata": {}, "outputs": [], "source": source}


def notebook(*cells, indent=1, end="\n"):
    whole = {"cells": list(cells), "metadata": {}, "nbformat": 4}
    return json.dumps(whole, indent=indent, ensure_ascii=False).encode() + end.encode()


def changed(*sources, **form):
    """What a notebook of these cells becomes: their sources."""
    found = migrate_notebook(notebook(*map(cell, sources), **form))
    after = [part["source"] for part in json.loads(found.after)["cells"]]
    assert found.after == notebook(*map(cell, after), **form)  # the form of the file stays
    return after


def test_cells_are_one_program():
    before = [["import flax\n", "import jax"], [], ["# é\n", "m = flax.nnx.relu(x)"]]
    after = [["import weft\n", "import jax"], [], ["# é\n", "m = weft.relu(x)"]]
    assert changed(*before) == after
    assert changed(*before, indent=2, end="") == after
    assert changed("from flax import nnx\n") == ["import weft as nnx\n"]  # a text as well


@pytest.mark.parametrize(
    "lines",
    [
        "%matplotlib inline",
        "if nnx:\n    !pip install 'flax'",
        "files = !ls\nnnx.Linear?",
        "%%time\nm = 1\nx = %timeit -o m",
        "?nnx.jit",
        "x = (1\n     % 2)",
        "text = '''\n%no magic\n'''",
        "await nnx",
    ],
)
def test_what_only_ipython_knows(lines):
    assert changed(f"from flax import nnx\n{lines}") == [f"import weft as nnx\n{lines}"]
    assert changed(lines, "from flax import nnx") == [lines, "import weft as nnx"]


def test_cells_of_another_language():
    shell = "%%bash\nfor x in flax; do echo $x; done"
    assert changed(shell, "from flax import nnx") == [shell, "import weft as nnx"]


def test_marks_name_the_cell():
    source = notebook(
        cell("# Text", "markdown"),
        cell("from flax import nnx"),
        cell(["%time x = 1\n", "nnx.merge(a, b)"]),
    )
    assert [(mark.cell, mark.line, mark.name) for mark in migrate_notebook(source).marks] == [
        (3, 2, "nnx.merge")
    ]


def test_nothing_to_change():
    source = b'{"cells": [  {"cell_type": "code", "source": "x = 1  # flax"}]}'
    assert migrate_notebook(source).after == source


@pytest.mark.parametrize("source", [b"flax", b'{"flax": 1}', b'{"cells": [{}]}', b"\xff"])
def test_what_is_no_notebook(source):
    with pytest.raises(SyntaxError, match="no notebook with cells: "):
        migrate_notebook(source)


def test_a_cell_that_is_no_python():
    with pytest.raises(SyntaxError, match="cell 2: line 3: "):
        migrate_notebook(notebook(cell("x = 1"), cell("%no\n\nif:")))
