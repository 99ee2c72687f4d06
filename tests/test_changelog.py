"""The changelog: each change in a file of its own, until a version puts them together."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location("assemble", ROOT / "changelog.d" / "assemble.py")
assemble = importlib.util.module_from_spec(spec)
spec.loader.exec_module(assemble)

FRAGMENTS = assemble.fragments(ROOT / "changelog.d")


def faults(name: str, text: str) -> list[str]:
    """What is wrong with a fragment."""
    found = []
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*\.md", name):
        found.append("its name is not of small letters, digits and hyphens")
    if not text.startswith("- ") or not text.endswith("\n"):
        found.append("it does not begin with an item, `- `, and end with a line")
    items = re.split(r"^- ", text, flags=re.MULTILINE)[1:]
    if any(not item.rstrip().endswith((".", ")")) for item in items):
        found.append("an item does not end with a full stop")
    for line in text.splitlines():
        if not line.startswith(("- ", "  ")) or line != line.rstrip():
            found.append(f"it is neither an item nor part of one: {line!r}")
        if len(line) > 100:
            found.append(f"it is longer than 100 characters: {line!r}")
    for link in re.findall(r"\]\(([^)#\s]+)", text):
        if not re.match(r"[a-z]+:", link) and not (ROOT / link).exists():
            found.append(f"it does not exist as seen from CHANGELOG.md: {link}")
    return found


@pytest.mark.parametrize("file", FRAGMENTS, ids=lambda file: file.name)
def test_fragment_is_well_formed(file):
    assert faults(file.name, file.read_text(encoding="utf-8")) == []


def test_folder_holds_nothing_else():
    found = {path.name for path in (ROOT / "changelog.d").iterdir() if path.is_file()}
    assert found == {"README.md", "assemble.py", *(file.name for file in FRAGMENTS)}


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("two-words.md", "- One\n  thing.\n- Another, see [there](README.md#x).\n", None),
        ("Two_words.md", "- One.\n", "small letters"),
        ("a.md", "One.\n", "begin with an item"),
        ("a.md", "- One.", "end with a line"),
        ("a.md", "- One\n- Two.\n", "full stop"),
        ("a.md", "- One\nthing.\n", "part of one: 'thing.'"),
        ("a.md", "- One. \n", "part of one: '- One. '"),
        ("a.md", f"- {'x' * 100}.\n", "longer than 100"),
        (
            "a.md",
            "- See [there](docs/nowhere.md).\n",
            "exist as seen from CHANGELOG.md: docs/no",
        ),
    ],
)
def test_check_of_fragments_reports(name, text, fault):
    found = faults(name, text)
    assert found == [] if fault is None else any(fault in each for each in found)


PAGE = "# Changelog\n\nText.\n"
OLD = "## 0.1.0\n\nThe first.\n\n- Old.\n"


@pytest.mark.parametrize(
    ("changelog", "version", "expected"),
    [
        (PAGE, "0.1.0", f"{PAGE}\n## 0.1.0\n\n- New.\n- More.\n"),
        (f"{PAGE}\n{OLD}", "0.1.0", f"{PAGE}\n{OLD}- New.\n- More.\n"),
        (f"{PAGE}\n{OLD}", "0.2.0", f"{PAGE}\n## 0.2.0\n\n- New.\n- More.\n\n{OLD}"),
        (
            f"{PAGE}\n## 0.2.0\n\n- One.\n\n{OLD}",
            "0.2.0",
            f"{PAGE}\n## 0.2.0\n\n- One.\n- New.\n- More.\n\n{OLD}",
        ),
    ],
)
def test_items_go_under_their_version(changelog, version, expected):
    assert assemble.assembled(changelog, version, ["- New.\n", "- More.\n"]) == expected


def test_version_puts_fragments_together(tmp_path):
    folder = tmp_path / "changelog.d"
    folder.mkdir()
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "0.2.0"\n', encoding="utf-8")
    (tmp_path / "CHANGELOG.md").write_text(f"{PAGE}\n{OLD}", encoding="utf-8")
    for name, text in {"b": "- “B”.\n", "a": "- A.\n  More.\n", "README": "How.\n"}.items():
        (folder / f"{name}.md").write_text(text, encoding="utf-8")
    assemble.main(tmp_path)
    text = (tmp_path / "CHANGELOG.md").read_text(encoding="utf-8")
    assert text == f"{PAGE}\n## 0.2.0\n\n- A.\n  More.\n- “B”.\n\n{OLD}"
    assert [path.name for path in folder.iterdir()] == ["README.md"]
    assemble.main(tmp_path)
    assert (tmp_path / "CHANGELOG.md").read_text(encoding="utf-8") == text


def test_changelog_stays_as_it_is_without_items():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## (\S+)", text, re.MULTILINE)[1]
    assert assemble.assembled(text, newest, []) == text
