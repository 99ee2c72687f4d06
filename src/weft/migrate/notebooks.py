"""Notebooks: their cells are one program, in which lines that only IPython knows are set aside."""

from __future__ import annotations

import ast
import json
import re
from bisect import bisect_right

from weft.migrate.program import Migration, migrate

_CELL = "# <cell {}>\n"
_CELLS = re.compile(r"^# <cell \d+>\n", re.MULTILINE)
_MAGIC = re.compile(r"^([^\S\n]*)((?:[\w, ]+=\s*)?[%!?].*|[\w.]+\?\??)$", re.MULTILINE)
_ANY = re.compile(r"^([^\S\n]*)(.+)$", re.MULTILINE)
_SET_ASIDE = re.compile(r"^([^\S\n]*)pass  # <ipython> (.*)$", re.MULTILINE)


def migrate_notebook(source: bytes) -> Migration:
    """Changes what the cells of a notebook import from `flax.nnx` to Weft.

    Args:
      source: the notebook, an `.ipynb` file.

    Raises:
      SyntaxError: if it is no notebook, or what is in its cells is no Python.
    """
    try:
        notebook = json.loads(source)
        cells = notebook["cells"]
        places = [i for i, cell in enumerate(cells) if cell["cell_type"] == "code"]
        texts = ["".join(cells[i]["source"]) for i in places]
    except (ValueError, KeyError, TypeError) as error:
        raise SyntaxError(f"no notebook with cells: {error!r}") from None
    parts = [_part(i, text) for i, text in zip(places, texts, strict=True)]
    found = migrate("".join(parts).encode())
    changed = _CELLS.split(found.after.decode())[1:]
    for i, before, after in zip(places, texts, changed, strict=True):
        after = _SET_ASIDE.sub(r"\1\2", after).removesuffix("\n")
        if after != before:
            is_text = isinstance(cells[i]["source"], str)
            cells[i]["source"] = after if is_text else after.splitlines(keepends=True)
    begins = [0]
    for part in parts:
        begins.append(begins[-1] + part.count("\n"))
    marks = []
    for mark in found.marks:
        part = bisect_right(begins, mark.line - 1) - 1
        marks.append(mark._replace(line=mark.line - 1 - begins[part], cell=places[part] + 1))
    is_same = found.after == found.before
    return Migration(source, source if is_same else _written(notebook, source), tuple(marks))


def _part(i: int, text: str) -> str:
    """Returns what a cell is in the program of all."""
    python = _python(text)
    try:
        _parse(python)
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        raise SyntaxError(f"cell {i + 1}: line {line or 1}: {error.args[0]}") from None
    return f"{_CELL.format(i)}{python}\n"


def _python(text: str) -> str:
    """Returns a cell in which each line that is no Python is one that does nothing."""
    if _is_python(text):
        return text
    aside = r"\1pass  # <ipython> \2"
    python = _MAGIC.sub(aside, text)
    is_foreign = text.startswith("%%") and not _is_python(python)  # `%%bash`, and not `%%time`
    return _ANY.sub(aside, text) if is_foreign else python


def _is_python(text: str) -> bool:
    try:
        _parse(text)
    except (SyntaxError, ValueError):
        return False
    return True


def _parse(text: str) -> None:
    compile(text, "cell", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def _written(notebook: object, like: bytes) -> bytes:
    """Returns a notebook as a file, with the indentation and the end that it had."""
    found = re.match(rb"\s*\{\r?\n( *)", like)
    indent = len(found[1]) if found else None
    text = json.dumps(notebook, indent=indent, ensure_ascii=like.isascii())
    return text.encode() + (b"\n" if like.endswith(b"\n") else b"")
