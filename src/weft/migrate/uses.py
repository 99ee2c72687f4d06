"""What of flax a program uses, and what it calls it."""

from __future__ import annotations

import re

import libcst as cst
from libcst import matchers

PEER = "flax.nnx"
IN_TEXT = re.compile(r"(?<![\w.])(\w+)\.nnx(?!\w)")
"""A whole name in a text, such as an annotation; its group is what flax is called there."""


def dotted(node: cst.CSTNode | None) -> str:
    """Returns the text of a name with dots; empty if it is none."""
    if isinstance(node, cst.Name):
        return node.value
    if isinstance(node, cst.Attribute):
        base = dotted(node.value)
        return base and f"{base}.{node.attr.value}"
    return ""


def is_peer(name: str) -> bool:
    return name == PEER or name.startswith(f"{PEER}.")


def as_name(alias: cst.ImportAlias) -> str | None:
    return None if alias.asname is None else dotted(alias.asname.name)


class Uses(cst.CSTVisitor):
    """Looks what flax is called, and which names are used for `.nnx` and for anything else."""

    def __init__(self) -> None:
        self.bound: set[str] = set()
        self.whole: set[str] = set()
        self.other: set[str] = set()

    def visit_Import(self, node: cst.Import) -> bool:
        for alias in node.names:
            if dotted(alias.name) == "flax" and as_name(alias):
                self.bound.add(as_name(alias) or "")
            elif dotted(alias.name).partition(".")[0] == "flax" and as_name(alias) is None:
                self.bound.add("flax")
        return False

    def visit_ImportFrom(self, node: cst.ImportFrom) -> bool:
        return False

    def visit_Attribute(self, node: cst.Attribute) -> bool | None:
        if isinstance(node.value, cst.Name) and node.attr.value == "nnx":
            self.whole.add(node.value.value)
            return False
        node.value.visit(self)
        return False

    def visit_Name(self, node: cst.Name) -> None:
        self.other.add(node.value)

    def visit_Annotation(self, node: cst.Annotation) -> None:
        for part in matchers.findall(node, matchers.SimpleString()):
            text = part.value if isinstance(part, cst.SimpleString) else ""
            self.whole.update(IN_TEXT.findall(text))
            self.other.update(re.findall(r"(?<![\w.])\w+(?=\.(?!nnx\b))", text))
