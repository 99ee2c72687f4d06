"""What stands in the Markdown pages: links lead somewhere, names exist, code runs or is marked.

The Python blocks themselves are run by `conftest.py`, which compares what they print.
"""

import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import weft as nnx
from weft import train

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path
    for folder in ("docs", "src", "examples")
    for path in (ROOT / folder).rglob("*.md")
    if "_build" not in path.parts
) + [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
REFERENCE = ROOT / "docs" / "reference"
LANGUAGES = {"python", "sh", "text", "toml"}
"""Python runs in the tests; nothing else may be taken for a program of this library."""

WRONG_ON_PURPOSE = {"nnx.Dense", "nnx.new", "nnx.old"}  # in examples of messages

FENCE = re.compile(r"^(`{3,})(\S*)[^\n]*\n(.*?)^\1$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
NAME = re.compile(r"\b(nnx|train)((?:\.[A-Za-z_]\w*)+)(\*?)")
FOREIGN = re.compile(r"flax\W+nnx|flax nnx")

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def without_code(text):
    return FENCE.sub("", text)


def headings(path):
    """The anchors of a page, as GitHub and the site make them."""
    titles = re.findall(r"^#+ (.*)$", without_code(path.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pages
def test_links_lead_to_files_and_headings(page):
    text = without_code(page.read_text(encoding="utf-8"))
    for link in LINK.findall(CODE.sub("", text)):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        if target.parent == REFERENCE:
            continue  # written when the site is built, which says what is missing
        assert target.exists(), f"{page}: {link}"
        assert not anchor or anchor in headings(target), f"{page}: {link}"


@pages
def test_code_is_python_that_runs_or_something_else(page):
    text = page.read_text(encoding="utf-8")
    for _, language, _ in FENCE.findall(text):
        assert language.startswith("{") or language in LANGUAGES, f"{page}: {language!r}"


def resolves(name):
    head, *parts = name.split(".")
    value = {"nnx": nnx, "train": train}[head]
    for part in parts:
        if not hasattr(value, part):
            try:
                importlib.import_module(f"{value.__name__}.{part}")
            except (ImportError, AttributeError):
                return False
        value = getattr(value, part)
    return True


def mentioned(text):
    """The names `nnx.x.y` in the text and code of a page that are meant as names of Weft."""
    for line in text.splitlines():
        if FOREIGN.search(line) or "import flax" in line:
            continue
        for match in NAME.finditer(line):
            if not match[3]:  # `nnx.reprlib.Pretty*` is a pattern
                yield match[1] + match[2]


@pages
def test_names_are_spelled_as_they_are(page):
    if page.name == "differences.md":
        pytest.skip("tells what is left out; tests/test_api.py compares its tables")
    text = page.read_text(encoding="utf-8")
    wrong = sorted({name for name in mentioned(text) if not resolves(name)})
    assert not {*wrong} - WRONG_ON_PURPOSE


def test_spelling_is_looked_at():
    found = {*mentioned("`nnx.Liner(1)`, nnx.jit; `train.Run`; but flax's `flax.nnx.jot`")}
    assert found == set()
    found = {*mentioned("`nnx.Liner(1)`, nnx.jit and `train.Run`; `nnx.Pretty*`")}
    assert found == {"nnx.Liner", "nnx.jit", "train.Run"}
    assert [resolves(name) for name in sorted(found)] == [False, True, True]


def test_every_class_of_errors_is_explained():
    modules = [info.name for info in pkgutil.walk_packages(nnx.__path__, "weft.")]
    found = [v for name in modules for v in vars(importlib.import_module(name)).values()]
    errors = {v.__name__ for v in found if isinstance(v, type) and issubclass(v, nnx.WeftError)}
    assert {"TraceContextError", "KeyReuseError"} <= errors
    text = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    assert {name for name in errors if name not in text} == set()


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 120
