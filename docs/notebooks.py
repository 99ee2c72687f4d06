"""Makes notebooks of some chapters: `uv run --group docs python docs/notebooks.py`.

A chapter's Python blocks become cells; what they print is found out when the notebook is executed.
The site has them, executed if this was run before, and links to them at the top of their chapters.
"""

from __future__ import annotations

import ast
import os
import re
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FOLDER = HERE / "notebooks"
CHAPTERS = {
    "objects": None,  # which prints its model
    "variables": "model",
    "jit": "model",
    "gradients": "optimizer",
    "vmap": "models",
}
"""By chapter, the name of what a further cell shows, after the one that first makes it."""

OUTPUT = re.compile(r"(^```python\n.*?^```$)\s*^```text\n.*?^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[([^\]]+)\]\((?!https?:)[^)]*\)")  # to pages that are not beside the notebook


def source(chapter: str) -> str:
    """Returns a chapter as the Markdown of a notebook: without output, without links to pages."""
    text = (HERE / "learn" / f"{chapter}.md").read_text(encoding="utf-8")
    text = LINK.sub(r"\1", OUTPUT.sub(r"\1", text))
    return text.replace("print(model)", "nnx.display(model)")  # which unfolds in a notebook


def made(chapter: str) -> Any:
    """Returns the notebook of a chapter, not executed."""
    import jupytext
    import nbformat

    notebook = jupytext.reads(source(chapter), fmt="md")
    if shown := CHAPTERS[chapter]:
        place = next(i for i, cell in enumerate(notebook.cells) if shown in assigned(cell)) + 1
        notebook.cells.insert(place, nbformat.v4.new_code_cell(f"nnx.display({shown})"))
    notebook.metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}
    }
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"  # the same each time
    return notebook


def assigned(cell: Any) -> set[str]:
    """Returns the names that the statements of a cell assign to."""
    if cell["cell_type"] != "code":
        return set()
    return {
        target.id
        for statement in ast.parse(cell["source"]).body
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        if isinstance(target, ast.Name)
    }


def executed(notebook: Any) -> Any:
    """Returns a notebook with what its cells show, run in an empty folder.

    Raises:
      nbclient.exceptions.CellExecutionError: if a cell raises.
    """
    from nbclient import NotebookClient
    from traitlets.config import Config

    with tempfile.TemporaryDirectory() as folder:
        # The kernel is spoken to by sockets in that folder, and so has no open ports.
        config = Config(KernelManager={"transport": "ipc", "ip": f"{folder}/kernel"})
        resources = {"metadata": {"path": folder}}
        client = NotebookClient(
            notebook, config=config, resources=resources, timeout=120, record_timing=False
        )
        return client.execute(env=os.environ | {"IPYTHONDIR": f"{folder}/.ipython"})


def cells(notebook: Any) -> list[tuple[str, str]]:
    return [(cell["cell_type"], cell["source"]) for cell in notebook["cells"]]


def write(chapter: str, *, execute: bool = False) -> None:
    """Writes the notebook of a chapter; one that was executed and says the same stays."""
    import nbformat

    notebook, file = made(chapter), FOLDER / f"{chapter}.ipynb"
    if execute:
        notebook = executed(notebook)
    elif file.exists() and cells(nbformat.read(file, as_version=4)) == cells(notebook):
        return
    FOLDER.mkdir(exist_ok=True)
    nbformat.write(notebook, file)


def write_all(*, execute: bool = False) -> None:
    with ThreadPoolExecutor(2) as pool:
        for _ in pool.map(lambda chapter: write(chapter, execute=execute), CHAPTERS):
            pass


def setup(app: Any) -> dict[str, Any]:
    """Called by Sphinx, for which this file is an extension."""
    app.connect("builder-inited", lambda app: write_all())
    app.connect("source-read", link)
    return {"version": "1", "parallel_read_safe": True}


def link(app: Any, docname: str, content: list[str]) -> None:
    """Puts a link to its notebook below the title of a chapter."""
    folder, _, name = docname.partition("/")
    if folder == "learn" and name in CHAPTERS:
        title, _, rest = content[0].partition("\n")
        there = f"{{download}}`{name}.ipynb <../notebooks/{name}.ipynb>`"
        content[0] = f"{title}\n\nThis chapter is also a notebook: {there}.\n{rest}"


if __name__ == "__main__":
    write_all(execute=True)
