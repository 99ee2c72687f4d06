"""Sphinx extension: the reference, written from the public names before each build.

Which names there are, and in which groups, is read from `src/weft/__init__.pyi` and its like; what
is said about each comes from its docstring. Names in `code` all over the site become links.
"""

from __future__ import annotations

import importlib
import inspect
import re
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "weft"
OUT = ROOT / "docs" / "reference"

NAMES = re.compile(r"(\w+) as \1\b")
IMPORT = re.compile(r"from (\S+) import (.*)")
MENTION = re.compile(r"(?:(nnx|weft|train)\.)?([A-Za-z_][\w.]*)(?:\(.*\))?", re.DOTALL)

PEERS = "Names that code written for flax.nnx asks for"
TITLES = {
    "Training, tools, bridges, and modules that hold the same names by area": "Training and tools",
}
PAGES = {  # file and title of what is no group of `__init__.pyi`
    "weft.nn.initializers": ("initializers", "Initializers"),
    "weft.train": ("train", "The training loop"),
    "weft.train.metrics": ("metrics", "Metrics"),
    "weft.train.optimizer": ("optimizers", "Optimizers"),
    "weft.tools.debug": ("debug", "Debugging"),
    "weft.bridge": ("bridge", "Linen in Weft, and Weft in Linen"),
    "weft.as_flax": ("as_flax", "Programs of flax.nnx as they are"),
    "weft.migrate": ("migrate", "Programs of flax.nnx, changed"),
}
INDEX = """Every public name, by area. ``nnx`` is ``import weft as nnx``. Each entry has an example
that runs, and a link to its source."""
INTRODUCTIONS = {
    "Layers": "By family. The same names stand in `weft.nn`.",
    PEERS: """New code does not need these. The modules have the names of modules of that library;
most of what they hold has its entry elsewhere in this reference.""",
}


FAMILIES = {  # of layers, with their files; a file that is in none of these comes last
    "Linear layers": "linear einsum embed shape",
    "Convolutions and pooling": "conv conv_transpose pooling adaptive_pooling",
    "Normalization": "normalization batch_norm group_norm spectral_norm weight_norm",
    "Attention": "attention attention_masks dot_product rope",
    "Recurrent layers": "recurrent recurrent_cell lstm gru simple_cell bidirectional",
    "Dropout": "dropout",
    "Deep models": "stack restack",
    "Adapters": "lora adapt",
    "Losses": "cross_entropy",
    "Activations": "activations",
    "Further": "",
}
MEANINGS = {  # of constants, which have no docstring
    "weft.A": "A type variable, for annotations: what a Variable holds.",
    "weft.M": "A type variable, for annotations: a Module.",
    "weft.Data": "`x: nnx.Data[T]` among the fields of a class: the attribute is data.",
    "weft.Static": "`x: nnx.Static[T]` among the fields of a class: the attribute is static.",
    "weft.Initializer": "The type of initializers: a function of key, shape and dtype.",
    "weft.PARTITION_NAME": "The key of `transform_metadata` that names the axis of a transform.",
    "weft.PureState": "The type of what `nnx.split` returns, for annotations.",
    "weft.nn.initializers.default_kernel_init": "What layers initialize kernels with.",
    "weft.nn.initializers.default_embed_init": "What `nnx.Embed` initializes its table with.",
}


class Entry(NamedTuple):
    """A public name: where a user finds it, where it is defined, and what it is."""

    name: str
    home: str
    value: Any


class Page(NamedTuple):
    """A page of the reference: headings with the entries that stand under each."""

    file: str
    title: str
    text: str
    sections: dict[str, list[Entry]]


# -- which names there are


def value_of(name: str) -> Any:
    """Returns what a name such as `weft.nn.initializers.zeros` means."""
    parts = name.split(".")
    value = importlib.import_module(parts[0])
    for i, part in enumerate(parts[1:], 2):
        if not hasattr(value, part):
            importlib.import_module(".".join(parts[:i]))
        value = getattr(value, part)
    return value


def groups_of(text: str) -> dict[str, list[tuple[str, str]]]:
    """Returns names and their modules by the comment under which a stub file imports them."""
    found: dict[str, list[tuple[str, str]]] = {}
    heading = ""
    for line in text.splitlines():
        if line.startswith("# "):
            heading = line[2:].strip()
        elif match := IMPORT.fullmatch(line):
            home, names = match.groups()
            found.setdefault(heading, []).extend((name, home) for name in NAMES.findall(names))
    return found


def names_in(module: types.ModuleType) -> list[str]:
    """Returns the public names of a module that come from Weft, in the order of its source."""
    names = getattr(module, "__all__", None) or [*vars(module), *dir(module)]
    return [
        name
        for name in dict.fromkeys(names)
        if not name.startswith("_") and is_ours(getattr(module, name, None), module)
    ]


def is_ours(value: Any, module: types.ModuleType) -> bool:
    if isinstance(value, (types.ModuleType, TypeVar, ParamSpec)):
        return False
    home = getattr(value, "__module__", None)
    return isinstance(home, str) and (home == "weft" or home.startswith("weft."))


def is_peers(home: str) -> bool:
    return home.startswith("weft._flax_names")


def all_modules() -> list[str]:
    """Returns the modules that code of the NNX API imports by name."""
    folder = SOURCE / "_flax_names" / "modules"
    found = [path.relative_to(folder).with_suffix("") for path in folder.rglob("*.py")]
    names = (".".join(path.parts).removesuffix("__init__").rstrip(".") for path in found)
    return sorted(["weft.bridge.wrappers", *(f"weft.{name}" for name in names if name)])


def pages() -> list[Page]:
    """Returns the pages of the reference, each public name under one heading of one of them."""
    found, peers = top_pages(groups_of((SOURCE / "__init__.pyi").read_text(encoding="utf-8")))
    known = {id(entry.value) for page in found for entry in entries_of(page)}
    known |= {id(entry.value) for entry in peers}

    def new_entries(module: types.ModuleType) -> list[Entry]:
        name = module.__name__
        entries = [Entry(f"{name}.{n}", name, getattr(module, n)) for n in names_in(module)]
        new = [entry for entry in entries if id(entry.value) not in known]
        known.update(id(entry.value) for entry in new)
        return new

    for name, (file, title) in PAGES.items():
        module = importlib.import_module(name)
        text = inspect.getdoc(module) or ""
        found.append(Page(file, title, text, {"": new_entries(module)}))
    sections = {"": peers}
    for name in all_modules():
        sections[name] = new_entries(importlib.import_module(name))
    return [*found, Page("flax_names", PEERS, INTRODUCTIONS[PEERS], sections)]


def top_pages(groups: dict[str, list[tuple[str, str]]]) -> tuple[list[Page], list[Entry]]:
    """Returns a page for each group of `weft`, and what is there for code of flax.nnx alone."""
    found: list[Page] = []
    peers: list[Entry] = []
    for heading, names in groups.items():
        sections: dict[str, list[Entry]] = {}
        for name, home in names:
            entry = Entry(f"weft.{name}", home, value_of(f"weft.{name}"))
            if is_peers(home):
                peers.append(entry)
            elif not isinstance(entry.value, types.ModuleType):
                section = family(entry.value) if heading == "Layers" else ""
                sections.setdefault(section, []).append(entry)
        if sections:
            sections = {name: sections[name] for name in ("", *FAMILIES) if name in sections}
            title = TITLES.get(heading, heading)
            file = re.sub(r"\W+", "_", title.lower())
            found.append(Page(file, title, INTRODUCTIONS.get(heading, ""), sections))
    return found, [entry for entry in peers if not isinstance(entry.value, types.ModuleType)]


def family(value: Any) -> str:
    """Returns the heading under which a layer stands."""
    file = getattr(value, "__module__", "").rpartition(".")[2]
    return next((name for name, files in FAMILIES.items() if file in files.split()), "Further")


def entries_of(page: Page) -> Iterator[Entry]:
    for entries in page.sections.values():
        yield from entries


# -- how they are written


def directive(entry: Entry) -> str:
    """Returns the directive of Sphinx that documents a name."""
    value = entry.value
    if isinstance(value, type):
        kind = "exception" if issubclass(value, Exception) else "class"
        return f".. auto{kind}:: {entry.name}\n   :members:\n"
    if is_function(value):
        return f".. autofunction:: {entry.name}\n"
    return f".. py:data:: {entry.name}\n\n   {marked(meaning(entry))}\n"


def is_function(value: Any) -> bool:
    return callable(value) and bool(getattr(value, "__name__", "")) and not is_alias(value)


def is_alias(value: Any) -> bool:
    return not isinstance(value, type) and hasattr(value, "__origin__")


def meaning(entry: Entry) -> str:
    """Returns the first sentence about a name."""
    value = entry.value
    if not isinstance(value, type) and not is_function(value):
        return MEANINGS.get(entry.name, f"The one value of `{type(value).__name__}`.")
    paragraph = (inspect.getdoc(value) or "").partition("\n\n")[0]
    return re.split(r"(?<=[.:])\s", paragraph)[0].replace("\n", " ").rstrip(":")


def summary(entries: list[Entry]) -> str:
    """Returns a table of names with the first sentence about each."""
    rows = [f"   * - {shown(e.name)}\n     - {marked(meaning(e))}" for e in entries]
    return "\n".join([".. list-table::", "   :widths: 30 70", "   :class: names", "", *rows, ""])


def shown(name: str) -> str:
    """Returns a name as users write it, a link to its entry."""
    return f":py:obj:`{user_name(name)} <{name}>`"


def user_name(name: str) -> str:
    return re.sub(r"^weft\.(?!train\.\w+$)", "nnx.", name).removeprefix("weft.")


def written(page: Page) -> str:
    """Returns the text of a page."""
    parts = [underlined(page.title, "="), marked(introduction(page.text))]
    for heading, entries in page.sections.items():
        if heading:
            parts.append(underlined(user_name(heading), "-"))
        if heading.startswith("weft."):
            module = importlib.import_module(heading)
            parts.append(marked(inspect.getdoc(module) or ""))
            names = ", ".join(f"``{name}``" for name in names_in(module))
            parts.append(f"Holds {names}." if names else "")
        if len(entries) > 1:
            parts.append(summary(entries))
        parts += map(directive, entries)
    return "\n\n".join(part for part in parts if part) + "\n"


def introduction(text: str) -> str:
    """Returns what of the docstring of a module is for users: not how to read its source."""
    about_source = ("Reading order", "Each name is imported")
    parts = [part for part in text.split("\n\n") if not part.startswith(about_source)]
    return "\n\n".join(parts)


def underlined(title: str, line: str) -> str:
    return f"{title}\n{line * len(title)}"


def write(folder: Path = OUT) -> None:
    """Writes all pages and their index; leaves files alone that say the same already."""
    found = pages()
    folder.mkdir(exist_ok=True)
    index = [underlined("Reference", "="), INDEX, ".. toctree::\n   :maxdepth: 1\n"]
    index[-1] += "".join(f"\n   {page.file}" for page in found)
    texts = {f"{page.file}.rst": written(page) for page in found}
    texts["index.rst"] = "\n\n".join(index) + "\n"
    for path in set(folder.glob("*.rst")) - {folder / name for name in texts}:
        path.unlink()
    for name, text in texts.items():
        if not (folder / name).exists() or (folder / name).read_text(encoding="utf-8") != text:
            (folder / name).write_text(text, encoding="utf-8")


# -- what Sphinx is told


def link_names(app: Any, doctree: Any) -> None:
    """Makes links of names in `code`: `nnx.jit`, and in the reference itself `jit` as well."""
    from docutils import nodes
    from sphinx.addnodes import desc_addname, pending_xref

    docname = app.env.current_document.docname
    is_reference = docname.startswith("reference/")
    for node in list(doctree.findall(nodes.literal)):
        if isinstance(node.parent, (nodes.reference, pending_xref, nodes.title)):
            continue
        name = target(node.astext(), app.weft_names, is_reference)
        if name is not None:
            link = pending_xref(
                "", refdomain="py", reftype="obj", reftarget=name, refdoc=docname, refexplicit=True
            )
            node.replace_self(link)
            link += node
    for node in doctree.findall(desc_addname):
        node.children = [nodes.Text(re.sub(r"^weft\.(?!train\.)", "nnx.", node.astext()))]


def target(text: str, names: set[str], is_reference: bool) -> str | None:
    """Returns the entry that a piece of code means, if it is a public name."""
    match = MENTION.fullmatch(text.strip())
    if match is None or not (match[1] or is_reference):
        return None
    start = "weft.train" if match[1] == "train" else "weft"
    name = f"{start}.{match[2]}"
    return name if name in names else None


def marked(text: str) -> str:
    """Turns the plain text of a docstring, with `code` and *terms*, into reStructuredText."""
    pieces = re.split(r"(`[^`]+`)", text)
    for i, piece in enumerate(pieces):
        if i % 2:  # a letter may stand beside it, as in `Rngs`es
            before = "\\ " * (re.search(r"[\w)]$", pieces[i - 1]) is not None)
            after = "\\ " * (re.match(r"[\w(]", pieces[i + 1]) is not None)
            pieces[i] = f"{before}`{piece}`{after}"
        else:
            piece = re.sub(r"(?<![*\w])\*([\w -]+)\*(?!\w)", "\0\\1\0", piece)
            pieces[i] = re.sub(r"([*|]|(?<=\w)_(?!\w))", r"\\\1", piece).replace("\0", "*")
    return "".join(pieces)


def mark_up(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    plain, example, code = "\n".join(lines).partition("Example:\n")
    lines[:] = f"{marked(plain)}{example}{code}".split("\n")


def signature(
    app: Any, what: str, name: str, obj: Any, options: Any, found: str, returned: str
) -> tuple[str, str] | None:
    """Returns the parameters of a class or function with defaults that can be read."""
    try:
        parameters = inspect.signature(obj).parameters.values()
    except (TypeError, ValueError):
        return None
    if what == "method":
        parameters = [*parameters][not isinstance(obj, types.MethodType) :]
    plain = [
        p.replace(
            annotation=p.empty, default=p.default if p.default is p.empty else Shown(p.default)
        )
        for p in parameters
    ]
    return str(inspect.Signature(plain)), ""


class Shown:
    """A default value, in words that fit a signature."""

    def __init__(self, value: Any):
        self.value = value

    def __repr__(self) -> str:
        value = self.value
        if type(value).__name__ == "Missing":
            return "..."
        if isinstance(value, (type, Callable)) and hasattr(value, "__name__"):
            return value.__name__
        if isinstance(value, Mapping):
            return repr(dict(value))
        if isinstance(value, tuple) and any(isinstance(v, type) for v in value):
            return f"({', '.join(repr(Shown(v)) for v in value)})"
        return re.sub(r"^(\w+)\(.*\)$", r"\1()", repr(value))


def is_skipped(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Leaves out what is no method and no property: the docstring of the class tells of those."""
    kinds = (types.FunctionType, types.MethodType, property, classmethod, staticmethod)
    return None if isinstance(obj, kinds) else True


def setup(app: Any) -> dict[str, Any]:
    app.weft_names = {entry.name for page in pages() for entry in entries_of(page)}
    app.connect("builder-inited", lambda app: write())
    app.connect("autodoc-process-signature", signature)
    app.connect("autodoc-process-docstring", mark_up, priority=400)  # before napoleon
    app.connect("autodoc-skip-member", is_skipped)
    app.connect("doctree-read", link_names)
    return {"version": "1", "parallel_read_safe": False}
