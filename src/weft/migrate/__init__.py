"""Programs written for `flax.nnx`, changed so that they import Weft: `python -m weft.migrate`.

A *change* is made to imports and to whole names (`flax.nnx.Linear`), and to nothing else: comments
and formatting stay. A *mark* is a place where the program uses what Weft leaves out, or what
behaves in another way; it names the entry of docs/differences.md.
"""

from __future__ import annotations

from weft.migrate.program import Migration as Migration
from weft.migrate.program import migrate as migrate
