"""The setting of every test, docstring example and Markdown example.

It is made of environment variables, set before anything imports jax, so that processes started by
a test have it too: four CPU devices (or as many as XLA_FLAGS say), strict dtype promotion, and what
makes compiling cheap, which is most of what tests of small shapes do: few optimizations, and
programs shared by the processes of one run, but not kept for the next.
"""

import contextlib
import doctest
import importlib.metadata
import io
import os
import re
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

NUMBER_OF_DEVICES = "--xla_force_host_platform_device_count"

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["JAX_NUMPY_DTYPE_PROMOTION"] = "strict"
os.environ.setdefault("WEFT_TRACEBACKS", "full")  # whoever works on Weft wants to see its frames
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
IS_MAIN_PROCESS = "PYTEST_XDIST_WORKER" not in os.environ
if IS_MAIN_PROCESS:  # pytest-xdist's workers inherit what it sets
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="weft_compiled_")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
FLAGS = [f"{NUMBER_OF_DEVICES}=4"]
if importlib.metadata.version("jaxlib").startswith("0.10."):  # later ones do not know them
    # A third of the time that compiling takes otherwise: one module of LLVM for each program, made
    # without the compiler of fusions, which pays for large arrays.
    FLAGS += ["--xla_cpu_parallel_codegen_split_count=1", "--xla_cpu_use_fusion_emitters=false"]
given = os.environ.get("XLA_FLAGS", "")
os.environ["XLA_FLAGS"] = " ".join([given, *(f for f in FLAGS if f.split("=")[0] not in given)])

# No deadline: the first example of a property pays for compilation. In CI the same examples each
# time, so that a change is never blamed for what another one broke.
settings.register_profile("weft", deadline=None, database=None, derandomize="CI" in os.environ)
settings.load_profile("weft")

PRINTED = re.compile(r"\s*```text\n(.*?)^```$", re.DOTALL | re.MULTILINE)
MARKDOWN = Sybil(parsers=[PythonCodeBlockParser()], patterns=["*.md"])


class Examples(pytest.Item):
    """The Python blocks of one document: one test, because each builds on those before it.

    They run in an empty folder, in which they may leave files. A block of `text` right after one
    says what it prints, however it is wrapped, with `...` for what differs from time to time.
    """

    def runtest(self) -> None:
        examples = list(MARKDOWN.parse(self.path).examples())
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            for example in examples:
                printed = io.StringIO()
                with contextlib.redirect_stdout(printed):
                    example.evaluate()
                said = PRINTED.match(example.document.text, example.region.end)
                if said and not doctest.OutputChecker().check_output(
                    said[1], printed.getvalue(), doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
                ):
                    raise AssertionError(
                        f"{example.path}:{example.line} prints\n{printed.getvalue()}not\n{said[1]}"
                    )


class Document(pytest.File):
    def collect(self) -> list[Examples]:
        return [Examples.from_parent(self, name="examples")]


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> Document | None:
    return Document.from_parent(parent, path=file_path) if file_path.suffix == ".md" else None


def pytest_unconfigure(config: pytest.Config) -> None:
    if IS_MAIN_PROCESS:
        shutil.rmtree(os.environ["JAX_COMPILATION_CACHE_DIR"])
