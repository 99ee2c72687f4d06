"""Makes notebooks of some chapters: `uv run --group docs python docs/notebooks.py`.

A chapter's Python blocks become cells; what they print is found out when the notebook is executed.
The site has them, executed if this was run before, and links to them at the top of their chapters.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FOLDER = HERE / "notebooks"
CHAPTERS = ("objects", "variables", "jit", "gradients", "vmap")
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

    notebook = jupytext.reads(source(chapter), fmt="md")
    notebook.metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}
    }
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"  # the same each time
    return notebook


def cells(notebook: Any) -> list[tuple[str, str]]:
    return [(cell["cell_type"], cell["source"]) for cell in notebook["cells"]]


def write(chapter: str, *, execute: bool = False) -> None:
    """Writes the notebook of a chapter; one that was executed and says the same stays."""
    import nbformat

    notebook, file = made(chapter), FOLDER / f"{chapter}.ipynb"
    if execute:
        from nbclient import NotebookClient

        NotebookClient(notebook, timeout=120).execute()
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
