"""One program: its imports changed, and marks where it uses what is different."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Sequence
from typing import Any

try:
    import libcst as cst
    from libcst import metadata
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "weft.migrate needs libcst, which changes programs and leaves their formatting: "
        "`pip install 'weft[migrate]'`",
        name=error.name,
    ) from error

from weft.migrate.marks import Mark
from weft.migrate.places import Marks
from weft.migrate.uses import IN_TEXT, PEER, Uses, as_name, dotted, is_peer

_PRAGMA = re.compile(r"#\s*(noqa|type:|pyright:|mypy:|pylint:|isort:|fmt:|ruff:)")
"""Comments for tools, which speak of each import of a line."""


@dataclasses.dataclass(frozen=True)
class Migration:
    """What becomes of a program.

    Attributes:
      before: the program as it was.
      after: the program with its imports changed; the same where there is nothing to change.
      marks: places that want to be looked at, in the order of lines.

    Example:
      >>> from weft.migrate import migrate
      >>> migrate(b"import flax.nnx as nnx")
      Migration(before=b'import flax.nnx as nnx', after=b'import weft as nnx', marks=())
    """

    before: bytes
    after: bytes
    marks: tuple[Mark, ...]


def migrate(source: bytes) -> Migration:
    """Changes what a program imports from `flax.nnx` to Weft.

    Args:
      source: the program, in the encoding that it says.

    Raises:
      SyntaxError: if it is no Python.

    Example:
      >>> from weft.migrate import migrate
      >>> found = migrate(b"from flax import nnx, struct  # both\\nnnx.ids\\n")
      >>> print(found.after.decode())
      import weft as nnx
      from flax import struct  # both
      nnx.ids
      <BLANKLINE>
      >>> found.marks
      (Mark(line=2, name='nnx.ids', text='left out: see "Left out" in ...', cell=None),)
    """
    try:
        module = cst.parse_module(source)
    except cst.ParserSyntaxError as error:
        raise SyntaxError(_fault(source) or f"line {error.raw_line}: {error.message}") from error
    except LookupError as error:  # of a codec
        raise SyntaxError(str(error)) from error
    wrapper = metadata.MetadataWrapper(module)
    marks = Marks()
    wrapper.visit(marks)
    after = wrapper.visit(_Imports()).bytes
    return Migration(source, after, tuple(sorted(set(marks.found))))


def _fault(source: bytes) -> str | None:
    """Returns where a program is no Python and why, in the words of the running Python."""
    try:
        ast.parse(source)
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)  # there is none for zero bytes
        return f"line {line}: {error.args[0]}" if line else str(error)
    return None  # it is of a newer version than what libcst knows


def _own_name(name: str) -> str:
    """Returns the module of Weft that a module of the peer is."""
    return "weft" + name.removeprefix(PEER)


def _node_of(name: str) -> Any:
    return cst.parse_expression(name)


class _Imports(cst.CSTTransformer):
    """Changes import statements, and whole names that begin with `flax.nnx`."""

    METADATA_DEPENDENCIES = (metadata.QualifiedNameProvider,)

    def __init__(self) -> None:
        super().__init__()
        self._uses = Uses()
        self._depth = 0
        self._annotations = 0
        self._made: set[str] = set()

    def visit_Module(self, node: cst.Module) -> None:
        node.visit(self._uses)

    def visit_IndentedBlock(self, node: cst.IndentedBlock) -> None:
        self._depth += 1

    def leave_IndentedBlock(
        self, original_node: cst.IndentedBlock, updated_node: cst.IndentedBlock
    ) -> Any:
        self._depth -= 1
        return updated_node

    def leave_Attribute(self, original_node: cst.Attribute, updated_node: cst.Attribute) -> Any:
        if not isinstance(original_node.value, cst.Name):  # `flax.nnx`, however flax is called
            return updated_node
        names = self.get_metadata(metadata.QualifiedNameProvider, original_node, set())
        is_import = any(
            name.name == PEER and name.source is metadata.QualifiedNameSource.IMPORT
            for name in names
        )
        return cst.Name("weft") if is_import else updated_node

    def visit_Annotation(self, node: cst.Annotation) -> None:
        self._annotations += 1

    def leave_Annotation(self, original_node: cst.Annotation, updated_node: cst.Annotation) -> Any:
        self._annotations -= 1
        return updated_node

    def leave_SimpleString(
        self, original_node: cst.SimpleString, updated_node: cst.SimpleString
    ) -> Any:
        if not self._annotations:
            return updated_node
        change = lambda found: "weft" if found[1] in self._uses.bound else found[0]  # noqa: E731
        return updated_node.with_changes(value=IN_TEXT.sub(change, updated_node.value))

    def leave_SimpleStatementSuite(
        self, original_node: cst.SimpleStatementSuite, updated_node: cst.SimpleStatementSuite
    ) -> Any:
        body: list[cst.BaseSmallStatement] = []
        spaced = cst.Semicolon(whitespace_after=cst.SimpleWhitespace(" "))
        for part, kept in zip(original_node.body, updated_node.body, strict=True):
            own, rest = self._changed(part) or ([], kept)
            group = own if rest is None else [*own, rest]
            body += [statement.with_changes(semicolon=spaced) for statement in group[:-1]]
            body.append(group[-1].with_changes(semicolon=kept.semicolon))
        return updated_node.with_changes(body=body)

    def leave_SimpleStatementLine(
        self, original_node: cst.SimpleStatementLine, updated_node: cst.SimpleStatementLine
    ) -> Any:
        parts = [self._changed(part) for part in original_node.body]
        if all(part is None for part in parts):
            return updated_node
        lines: list[list[cst.BaseSmallStatement]] = [[]]
        for part, kept in zip(parts, updated_node.body, strict=True):
            own, rest = ([], kept) if part is None else part
            for statement in own:  # a line of its own each, as formatters write them
                if self._is_new(statement) or _has_comment(updated_node):
                    lines.insert(len(lines) - 1, [statement])
            if rest is not None:
                lines[-1].append(rest)
        return _lines(updated_node, [line for line in lines if line])

    def _is_new(self, statement: cst.BaseSmallStatement) -> bool:
        """Says whether a statement is not there already, for all of the program."""
        text = cst.Module([]).code_for_node(statement)
        is_new = text not in self._made
        if self._depth == 0:
            self._made.add(text)
        return is_new or self._depth > 0

    def _changed(self, part: cst.BaseSmallStatement) -> Any:
        """Returns the statements that import Weft and what else is imported; None if all stays."""
        if isinstance(part, cst.ImportFrom) and not part.relative:
            return self._changed_from(part)
        if isinstance(part, cst.Import):
            return self._changed_import(part)
        return None

    def _changed_from(self, part: cst.ImportFrom) -> Any:
        module = dotted(part.module)
        if is_peer(module):
            return [part.with_changes(module=_node_of(_own_name(module)))], None
        if module != "flax" or isinstance(part.names, cst.ImportStar):
            return None
        own = [alias for alias in part.names if dotted(alias.name) == "nnx"]
        rest = [alias for alias in part.names if alias not in own]
        imports = [_import("weft", as_name(alias) or "nnx") for alias in own]
        return (imports, _with_names(part, rest)) if own else None

    def _changed_import(self, part: cst.Import) -> Any:
        own: list[cst.BaseSmallStatement] = []
        rest = []
        for alias in part.names:
            name = dotted(alias.name)
            if is_peer(name):
                own.append(_import(_own_name(name), as_name(alias)))
                if as_name(alias) is None and "flax" in self._uses.other:
                    rest.append(alias.with_changes(name=_node_of("flax")))
            elif name == "flax" and (as_name(alias) or name) in self._uses.whole:
                own.append(_import("weft", None))
                if (as_name(alias) or name) in self._uses.other:
                    rest.append(alias)
            else:
                rest.append(alias)
        return (own, _with_names(part, rest)) if own else None

    def visit_Import(self, node: cst.Import) -> bool:
        return False  # names in imports are changed with their statement

    def visit_ImportFrom(self, node: cst.ImportFrom) -> bool:
        return False


def _import(name: str, asname: str | None) -> cst.Import:
    as_ = None if asname is None else cst.AsName(cst.Name(asname))
    return cst.Import([cst.ImportAlias(_node_of(name), as_)])


def _comment(line: cst.SimpleStatementLine) -> str:
    comment = line.trailing_whitespace.comment
    return comment.value if comment else ""


def _has_comment(line: cst.SimpleStatementLine) -> bool:
    return bool(_comment(line)) or any(empty.comment for empty in line.leading_lines)


def _with_names(part: Any, names: Sequence[cst.ImportAlias]) -> Any:
    """Returns an import of some names; None if there are none."""
    if not names:
        return None
    last = names[-1].with_changes(comma=cst.MaybeSentinel.DEFAULT)
    if getattr(part, "lpar", None):  # it stands in parentheses, in lines of its own perhaps
        last = names[-1]
    return part.with_changes(names=[*names[:-1], last])


def _lines(line: cst.SimpleStatementLine, groups: Sequence[Sequence[Any]]) -> Any:
    """Returns lines of statements; comments above are the first's, those behind the last's.

    Those that speak to tools, such as `# noqa`, are for all.
    """
    if not groups:
        return cst.RemoveFromParent()
    made = []
    for i, group in enumerate(groups):
        body = [statement.with_changes(semicolon=cst.MaybeSentinel.DEFAULT) for statement in group]
        new = line.with_changes(body=body)
        if i:
            new = new.with_changes(leading_lines=())
        if i < len(groups) - 1 and not _PRAGMA.match(_comment(line)):
            new = new.with_changes(trailing_whitespace=cst.TrailingWhitespace())
        made.append(new)
    return made[0] if len(made) == 1 else cst.FlattenSentinel(made)
