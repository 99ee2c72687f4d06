"""What static values are made of: one table for everybody who looks into them.

A *part* of a value is what is directly inside of it. An *aspect* is one way in which a value has
parts: the items of a list, the attributes of an object, its slots, the arguments of a partial. The
*makeup* of a type is its aspects, and how two of its values compare. `_static` makes keys by it,
`_graph/snapshot` notices by it what changes in place, and `_lift/retrace` names what differs.

What a makeup does not tell of cannot be noticed: the slots of an object that equals only itself,
what objects of the standard library, of NumPy and of C hold, and what functions close over.
"""

from __future__ import annotations

import collections
import enum
import functools
import operator
import sys
import types
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.core import Tracer


class Compare(enum.Enum):
    """How two values of one type compare, besides by their parts."""

    ATOM = enum.auto()  # by `==`, which tells all of them apart; there is nothing inside
    BITS = enum.auto()  # by their bytes, as `0.0 == -0.0`
    PARTS = enum.auto()  # by nothing else
    OWN = enum.auto()  # by their own `==`
    IDENTITY = enum.auto()  # each equals only itself
    COPY = enum.auto()  # by `==` with a copy: they cannot be hashed
    ARRAY = enum.auto()  # by dtype, shape and content
    FUNCTION = enum.auto()  # by identity; those of libraries by their parts, as first seen


class Aspect(NamedTuple):
    """One way in which a value has parts.

    Attributes:
      values: returns the parts.
      names: returns their names, in the same order; None where they have none but their place.
      is_ordered: whether the order counts.
      changes: whether other parts may be there later.
      home: returns the very list, set, deque or dict that has them, if there is always one; None
        where there is none yet, which is taken to stay so.
    """

    values: Callable[[Any], Iterable[Any]]
    names: Callable[[Any], Iterable[Any]] | None = None
    is_ordered: bool = True
    changes: bool = True
    home: Callable[[Any], Any] | None = None


class Makeup(NamedTuple):
    """How values of one type compare, and in which ways they have parts."""

    compare: Compare
    aspects: tuple[Aspect, ...] = ()


def _itself(value: Any) -> Any:
    return value


own_dict: Callable[[Any], dict[str, Any]] = functools.partial(
    lambda get, value: get(value, "__dict__"), object.__getattribute__
)
"""Returns the attributes of an object, whatever its class makes of `__dict__`."""


def _fixed(*names: str) -> Aspect:
    """The aspect of some attributes that never change."""
    get: Any = operator.attrgetter(*names, names[0])  # a tuple, even of one
    return Aspect(lambda x: get(x)[:-1], lambda x: names, changes=False)


_ATTRIBUTES = Aspect(lambda x: own_dict(x).values(), own_dict, home=own_dict)


def _attributes_of_partial(partial: functools.partial) -> dict[str, Any] | None:
    """Returns the attributes of a partial, None for one that never had any.

    To ask for its `__dict__` would make one, and a partial of such a partial is not joined with it.
    """
    state: Any = functools.partial.__reduce__(partial)[2]
    return state[3]


def _closure(function: types.FunctionType) -> dict[str, Any]:
    found = {}
    cells = function.__closure__ or ()
    for name, cell in zip(function.__code__.co_freevars, cells, strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # the cell is still empty
            continue
    return found


_ordered: Any = collections.OrderedDict
_TYPES: dict[type, Makeup] = {
    **dict.fromkeys((type(None), bool, int, str, bytes, type, type(...)), Makeup(Compare.ATOM)),
    **dict.fromkeys((float, complex), Makeup(Compare.BITS)),
    tuple: Makeup(Compare.PARTS, (Aspect(tuple.__iter__, changes=False),)),
    list: Makeup(Compare.PARTS, (Aspect(list.__iter__, home=_itself),)),
    collections.deque: Makeup(
        Compare.PARTS, (Aspect(collections.deque.__iter__, home=_itself), _fixed("maxlen"))
    ),
    set: Makeup(Compare.PARTS, (Aspect(set.__iter__, is_ordered=False, home=_itself),)),
    frozenset: Makeup(
        Compare.PARTS, (Aspect(frozenset.__iter__, is_ordered=False, changes=False),)
    ),
    # Order counts: code that iterates over a mapping traces another program.
    dict: Makeup(Compare.PARTS, (Aspect(dict.values, dict.__iter__, home=_itself),)),
    _ordered: Makeup(Compare.PARTS, (Aspect(_ordered.values, _ordered.__iter__, home=_itself),)),
    collections.defaultdict: Makeup(
        Compare.PARTS,
        (
            Aspect(dict.values, dict.__iter__, home=_itself),
            _fixed("default_factory")._replace(changes=True),
        ),
    ),
    types.MappingProxyType: Makeup(Compare.PARTS, (Aspect(lambda x: x.values(), iter),)),
    functools.partial: Makeup(
        Compare.PARTS,
        (
            _fixed("func", "args"),
            Aspect(lambda x: x.keywords.values(), lambda x: x.keywords, home=lambda x: x.keywords),
            Aspect(
                lambda x: (_attributes_of_partial(x) or {}).values(),
                lambda x: _attributes_of_partial(x) or (),
                home=_attributes_of_partial,
            ),
        ),
    ),
    types.MethodType: Makeup(Compare.PARTS, (_fixed("__func__", "__self__"),)),
    types.FunctionType: Makeup(
        Compare.FUNCTION,
        (
            Aspect(lambda f: _closure(f).values(), _closure, changes=False),
            Aspect(
                lambda f: (f.__kwdefaults__ or {}).values(),
                lambda f: f.__kwdefaults__ or {},
                changes=False,
            ),
            Aspect(lambda f: f.__defaults__ or (), changes=False),
        ),
    ),
    np.ndarray: Makeup(Compare.ARRAY),
}

ELEMENTS = Aspect(lambda array: np.asarray(array).ravel().tolist())
"""The aspect of an array of objects."""

ATOMS = frozenset(kind for kind, makeup in _TYPES.items() if makeup.compare is Compare.ATOM)
"""Types whose values are fixed, and equal to another of the same type only if nothing differs."""

_ATOMIC = (type, types.ModuleType, enum.Enum, np.dtype)
"""Classes whose values are atoms, subclasses included."""

_WITH_DATA: list[type] = [jax.Array, Tracer]

LIBRARIES = frozenset({"jax", "jaxlib", "optax", "weft"})
"""Packages whose functions read nothing that changes but their own closures."""


def compare_by_identity(kind: type) -> None:
    """Declares that values of a type hold data: as static values they equal only themselves."""
    _WITH_DATA.append(kind)


def compare_as_mapping(kind: type, read: Callable[[Any], dict[Any, Any]]) -> None:
    """Declares that values of a type compare by the items of a dict that they hold."""
    _TYPES[kind] = Makeup(Compare.PARTS, (Aspect(lambda x: read(x).values(), read),))


def package_of(module: str | None) -> str:
    """Returns the outermost package of a module."""
    return (module or "").partition(".")[0]


_found: weakref.WeakKeyDictionary[type, Makeup] = weakref.WeakKeyDictionary()


def makeup_of(kind: type) -> Makeup:
    """Returns the makeup of a type."""
    makeup = _TYPES.get(kind) or _found.get(kind)
    if makeup is None:
        makeup = _found[kind] = _find(kind)
    return makeup


def _find(kind: type) -> Makeup:
    if issubclass(kind, tuple(_WITH_DATA)):
        return Makeup(Compare.IDENTITY)
    if issubclass(kind, _ATOMIC):
        return Makeup(Compare.ATOM)
    if issubclass(kind, np.generic):
        return Makeup(Compare.ARRAY)
    base = next((_TYPES[cls] for cls in kind.__mro__ if cls in _TYPES), None)
    package = package_of(kind.__module__)
    aspects = tuple(_own_aspects(kind))
    if base is not None and base.compare not in (Compare.ATOM, Compare.BITS):
        first, *others = base.aspects or (None,)
        if first is not None and hasattr(kind, "_fields"):
            first = first._replace(names=lambda x: x._fields)
        if package in LIBRARIES:
            aspects = ()
        elif issubclass(kind, functools.partial):
            aspects = tuple(aspect for aspect in aspects if aspect.home is not own_dict)
        return Makeup(base.compare, (*filter(None, (first, *others)), *aspects))
    if kind.__hash__ is None:
        is_closed = not aspects or _has_hidden_state(kind)
        return Makeup(Compare.COPY if is_closed else Compare.PARTS, aspects)
    parameters = vars(kind).get("__dataclass_params__")
    if parameters is not None and parameters.eq and package not in ("jax", "jaxlib"):
        return Makeup(Compare.PARTS, aspects)
    if package in ("jax", "jaxlib", "weft"):
        is_own = kind.__eq__ is not object.__eq__
        return Makeup(Compare.OWN if is_own else Compare.IDENTITY)
    if base is not None and base.compare is Compare.BITS:
        return Makeup(Compare.BITS, aspects)
    if kind.__eq__ is not object.__eq__ or kind.__hash__ is not object.__hash__:
        return Makeup(Compare.OWN, aspects)
    if package == "optax":
        return Makeup(Compare.PARTS, aspects)
    is_seen = kind.__dictoffset__ and package not in sys.stdlib_module_names | {"numpy"}
    return Makeup(Compare.IDENTITY, aspects if is_seen else ())


def _own_aspects(kind: type) -> Iterator[Aspect]:
    """Yields the aspects that objects have of their class: attributes and slots."""
    if kind.__dictoffset__:
        yield _attributes(kind)
    names = [
        name
        for cls in kind.__mro__
        if "__slots__" in vars(cls)
        for name, value in vars(cls).items()
        if isinstance(value, types.MemberDescriptorType)
    ]
    if names:

        def read(value: Any) -> dict[str, Any]:
            found = {}
            for name in names:  # no class among what is kept here, so that classes may go
                try:
                    found[name] = object.__getattribute__(value, name)
                except AttributeError:  # not set
                    continue
            return found

        yield Aspect(lambda value: read(value).values(), read)


def _attributes(kind: type) -> Aspect:
    """Returns the aspect of an object's attributes; what follows from the others is left out."""
    derived = {
        name
        for cls in kind.__mro__
        for name, value in vars(cls).items()
        if isinstance(value, functools.cached_property)
    }
    if not derived:
        return _ATTRIBUTES

    def read(value: Any) -> dict[str, Any]:
        return {k: v for k, v in own_dict(value).items() if k not in derived}

    return Aspect(lambda value: read(value).values(), read)


def _has_hidden_state(kind: type) -> bool:
    """Returns whether objects hold, in C, what is neither in attributes nor in slots."""
    slots = sum(
        isinstance(value, types.MemberDescriptorType)
        for cls in kind.__mro__
        if "__slots__" in vars(cls)
        for value in vars(cls).values()
    )
    places = slots + (kind.__dictoffset__ > 0) + (kind.__weakrefoffset__ > 0)
    known = object.__basicsize__ + places * np.dtype(np.uintp).itemsize
    return kind.__basicsize__ > known or kind.__itemsize__ > 0
