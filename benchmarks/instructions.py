"""What a call costs in instructions of the processor: the same on a busy machine as on a quiet one.

The steps and forward passes of `dispatch.py`, Weft against `jax.jit` by hand, each in a process of
its own under callgrind, a tool of valgrind (Debian: `apt install valgrind`). Counted is what the
thread that calls does in Python, in JAX and in the program, after the first calls; not what other
threads do, as they wait for work by asking for it again and again. Raw JAX is counted twice.

Instructions are not time: what the caches hold is not seen.

    python benchmarks/instructions.py            # about ten minutes
    python benchmarks/instructions.py --quick    # depth 5 only
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import dispatch_cases as cases
import harness
from dispatch_cases import RAW, TWIN, WEFT

CALLS = 300


def control(*arguments: str) -> None:
    """Tells the callgrind around this process to do something."""
    command = ["callgrind_control", *arguments, str(os.getpid())]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def run_calls(case: str, depth: int, name: str) -> None:
    """Calls one variant of a case, to be counted; the first calls are not."""
    harness.peer, cases.COPIES = lambda name: None, 1  # making objects takes long here
    (variant,) = (v for v in getattr(cases, case)(depth) if v.name == name)
    for _ in range(10):
        variant.seconds(1)
    with harness.no_garbage_collection():
        control("--instr=on")
        variant.seconds(CALLS // 5)  # valgrind translates what it has not seen
        control("--zero")
        variant.seconds(CALLS)
        control("--dump")
        control("--instr=off")


def count(case: str, depth: int, name: str) -> float:
    """Returns the instructions of a call, counted in a new process."""
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "counts"
        valgrind = ["valgrind", "--tool=callgrind", "--instr-atstart=no", "--separate-threads=yes"]
        child = [sys.executable, __file__, "--calls", case, str(depth), name]
        subprocess.run(
            [*valgrind, f"--callgrind-out-file={found}", *child],
            env={**os.environ, "PYTHONHASHSEED": "0", "JAX_PLATFORMS": "cpu"},
            check=True,
            capture_output=True,
        )
        return total(Path(f"{found}.1-01").read_text()) / CALLS  # first dump, first thread


def total(dump: str) -> int:
    """Returns the number of instructions in a dump of callgrind."""
    return int(re.findall(r"^totals: (\d+)$", dump, re.MULTILINE)[0])


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmark; returns 1 where there is no valgrind, else 0."""
    parser = harness.make_parser(__doc__, full=1, quick=1)
    parser.add_argument("--calls", nargs=3, help=argparse.SUPPRESS)
    options = harness.read_options(parser, arguments)
    if options.calls:
        case, depth, name = options.calls
        run_calls(case, int(depth), name)
        return 0
    if not shutil.which("valgrind"):
        print("valgrind is not installed: nothing is counted")
        return 1
    rows = []
    for case in ("train_step", "forward"):
        for depth in (5,) if options.quick else (5, 20):
            raw, twin, weft = (count(case, depth, name) for name in (RAW, TWIN, WEFT))
            title = f"{case.replace('_', ' ')}, depth {depth}"
            rows.append([title, f"{raw:,.0f}", f"{twin / raw:.2f}", f"{weft / raw:.2f}"])
            print(", ".join(rows[-1]), flush=True)
    header = ["call", "instructions of raw", "raw ÷ raw", "Weft ÷ raw"]
    about = "What the thread that calls does in Python, in JAX and in the program, per call."
    harness.publish("Instructions", f"{about}\n\n{harness.table(header, rows)}", options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
