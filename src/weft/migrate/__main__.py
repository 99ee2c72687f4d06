"""`python -m weft.migrate PATH... [--write]`: shows or makes the change from flax.nnx to Weft."""

from __future__ import annotations

import argparse
import difflib
import errno
import io
import os
import sys
import tokenize
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from weft._saving.replacing import replacing
from weft.migrate import Migration, migrate
from weft.migrate.marks import Mark
from weft.migrate.notebooks import migrate_notebook

SUFFIXES = (".py", ".pyi", ".ipynb")
PASSED_OVER = ("__pycache__", "site-packages", "node_modules")


def main(arguments: Sequence[str] | None = None) -> int:
    """Migrates files; returns 1 if one could not be read or written, else 0."""
    parser = argparse.ArgumentParser(
        prog="python -m weft.migrate",
        description="Changes imports of flax.nnx to Weft, and says what wants to be looked at.",
    )
    parser.add_argument(
        "paths", nargs="+", type=Path, help="files, or folders with Python files and notebooks"
    )
    parser.add_argument("--write", action="store_true", help="change the files; else show how")
    options = parser.parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):  # of a console that cannot show all texts
        sys.stdout.reconfigure(errors="backslashreplace")
    changed = marked = failed = 0
    for file in _files(options.paths):
        try:
            source = file.read_bytes()
            if b"flax" not in source:
                continue  # whatever else it is
            found = (migrate_notebook if file.suffix == ".ipynb" else migrate)(source)
            if options.write and found.after != found.before:
                _write(file, found.after)
        except (OSError, SyntaxError, ValueError, RecursionError) as error:
            print(f"{file}: {error}", file=sys.stderr)
            failed += 1
            continue
        changed += found.after != found.before
        marked += bool(found.marks)
        if not options.write:
            sys.stdout.writelines(_difference(file, found))
        is_moved = options.write and file.suffix != ".ipynb"  # there, lines are those of cells
        for line in _lines(_moved(found) if is_moved else found.marks):
            print(f"{file}:{line}")
    done = "changed" if options.write else "to be changed, by `--write`"
    print(f"{changed} files {done}; {marked} with places to look at; {failed} failed")
    return 1 if failed else 0


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        for folder, folders, names in os.walk(path):
            folders[:] = sorted(name for name in folders if _is_own(Path(folder, name)))
            for name in sorted(names):
                file = Path(folder, name)
                if name.endswith(SUFFIXES) and file.is_file():  # no link to nowhere
                    yield file


def _is_own(folder: Path) -> bool:
    """Says whether what is in a folder is the project's, and not of an environment or a tool."""
    is_hidden = folder.name.startswith(".") or folder.name in PASSED_OVER
    return not is_hidden and not (folder / "pyvenv.cfg").exists()


def _write(file: Path, content: bytes) -> None:
    if not file.stat().st_mode & 0o222:  # it could be replaced, but is not meant to be
        raise PermissionError(errno.EACCES, "the file is read-only")
    with replacing(file) as new:
        new.write_bytes(content)


def _difference(file: Path, found: Migration) -> Iterator[str]:
    before, after = (_lines_of(source) for source in (found.before, found.after))
    for line in difflib.unified_diff(before, after, str(file), str(file)):
        yield line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"


def _moved(found: Migration) -> Iterator[Mark]:
    """Yields the marks with the lines that they have in the changed program."""
    matcher = difflib.SequenceMatcher(None, _lines_of(found.before), _lines_of(found.after))
    blocks = matcher.get_opcodes()
    for mark in found.marks:
        for _, begin, end, new_begin, new_end in blocks:
            if begin < mark.line <= end:
                yield mark._replace(line=min(mark.line - begin + new_begin, max(new_end, 1)))


def _lines_of(source: bytes) -> list[str]:
    encoding = tokenize.detect_encoding(io.BytesIO(source).readline)[0]
    return io.StringIO(source.decode(encoding, "replace").replace("\r\n", "\n")).readlines()


def _lines(marks: Iterable[Mark]) -> Iterator[str]:
    """Yields what is to be said, once for each name, with all lines where it is used."""
    places: dict[tuple[str, str], list[str]] = {}
    for mark in marks:
        cell = "" if mark.cell is None else f"cell {mark.cell}:"
        places.setdefault((mark.name, mark.text), []).append(f"{cell}{mark.line}")
    for (name, text), (first, *others) in places.items():
        more = f" (and in line {', '.join(others)})" if others else ""
        yield f"{first}: {name}: {text}{more}"


if __name__ == "__main__":
    raise SystemExit(main())
