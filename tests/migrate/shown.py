"""The programs written for flax.nnx, and what each shows."""

import contextlib
import io
import runpy
import warnings
from pathlib import Path

import jax

PROGRAMS = sorted((Path(__file__).parent / "programs").glob("*.py"))


def shown_by(file: Path) -> str:
    """Runs a program in this process, and returns what it prints."""
    with (
        contextlib.redirect_stdout(io.StringIO()) as out,
        jax.numpy_dtype_promotion("standard"),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", DeprecationWarning)  # flax's, of its own names
        runpy.run_path(str(file), run_name="__main__")
    return out.getvalue()
