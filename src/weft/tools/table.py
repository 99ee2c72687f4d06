"""Tables as text: drawn by rich where it is installed, else with the same content plainly."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Mapping, Sequence
from typing import Any

_WIDTH = 240


def draw(
    title: str,
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    caption: str,
    *,
    table_options: Mapping[str, Any],
    column_options: Mapping[str, Any],
    console_options: Mapping[str, Any],
) -> str:
    """Draws a table.

    Args:
      title: a line above it.
      headers: names of the columns.
      rows: cells, of one or several lines each; the last row is the footer.
      caption: a line below it.
      table_options: arguments of `rich.table.Table`; unused without rich, as the next two.
      column_options: arguments of `rich.table.Table.add_column`.
      console_options: arguments of `rich.console.Console`.
    """
    if importlib.util.find_spec("rich") is None:
        return draw_plainly(title, headers, rows, caption)
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    defaults: dict[str, Any] = {"title": title, "caption": f"\n{caption}", "show_lines": True}
    table = Table(**{**defaults, **table_options})
    for header in headers:
        table.add_column(header, **column_options)
    for row in rows:
        table.add_row(*map(Text, row))
    console = Console(**{"file": io.StringIO(), "width": _WIDTH, **console_options})
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"


def draw_plainly(
    title: str, headers: Sequence[str], rows: Sequence[Sequence[str]], caption: str
) -> str:
    """Draws a table with nothing but ASCII characters; see `draw`."""
    table = [list(headers), *map(list, rows)]
    columns = zip(*table, strict=True)
    widths = [
        max(len(line) for cell in column for line in [*cell.splitlines(), ""]) for column in columns
    ]
    rule = "+" + "+".join("-" * (width + 2) for width in widths) + "+"
    lines = [title.center(len(rule)).rstrip(), rule]
    for i, row in enumerate(table):
        cells = [cell.splitlines() for cell in row]
        for n in range(max(1, *map(len, cells))):
            parts = [cell[n] if n < len(cell) else "" for cell in cells]
            padded = (f" {part.ljust(width)} " for part, width in zip(parts, widths, strict=True))
            lines.append("|" + "|".join(padded) + "|")
        lines.append(rule.replace("-", "=") if i == 0 else rule)
    return "\n".join([*lines, caption.center(len(rule)).rstrip()]) + "\n"
