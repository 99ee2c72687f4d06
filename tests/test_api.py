"""Public names and signatures of the NNX API: each is here, or docs/differences.md says why not.

`data/api.tsv` lists name, kind and signature of every public name of the peer.
"""

import csv
import fnmatch
import functools
import importlib
import importlib.metadata
import inspect
import pkgutil
import re
import types
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import pytest

import weft as nnx

HERE = Path(__file__).parent
DIFFERENCES = HERE.parent / "docs" / "differences.md"
MISSING = object()
POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Row(NamedTuple):
    name: str
    kind: str
    signature: str


def rows():
    with (HERE / "data" / "api.tsv").open(newline="") as file:
        return [Row(*row) for row in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)][1:]


ROWS = rows()


# -- docs/differences.md
@functools.cache
def listed(section):
    """The names in the first column of the tables of one section; `*` stands for any text."""
    text = DIFFERENCES.read_text()
    (body,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    cells = [line.split("|")[1] for line in body.splitlines() if line.startswith("|")]
    return [name for cell in cells for name in re.findall(r"`(nnx\.[^`]+)`", cell)]


def is_listed(name, *sections):
    return any(fnmatch.fnmatchcase(name, p) for section in sections for p in listed(section))


# -- looking names up
@functools.cache
def find(name):
    """What a dotted name stands for, `MISSING` if nothing; members of a class are unbound."""
    found = nnx
    for part in name.split(".")[1:]:
        if isinstance(found, type):
            found = inspect.getattr_static(found, part, MISSING)
        elif isinstance(found, types.ModuleType):
            try:
                found = getattr(found, part)
            except AttributeError:
                try:
                    found = importlib.import_module(f"{found.__name__}.{part}")
                except ImportError:
                    return MISSING
        else:
            found = getattr(found, part, MISSING)
        if found is MISSING:
            return MISSING
    return found


def members(row):
    """The names that a row such as `nnx.Dict.<mapping protocol>` stands for."""
    owner, _, group = row.name.rpartition(".")
    special = group in ("<mapping protocol>", "<sequence protocol>", "<operators>")
    return [f"{owner}.__{n}__" if special else f"{owner}.{n}" for n in row.signature.split()]


def exists(row):
    names = members(row) if row.name.endswith(">") else [row.name]
    if row.kind == "property" and row.name.startswith("nnx.Variable."):  # of the value, too
        return hasattr(nnx.Variable(jnp.ones(1)), row.name.rpartition(".")[2])
    return all(find(name) is not MISSING for name in names)


# -- comparing signatures
class Theirs(NamedTuple):
    """A parameter of the peer; kind is one of `/`, `.`, `*`, `k`, `**`."""

    name: str
    kind: str
    required: bool


def split_arguments(text):
    parts, depth, current, quote = [], 0, "", ""
    for char in text:
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in "([{<":
            depth += 1
        elif char in ")]}>":
            depth -= 1
        if char == "," and depth == 0 and not quote:
            parts.append(current.strip())
            current = ""
        else:
            current += char
    return [*parts, current.strip()] if current.strip() else parts


def parse(signature):
    parameters, kind = [], "."
    for part in split_arguments(signature[signature.index("(") + 1 : signature.rindex(")")]):
        name, equals, _ = part.partition("=")
        if part == "/":
            parameters = [p._replace(kind="/") for p in parameters]
        elif part == "*":
            kind = "k"
        elif part.startswith("**"):
            parameters.append(Theirs(part[2:], "**", False))
        elif part.startswith("*"):
            parameters.append(Theirs(part[1:], "*", False))
            kind = "k"
        else:
            parameters.append(Theirs(name, kind, not equals))
    return parameters


def complaints(theirs, ours):
    """Calls that the peer takes and Weft does not, in words."""
    parameters = list(ours.parameters.values())
    positional = [p for p in parameters if p.kind in POSITIONAL]
    named = {p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.POSITIONAL_ONLY)}
    takes_rest = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    for i, their in enumerate(p for p in theirs if p.kind in ("/", ".")):
        if i >= len(positional) and not takes_rest:
            yield f"no position for {their.name}"
        elif their.kind == "." and i < len(positional):
            other = positional[i]
            if other.kind is other.POSITIONAL_OR_KEYWORD and other.name != their.name:
                yield f"position {i} is {other.name}, not {their.name}"
    for their in theirs:
        if their.kind in (".", "k") and not their.name.startswith("_"):
            if their.name not in named and not takes_any:
                yield f"no keyword {their.name}"
        if their.kind == "*" and not takes_rest:
            yield f"no *{their.name}"
        if their.kind == "**" and not takes_any:
            yield f"no **{their.name}"
    given = {p.name for p in theirs if p.required}
    count = sum(p.required and p.kind in ("/", ".") for p in theirs)
    for i, own in enumerate(parameters):
        is_given = own.name in given or (own.kind in POSITIONAL and i < count)
        is_rest = own.kind in (own.VAR_POSITIONAL, own.VAR_KEYWORD)
        if own.default is own.empty and not is_rest and not is_given:
            yield f"{own.name} is required"


def our_signature(row):
    found = find(row.name)
    if row.name.endswith(".__init__"):
        return inspect.signature(find(row.name.removesuffix(".__init__")))
    if isinstance(found, (staticmethod, classmethod)):
        found = found.__func__
    signature = inspect.signature(found)
    parameters = list(signature.parameters.values())
    if row.kind == "method" and parameters and parameters[0].name in ("self", "cls"):
        signature = signature.replace(parameters=parameters[1:])
    return signature


def is_compared(row):
    names = ("__init_subclass__", "__getattribute__", ">")
    kinds = ("class", "function", "method")
    return "(" in row.signature and row.kind in kinds and not row.name.endswith(names)


# -- tests
AREAS = {
    "bridge": [row for row in ROWS if row.name.startswith(("nnx.bridge.", "nnx.wrappers"))],
    "submodules": [row for row in ROWS if re.match(r"nnx\.[a-z]\w+\.", row.name)],
}
AREAS["submodules"] = [row for row in AREAS["submodules"] if row not in AREAS["bridge"]]
AREAS["top level"] = [row for row in ROWS if row not in AREAS["bridge"] + AREAS["submodules"]]


@pytest.fixture(params=AREAS)
def area(request):
    if request.param == "bridge":
        pytest.importorskip("flax", reason="flax is not installed")
    return AREAS[request.param]


def test_every_name_is_here_or_explained(area):
    missing = [r.name for r in area if not (exists(r) or is_listed(r.name, "Left out"))]
    assert not missing, "neither in Weft nor under 'Left out' in docs/differences.md:\n" + (
        "\n".join(missing)
    )


def test_every_signature_takes_the_arguments_of_the_peer(area):
    refused = []
    for row in area:
        if not is_compared(row) or is_listed(row.name, "Left out", "Other signatures"):
            continue
        if find(row.name) is not MISSING:  # else another test says so
            found = list(complaints(parse(row.signature), our_signature(row)))
            refused += [f"{row.name}: {'; '.join(found)}"] if found else []
    assert not refused, "not under 'Other signatures' in docs/differences.md:\n" + (
        "\n".join(refused)
    )


def test_what_is_left_out_is_not_here(area):
    wrong = [row.name for row in area if is_listed(row.name, "Left out") and exists(row)]
    assert not wrong, "here, though docs/differences.md says otherwise:\n" + "\n".join(wrong)


def test_other_signatures_are_other(area):
    wrong = [
        row.name
        for row in area
        if is_listed(row.name, "Other signatures")
        and not (is_compared(row) and any(complaints(parse(row.signature), our_signature(row))))
    ]
    assert not wrong


@pytest.mark.parametrize("section", ["Left out", "Other signatures"])
def test_what_is_listed_is_a_name_of_the_peer(section):
    assert len(listed(section)) == len(set(listed(section))) > 0
    unknown = [p for p in listed(section) if not fnmatch.filter((r.name for r in ROWS), p)]
    assert not unknown


# -- tests of the comparison
@pytest.mark.parametrize(
    ("theirs", "ours", "expected"),
    [
        ("(a, b=1)", lambda a, b=2: 0, []),
        ("(a, b=1)", lambda a, c=2: 0, ["position 1 is c, not b", "no keyword b"]),
        ("(a, /, b)", lambda x, b: 0, []),
        ("(a, *, b=<f(1, 2)>)", lambda a, **k: 0, []),
        ("(a, *, b)", lambda a: 0, ["no keyword b"]),
        ("(a)", lambda a, b: 0, ["b is required"]),
        ("(a=1)", lambda a: 0, ["a is required"]),
        ("(*xs, **k)", lambda a: 0, ["no *xs", "no **k", "a is required"]),
        ("(a, b)", lambda a: 0, ["no position for b", "no keyword b"]),
        ("(a, b={'x': (1, 2)}, _c=0)", lambda a, b: 0, ["b is required", "no position for _c"]),
    ],
)
def test_the_comparison_of_signatures(theirs, ours, expected):
    assert sorted(complaints(parse(theirs), inspect.signature(ours))) == sorted(expected)


def test_the_lookup_of_names():
    assert find("nnx.Param.value") is not MISSING and find("nnx.Param.vlaue") is MISSING
    assert find("nnx.nn.linear.Linear") is nnx.Linear and find("nnx.nope.x") is MISSING


GENERIC = """
Variable Param BatchStat Cache Intermediate LoRAParam GraphDef PureState List TrainState
VariableMetadata graphlib.Static bridge.variables.NNXMeta
"""


@pytest.mark.parametrize("name", GENERIC.split())
def test_generic_classes_take_a_type(name):
    if name.startswith("bridge"):
        pytest.importorskip("flax", reason="flax is not installed")
    assert "float" in repr(find(f"nnx.{name}")[float])


# -- the peer as it is installed
# Names that code may import from the peer's modules and not from Weft's of that name, and why;
# besides what is under 'Left out' in docs/differences.md.
NOT_THERE = {
    "*.[A-Z]*Fn": "what the peer's transforms hand to JAX",
    "*.CustomVjpFnWrapper": "likewise",
    "*.Simple*": "likewise, with graph=False",
    "*.transforms.*.LiftedModule": "likewise",
    "*.transforms.*.ValueMetadata": "likewise",
    "*.transforms.*.*resolve*": "what the peer's transforms do with arguments",
    "*.transforms.*.Stage": "the base of Traced, Lowered and Compiled",
    "*.PytreeMeta": "Modules have no metaclass",
    "*.bridge.interop.*": "between the peer's two kinds of Modules",
    "*.bridge.module.*": "the second kind of Module itself",
    "*.bridge.variables.*": "internals of the conversion",
    "*.bridge.wrappers.[Ff]unctional": "`nnx.split` and `nnx.call`",
    "*.bridge.wrappers.linen_rngs_dict": "internals of the conversion",
    "*.bridge.wrappers.current_linen_module": "likewise",
    "*.bridge.wrappers.to_linen_class": "`functools.partial(nnx.bridge.to_linen, cls)`",
    "*.summary.*": "internals of the table",
}


def of_the_peer():
    """Yields all public classes and functions that are defined in modules of the peer."""
    peer = pytest.importorskip("flax.nnx", reason="flax is not installed")
    if importlib.metadata.version("flax") != "0.12.8":
        pytest.skip("what is left out is listed for flax 0.12.8")
    modules = [info.name for info in pkgutil.walk_packages(peer.__path__, "flax.nnx.")]
    for module in ["flax.nnx", *modules]:
        path = module.removeprefix("flax.")
        for name, value in vars(importlib.import_module(module)).items():
            home = getattr(value, "__module__", None) or ""
            is_kind = isinstance(value, (type, types.FunctionType))
            if is_kind and home == module and not name.startswith("_"):
                yield f"{path}.{name}"


def test_every_name_of_the_installed_peer_can_be_imported_or_is_explained():
    names = list(of_the_peer())
    missing = [
        name
        for name in names
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in NOT_THERE)
        and not is_listed(name, "Left out")
        and find(name) is MISSING
    ]
    assert not missing, "neither in Weft nor explained:\n" + "\n".join(missing)
    idle = [pattern for pattern in NOT_THERE if not fnmatch.filter(names, pattern)]
    assert not idle, "nothing of the peer has these names: " + ", ".join(idle)


PRIVATE = """
filterlib: PathParts Key
graph: Key PathParts GraphDef State Variable
graphlib: Key PathParts
module: first_from GraphDef State Key PathParts
statelib: Key PathParts
tracers: TraceState current_jax_trace
pytreelib: PytreeState Variable
bridge.module: current_module
nn.attention: PrecisionLike DotGeneralT PromoteDtypeFn
nn.linear: Conv ConvTranspose Einsum Embed Dtype Shape PrecisionLike DotGeneralT PaddingLike
nn.linear: LaxPadding ConvGeneralDilatedT EinsumT PromoteDtypeFn first_from canonicalize_padding
nn.linear: _canonicalize_tuple _conv_dimension_numbers _normalize_axes
nn.normalization: WeightNorm SpectralNorm _abs_sq _canonicalize_axes _compute_stats _l2_normalize
nn.normalization: _normalize Array
nn.stochastic: Dropout
training.ema: EMA
training.metrics: Average MultiMetric
training.optimizer: Optimizer to_opt_state
"""


@pytest.mark.parametrize("line", PRIVATE.strip().splitlines())
def test_names_that_other_projects_import(line):
    module, _, names = line.partition(": ")
    home = importlib.import_module(f"weft.{module}")
    assert all(hasattr(home, name) for name in names.split())
    with pytest.raises(AttributeError, match="has no attribute 'nope'"):
        home.nope  # noqa: B018
