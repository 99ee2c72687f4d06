"""What saving costs: 1 GB of arrays, against copying the same bytes with `dd conv=fsync`.

`nnx.save` writes one file, checksums included, and is to take 1.3 times what `dd` takes at most.
`train.Checkpoints` writes a step; its first row is until the step is in its place, its second how
long a loop waits before it may go on. All write to the same disk, into the current folder if no
other is named, and each begins when nothing else is left to be written. A disk of which others use
a part makes `dd` itself differ by a factor of two: hence the medians of ratios within a round.

    python benchmarks/saving.py            # three minutes, 5 GB of disk at a time
    python benchmarks/saving.py --quick    # half a minute, 256 MB
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import harness
import jax
from harness import Samples, Variant

import weft as nnx
from weft import train

DD, SAVE = "dd conv=fsync", "nnx.save"
STEP, WAIT = "train.Checkpoints, until it is in place", "train.Checkpoints, until the loop goes on"
BUDGET = 1.3


class Weights(nnx.Module):
    """Matrices of 16 MB, or fewer bytes."""

    def __init__(self, megabytes: float):
        count = max(1, round(megabytes / 16))
        rows = max(1, round(megabytes * 250 / count))
        keys = jax.random.split(jax.random.key(0), count)
        self.kernels = [nnx.Param(jax.random.normal(key, (rows, 1000))) for key in keys]


@contextmanager
def variants(folder: Path, megabytes: float) -> Iterator[list[Variant]]:
    """Yields the ways to write the same bytes, each of which has its file or folder of its own."""
    model = Weights(megabytes)
    source = folder / "source"
    nnx.save(source, model=model)
    copy, saved = folder / "copy", folder / "saved"
    dd = ["dd", f"if={source}", f"of={copy}", "bs=16M", "conv=fsync", "status=none"]
    with (
        train.Checkpoints(folder / "steps", keep=1) as steps,
        train.Checkpoints(folder / "waits", keep=1) as waits,
    ):

        def whole() -> None:
            steps.save(next(numbers), model=model)
            steps.wait()

        calls: dict[str, Callable[[], Any]] = {
            DD: lambda: subprocess.run(dd, check=True) and None,
            SAVE: lambda: nnx.save(saved, model=model),
            STEP: whole,
            WAIT: lambda: waits.save(next(numbers), model=model),
        }
        numbers = iter(range(10**9))

        def settle(count: int) -> list[tuple[()]]:
            waits.wait()
            os.sync()
            return [()] * count

        yield [Variant(name, call, settle) for name, call in calls.items()]


def rows_of(samples: Samples, megabytes: float) -> list[list[str]]:
    rows = []
    for name, seconds in samples.items():
        found = harness.ratio(samples, name, DD)
        judged = f"at most {BUDGET}: {harness.verdict(found <= BUDGET)}" if name == SAVE else ""
        middle = harness.median(seconds)
        speed = f"{megabytes / middle / 1000:.2f} GB/s"
        rows.append([name, harness.duration(middle), speed, f"{found:.2f}", judged])
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    parser = harness.make_parser(__doc__ or "", full=9, quick=5)
    parser.add_argument("--folder", type=Path, default=Path(), help="where to write")
    parser.add_argument("--megabytes", type=float, help="how much to write")
    options = harness.read_options(parser, arguments)
    megabytes = options.megabytes or (256 if options.quick else 1000)
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        with variants(folder, megabytes) as found:
            samples = harness.measure(found, options, seconds=0.0)
    finally:
        shutil.rmtree(folder)
    header = ["way", "time", "speed", "its time ÷ dd's", ""]
    body = f"{megabytes:g} MB.\n\n{harness.table(header, rows_of(samples, megabytes))}"
    harness.publish("Saving", body, options)


if __name__ == "__main__":
    sys.exit(main())
