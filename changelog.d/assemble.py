"""Puts the items of this folder into CHANGELOG.md, under the version that pyproject.toml names."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def fragments(folder: Path) -> list[Path]:
    """The files that hold items, in the order in which these will stand."""
    return sorted(path for path in folder.glob("*.md") if path.name != "README.md")


def assembled(changelog: str, version: str, items: list[str]) -> str:
    """The changelog with the items at the end of the section of a version, on top if it is new."""
    heading = f"## {version}\n"
    if heading not in changelog:
        top = re.search(r"^## ", changelog, re.MULTILINE)
        at = len(changelog) if top is None else top.start()
        changelog = f"{changelog[:at].rstrip()}\n\n{heading}\n\n{changelog[at:]}"
    before, _, after = changelog.partition(heading)
    section, *rest = re.split(r"^(?=## )", after, maxsplit=1, flags=re.MULTILINE)
    lines = f"{section.rstrip()}\n" if section.strip() else "\n"
    lines += "".join(f"{item.strip()}\n" for item in items)
    return before + heading + lines + "".join(f"\n{part}" for part in rest)


def main(root: Path = ROOT) -> None:
    version = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    files, page = fragments(root / "changelog.d"), root / "CHANGELOG.md"
    items = [file.read_text(encoding="utf-8") for file in files]
    text = assembled(page.read_text(encoding="utf-8"), version["version"], items)
    page.write_text(text, encoding="utf-8")
    for file in files:
        file.unlink()


if __name__ == "__main__":
    main()
