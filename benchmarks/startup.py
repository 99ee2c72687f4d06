"""What a start costs: the import, then building a transformer of 12 blocks and its first step.

Every figure is of processes of their own, started in turn, so that nothing is warm but the files.
*Import* is the processor time that a library adds to importing JAX and Optax, with the names that a
first program uses of it: a layer, the optimizer, `jit` and `value_and_grad`. *Cold* is without a
compilation cache, *warm* with JAX's persistent one, filled by a process before. *Python* of a first
step is the time that does not go to the compiler: tracing, lowering, dispatch. Programs are those
that XLA compiles while the model is built; beside them stands how many distinct (initializer,
shape, dtype) the model has.

Budgets of Weft: an import of 0.2 s, no more programs than those distinct ones, and the Python of
the first step no slower than flax's.

    python benchmarks/startup.py            # about eight minutes
    python benchmarks/startup.py --quick    # one minute
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import harness
from startup_process import FIRST_NAMES, MODULES

PROCESS = Path(__file__).with_name("startup_process.py")
CACHE = {
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
IMPORT_BUDGET = 0.2
Figures = dict[str, list[float]]


def environment(cache: str | None) -> dict[str, str]:
    """Returns the environment of a process, with a folder for the compilation cache or without."""
    dropped = ("JAX_COMPILATION_CACHE", "PYTHONDONTWRITEBYTECODE")  # Python's cache is filled, too
    kept = {k: v for k, v in os.environ.items() if not k.startswith(dropped)}
    return kept | ({"JAX_COMPILATION_CACHE_DIR": cache, **CACHE} if cache else {})


def start(library: str, blocks: int | None = None, cache: str | None = None) -> dict[str, float]:
    """Runs one process and returns what it found."""
    command = [sys.executable, str(PROCESS), library, *([] if blocks is None else [str(blocks)])]
    done = subprocess.run(
        command, env=environment(cache), stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def import_times(library: str) -> Counter[str]:
    """Returns the seconds that a library adds to importing JAX and Optax, by top-level package."""
    used = ", ".join(f"library.{name}" for name in FIRST_NAMES[library])
    code = f"import jax\nimport optax\nimport {MODULES[library]} as library\n{used}"
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code],
        env=environment(None),
        stderr=subprocess.PIPE,
        text=True,
        check=True,
    )
    lines = [line.split("|") for line in done.stderr.splitlines() if line.startswith("import time")]
    names = [line[-1] for line in lines]
    found: Counter[str] = Counter()
    for own, _, name in lines[names.index(" optax") + 1 :]:  # a module stands after what it imports
        found[name.strip().partition(".")[0]] += int(own.partition(":")[2]) / 1e6
    return found


def libraries() -> list[str]:
    found = ["raw", "weft"]
    return found + [name for name in ("flax", "equinox") if harness.peer(MODULES[name])]


def add(figures: dict[str, Figures], name: str, found: dict[str, float]) -> None:
    for key, value in found.items():
        figures.setdefault(name, {}).setdefault(key, []).append(value)


def run(names: list[str], blocks: int, rounds: int) -> dict[str, dict[str, Figures]]:
    """Returns the figures of the imports, the cold starts and the warm ones, by library."""
    found: dict[str, dict[str, Figures]] = {"import": {}, "cold": {}, "warm": {}}
    with tempfile.TemporaryDirectory(prefix="weft_compiled_") as folder:
        for name in names:
            start(name, blocks, os.path.join(folder, name))  # fills the cache and Python's own
        for i in range(rounds):
            for name in names:
                for _ in range(3):  # short ones, of which there can be more
                    add(found["import"], name, start(name))
                add(found["cold"], name, start(name, blocks))
                add(found["warm"], name, start(name, blocks, os.path.join(folder, name)))
            print(f"round {i + 1} of {rounds}", flush=True)
    return found


def python_seconds(figures: Figures) -> list[float]:
    """Returns what of each first step did not go to the compiler."""
    pairs = zip(figures["step"], figures["step_compiling"], strict=True)
    return [whole - compiling for whole, compiling in pairs]


def rows_of(found: dict[str, dict[str, Figures]]) -> list[list[str]]:
    """Returns one line of the table for each library."""
    rows = []
    for name, cold in found["cold"].items():
        warm = found["warm"][name]
        middle = lambda figures, key: harness.duration(harness.median(figures[key]))  # noqa: E731
        programs = f"{harness.median(cold['model_programs']):.0f}"
        if "distinct" in cold:
            programs += f" ({harness.median(cold['distinct']):.0f})"
        rows.append(
            [
                name,
                middle(found["import"][name], "import") if name != "raw" else "-",
                middle(cold, "model"),
                programs,
                middle(cold, "step"),
                harness.duration(harness.median(python_seconds(cold))),
                middle(cold, "total"),
                middle(warm, "model"),
                middle(warm, "step"),
                middle(warm, "total"),
            ]
        )
    return rows


def budgets(found: dict[str, dict[str, Figures]]) -> list[list[str]]:
    """Returns a line for each budget: what, found, at most, verdict."""
    cold = found["cold"]
    imported = harness.median(found["import"]["weft"]["import"])
    programs, distinct = (
        harness.median(cold["weft"][key]) for key in ("model_programs", "distinct")
    )
    lines: list[tuple[str, float, float]] = [
        ("import over jax and optax, s", imported, IMPORT_BUDGET),
        ("programs compiled while building", programs, distinct),
    ]
    if "flax" in cold:
        seconds = {name: python_seconds(cold[name]) for name in ("weft", "flax")}
        ratio = harness.net_ratio(seconds, "weft", "flax")
        lines.append(("Python of the first step ÷ flax's, lower end", ratio.low, 1.0))
    return [
        [what, f"{value:.3g}", f"{most:.3g}", harness.verdict(value <= most)]
        for what, value, most in lines
    ]


def main(arguments: list[str] | None = None) -> None:
    options = harness.read_options(harness.make_parser(__doc__, full=5, quick=1), arguments)
    blocks = 2 if options.quick else 12
    names = libraries()
    found = run(names, blocks, options.rounds)
    header = ["", "import", "build, cold", "programs (distinct)", "first step, cold", "its Python"]
    header += ["build + first step, cold", "build, warm", "first step, warm"]
    header += ["build + first step, warm"]
    groups = []
    for name in names[1:]:
        parts = import_times(name)
        shown = [f"{package} {1e3 * s:.0f}" for package, s in parts.most_common(6) if s >= 0.001]
        groups.append([name, f"{1e3 * parts.total():.0f}", ", ".join(shown)])
    title = f"Starting with a transformer of {blocks} blocks"
    body = "\n\n".join(
        [
            f"{title}.",
            harness.table(header, rows_of(found)),
            harness.table(["Weft", "found", "at most", ""], budgets(found)),
            "Where an import goes, in ms, under `python -X importtime`, which slows it:",
            harness.table(["", "all", "by package"], groups),
        ]
    )
    harness.publish("Start-up", body, options)
    bars: dict[str, dict[str, Any]] = {
        f"{part}, {when}": {
            name: harness.median(figures[key]) for name, figures in found[when].items()
        }
        for when in ("cold", "warm")
        for part, key in (("build", "model"), ("first step", "step"))
    }
    bars["import"] = {
        name: harness.median(figures["import"])
        for name, figures in found["import"].items()
        if name != "raw"
    }
    harness.plot_bars(options.out / "startup.png", title, "s", bars, log=False)


if __name__ == "__main__":
    sys.exit(main())
