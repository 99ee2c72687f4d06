"""The files for those who come to the repository: how to cite, to report, to propose."""

import importlib
import re
from pathlib import Path

import pytest

import weft as nnx

ROOT = Path(__file__).parents[1]
TEMPLATES = ROOT / ".github" / "ISSUE_TEMPLATE"
FORMS = sorted(path for path in TEMPLATES.glob("*.yml") if path.name != "config.yml")
KINDS = {"checkboxes", "dropdown", "input", "markdown", "textarea"}


def parsed(file):
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def test_citation():
    found = parsed(ROOT / "CITATION.cff")
    required = {"authors", "cff-version", "message", "title"}
    known = required | {"abstract", "keywords", "license", "type", "version"}
    assert required <= found.keys() <= known
    assert found["cff-version"] == "1.2.0" and found["type"] == "software"
    assert found["version"] == nnx.__version__ and found["license"] == "Apache-2.0"
    assert [set(author) for author in found["authors"]] == [{"name"}]


@pytest.mark.parametrize("file", FORMS, ids=lambda file: file.stem)
def test_form_for_issues(file):
    form = parsed(file)
    assert form.keys() == {"name", "description", "labels", "body"}
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert {field["type"] for field in form["body"]} <= KINDS
    assert all(field["attributes"]["label"] for field in fields)
    names = [field["id"] for field in fields]
    assert len(names) == len({*names}) and all(re.fullmatch(r"[\w-]+", name) for name in names)
    assert any(field.get("validations", {}).get("required") for field in fields)


def test_forms_are_two():
    assert [file.stem for file in FORMS] == ["bug", "feature"]
    assert parsed(TEMPLATES / "config.yml") == {"blank_issues_enabled": True}


PAGES = ["SECURITY.md", ".github/pull_request_template.md", ".github/ISSUE_TEMPLATE/bug.yml"]


@pytest.mark.parametrize("page", PAGES)
def test_pages_name_what_there_is(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for file in re.findall(r"\b(?:tests|docs|changelog\.d|\.ci)/[\w./]*\w|\b[A-Z]{6,}\.md", text):
        assert (ROOT / file).exists(), file
    for head, name in re.findall(r"`(nnx|train)\.(\w+)", text):
        assert hasattr(nnx if head == "nnx" else importlib.import_module("weft.train"), name)


def test_security_page_gives_the_version_that_is_demanded_of_pytorch():
    from weft._saving.torch_file import OLDEST

    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    assert f"{OLDEST[0]}.{OLDEST[1]} or newer" in text and "://" not in text
