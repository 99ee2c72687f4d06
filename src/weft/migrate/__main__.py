"""`python -m weft.migrate PATH... [--write]`: shows or makes the change from flax.nnx to Weft."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from weft._saving.replacing import replacing
from weft.migrate import Migration, migrate
from weft.migrate.marks import Mark


def main(arguments: Sequence[str] | None = None) -> int:
    """Migrates files; returns 1 if one could not be read or written, else 0."""
    parser = argparse.ArgumentParser(
        prog="python -m weft.migrate",
        description="Changes imports of flax.nnx to Weft, and says what wants to be looked at.",
    )
    parser.add_argument("paths", nargs="+", type=Path, help="files, or folders with Python files")
    parser.add_argument("--write", action="store_true", help="change the files; else show how")
    options = parser.parse_args(arguments)
    changed = marked = failed = 0
    for file in _files(options.paths):
        try:
            found = migrate(file.read_bytes())
            if options.write and found.after != found.before:
                with replacing(file) as new:
                    new.write_bytes(found.after)
        except (OSError, SyntaxError, UnicodeDecodeError) as error:
            print(f"{file}: {error}", file=sys.stderr)
            failed += 1
            continue
        changed += found.after != found.before
        marked += bool(found.marks)
        if not options.write:
            sys.stdout.writelines(_difference(file, found))
        for line in _lines(found.marks):
            print(f"{file}:{line}")
    done = "changed" if options.write else "to be changed, by `--write`"
    print(f"{changed} files {done}; {marked} with places to look at; {failed} not readable")
    return 1 if failed else 0


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        yield from sorted(path.rglob("*.py")) if path.is_dir() else [path]


def _difference(file: Path, found: Migration) -> Iterator[str]:
    texts = [text.decode("utf-8", "replace") for text in (found.before, found.after)]
    before, after = (text.splitlines(keepends=True) for text in texts)
    return difflib.unified_diff(before, after, str(file), str(file))


def _lines(marks: Iterable[Mark]) -> Iterator[str]:
    """Yields what is to be said, once for each name, with all lines where it is used."""
    places: dict[tuple[str, str], list[int]] = {}
    for mark in marks:
        places.setdefault((mark.name, mark.text), []).append(mark.line)
    for (name, text), (first, *others) in places.items():
        more = f" (and in line {', '.join(map(str, others))})" if others else ""
        yield f"{first}: {name}: {text}{more}"


if __name__ == "__main__":
    raise SystemExit(main())
