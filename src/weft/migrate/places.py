"""Where a program uses what Weft leaves out or does in another way."""

from __future__ import annotations

import ast
from typing import Any

import libcst as cst
from libcst import metadata

from weft.migrate.marks import HIJAX, SETTINGS, TAKEN, TEXT, Mark, differs, text_of
from weft.migrate.uses import IN_TEXT, PEER, Uses, dotted, is_peer


class Marks(cst.CSTVisitor):
    """Looks for what is left out or different."""

    METADATA_DEPENDENCIES = (metadata.QualifiedNameProvider, metadata.PositionProvider)

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Mark] = []
        self._uses = Uses()
        self._annotations = 0

    def visit_Module(self, node: cst.Module) -> None:
        node.visit(self._uses)

    def _add(self, node: cst.CSTNode, name: str, text: str) -> None:
        place: Any = self.get_metadata(metadata.PositionProvider, node)
        self.found.append(Mark(place.start.line, name, text))

    def _imported(self, node: cst.CSTNode) -> str:
        """Returns the whole name of what was imported; empty for everything else."""
        for name in self.get_metadata(metadata.QualifiedNameProvider, node, set()):
            if name.source is metadata.QualifiedNameSource.IMPORT:
                return name.name
        return ""

    def _look(self, node: cst.Name | cst.Attribute) -> bool:
        """Marks a name, and says whether to look further inside of it."""
        name = self._imported(node)
        if name == "flax.config" or name.startswith("flax.config."):
            self._add(node, "flax.config", SETTINGS)
            return False
        self._look_at(node, name)
        return not is_peer(name) or name == PEER

    def _look_at(self, node: cst.CSTNode, name: str) -> None:
        """Marks a place where a whole name is used, if there is something to say of it."""
        short = name.removeprefix(f"{PEER}.")
        text = text_of(short) if is_peer(name) and name != PEER else None
        if text is not None:
            self._add(node, f"nnx.{short}", text)

    def visit_Attribute(self, node: cst.Attribute) -> bool:
        return self._look(node)

    def visit_Name(self, node: cst.Name) -> None:
        self._look(node)
        if node.value == "weft" and self._uses.whole & self._uses.bound:
            self._add(node, "weft", TAKEN)

    def visit_Annotation(self, node: cst.Annotation) -> None:
        self._annotations += 1

    def leave_Annotation(self, original_node: cst.Annotation) -> None:
        self._annotations -= 1

    def visit_ImportFrom(self, node: cst.ImportFrom) -> bool:
        if not node.relative and not isinstance(node.names, cst.ImportStar):
            for alias in node.names:
                self._look_at(alias, f"{dotted(node.module)}.{dotted(alias.name)}")
        return False

    def visit_Import(self, node: cst.Import) -> bool:
        for alias in node.names:
            self._look_at(alias, dotted(alias.name))
        return False

    def visit_Call(self, node: cst.Call) -> None:
        if not is_peer(self._imported(node.func)):
            return
        for argument in node.args:
            if argument.keyword is None or argument.keyword.value not in ("hijax", "ref"):
                continue
            if isinstance(argument.value, cst.Name) and argument.value.value == "True":
                self._add(argument, f"{argument.keyword.value}=True", differs(HIJAX))

    def visit_SimpleString(self, node: cst.SimpleString) -> None:
        value = node.evaluated_value
        is_changed = self._annotations and "flax" in self._uses.bound
        if isinstance(value, str) and _names_peer(value) and not is_changed:
            self._add(node, repr(value), TEXT)

    def visit_FormattedStringText(self, node: cst.FormattedStringText) -> None:
        if is_peer(node.value.rstrip(".")):
            self._add(node, repr(node.value), TEXT)


def _names_peer(text: str) -> bool:
    """Says whether a text is code that names the peer, such as `list[flax.nnx.Param]`."""
    if PEER not in text or "flax" not in IN_TEXT.findall(text):
        return False
    try:
        ast.parse(text, mode="eval")
    except (SyntaxError, ValueError):
        return False
    return True
