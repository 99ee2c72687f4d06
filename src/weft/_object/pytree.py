"""Objects: instances of classes whose attributes are data or static.

A `Pytree` is an ordinary mutable Python object that is also a JAX pytree: the attributes that hold
data are its children, the others travel as static data. `data` and `static` *mark* an attribute,
which settles the matter for its name. Each object remembers the trace it belongs to.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    NamedTuple,
    TypedDict,
    TypeVar,
    Unpack,
    overload,
)

import jax

from weft._core import trace as tracing
from weft._core.errors import StructureError, TraceContextError
from weft._core.makeup import compare_by_identity
from weft._core.path import format_path
from weft._core.tracebacks import bound_methods, warn
from weft._core.types import ARRAY_TYPES, MISSING
from weft._object import kinds
from weft._object.classes import prepare_class, reporting, reports_changes, settle_class
from weft._object.kinds import holds_data
from weft._object.marks import Mark
from weft._object.protocol import register
from weft._variable import watch as watching
from weft._variable.storage import (
    ObjectStorage,
    VariableStorage,
    attributes,
    ensure_filled,
    make_object,
    set_attributes,
)

A = TypeVar("A")

if TYPE_CHECKING:

    class FieldOptions(TypedDict, total=False):
        """Arguments of `dataclasses.field` without a default, for the type checker."""

        init: bool
        repr: bool
        hash: bool | None
        compare: bool
        metadata: Mapping[Any, Any] | None
        kw_only: bool


Data = Annotated[A, "weft.data"]
"""Annotation of a class attribute that always holds data: `child: nnx.Data[Module | None]`."""

StaticAttribute = Annotated[A, "weft.static"]
"""Annotation of a class attribute that is always static; public as `nnx.Static`."""


def _mark(value: Any, is_data: bool, field_arguments: dict[str, Any]) -> Any:
    if value is MISSING:
        metadata = {**(field_arguments.pop("metadata", None) or {}), "weft.is_data": is_data}
        return dataclasses.field(metadata=metadata, **field_arguments)
    if field_arguments:
        raise TypeError(
            "keyword arguments belong to a dataclass field, which has no positional value: "
            f"found a value and {sorted(field_arguments)}"
        )
    return Mark(value, is_data)


@overload
def data(value: A, /) -> A: ...
@overload
def data(*, default: A, **kwargs: Unpack[FieldOptions]) -> A: ...
@overload
def data(*, default_factory: Callable[[], A], **kwargs: Unpack[FieldOptions]) -> A: ...
@overload
def data(**kwargs: Unpack[FieldOptions]) -> Any: ...
def data(value: Any = MISSING, /, **kwargs: Any) -> Any:
    """Marks an attribute as data, whatever it holds.

    Args:
      value: what to assign: `self.x = nnx.data(value)`.
      **kwargs: without a value, arguments of `dataclasses.field`, for use in a dataclass.

    Returns:
      A mark that assignment to an attribute takes off, or a dataclass field.

    Example:
      >>> import weft as nnx
      >>> class Model(nnx.Module):
      ...     def __init__(self):
      ...         self.scale = nnx.data(2.0)
      >>> dict(nnx.to_flat_state(nnx.state(Model())))
      {('scale',): 2.0}
    """
    return _mark(value, True, kwargs)


@overload
def static(value: A, /) -> A: ...
@overload
def static(*, default: A, **kwargs: Unpack[FieldOptions]) -> A: ...
@overload
def static(*, default_factory: Callable[[], A], **kwargs: Unpack[FieldOptions]) -> A: ...
@overload
def static(**kwargs: Unpack[FieldOptions]) -> Any: ...
def static(value: Any = MISSING, /, **kwargs: Any) -> Any:
    """Marks an attribute as static, whatever it holds.

    Args:
      value: what to assign: `self.x = nnx.static(value)`.
      **kwargs: as for `data`.

    Returns:
      What `data` returns.

    Example:
      >>> import numpy as np
      >>> import weft as nnx
      >>> class Model(nnx.Module):
      ...     def __init__(self):
      ...         self.table = nnx.static(np.arange(3))
      >>> dict(nnx.to_flat_state(nnx.state(Model())))
      {}
    """
    return _mark(value, False, kwargs)


_set_marks = ObjectStorage._pytree_marks.__set__  # type: ignore[attr-defined]
_set_trace = ObjectStorage._pytree_trace.__set__  # type: ignore[attr-defined]
_set_class = object.__dict__["__class__"].__set__
_set_is_open = ObjectStorage._pytree_is_open.__set__  # type: ignore[attr-defined]
_set_watches = ObjectStorage._pytree_watches.__set__  # type: ignore[attr-defined]
set_memory = ObjectStorage._pytree_memory.__set__  # type: ignore[attr-defined]
_OWN = ("weft.nn.", "weft.train.")
_NO_MARKS: dict[Any, bool] = {}


class Pytree(ObjectStorage):
    """Base of objects whose attributes may be arrays, Variables, other objects, or static values.

    Every subclass is registered as a JAX pytree; `class M(nnx.Pytree, pytree=False)` opts out.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import weft as nnx
      >>> class Point(nnx.Pytree):
      ...     def __init__(self, x, name):
      ...         self.x, self.name = x, name
      >>> point = jax.tree.map(lambda x: x + 1, Point(jnp.zeros(()), "p"))
      >>> float(point.x), point.name
      (1.0, 'p')
    """

    __slots__ = ()

    _pytree_is_pytree: ClassVar[bool] = True
    _pytree_class_marks: ClassVar[dict[str, bool]] = _NO_MARKS
    _pytree_is_plain: ClassVar[bool] = True  # whether objects hold nothing but attributes
    _pytree_layouts: ClassVar[dict[Any, Any]] = {}
    _pytree_is_settled: ClassVar[bool] = False  # whether nothing decorates the class any more
    _pytree_comparison: ClassVar[set[str]] = set()

    if not TYPE_CHECKING:  # constructors have the signature of `__init__`

        def __new__(cls, *args: Any, **kwargs: Any) -> Any:
            if (args or kwargs) and cls.__init__ is object.__init__:
                _check_own_new(cls)
            return blank(cls)

    def __init_subclass__(cls, *, pytree: bool = True, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._pytree_is_pytree = pytree
        cls._pytree_layouts = {}
        cls._pytree_is_settled = False
        cls._pytree_comparison = {"__eq__", "__hash__"} & vars(cls).keys()
        cls._pytree_class_marks = {**cls._pytree_class_marks, **_annotated_marks(cls)}
        if cls.__module__.startswith(_OWN):
            bound_methods(cls)
        prepare_class(cls)
        cls._pytree_is_plain = cls._pytree_items is Pytree._pytree_items
        if pytree:
            register(cls)

    if not TYPE_CHECKING:  # an attribute that no method sets is a mistake

        def __setattr__(self, name: str, value: Any) -> None:
            check_write(self, name)
            if type(value) is Mark:
                _set_marks(self, {**self._pytree_marks, name: value.is_data})
                value = value.value
            else:
                old = attributes(self).get(name)
                if isinstance(old, VariableStorage):
                    warn_if_lost(self, name, old, value)
                if self._pytree_watches and _is_new_array(self, name, value):
                    object.__setattr__(self, name, value)
                    return
            # Reported before, as an interrupt may come in between, and after, as a thread may.
            if self._pytree_watches:
                structure_changed(self)
            object.__setattr__(self, name, value)
            if self._pytree_watches:
                structure_changed(self)

        def __delattr__(self, name: str) -> None:
            check_write(self, name)
            structure_changed(self)
            object.__delattr__(self, name)
            structure_changed(self)
            if name in self._pytree_marks:
                _set_marks(self, {k: v for k, v in self._pytree_marks.items() if k != name})

    @property
    def __dict__(self) -> dict[str, Any]:  # type: ignore[override]
        # Whoever holds the dict may change it unseen: from now on its content is compared.
        _open(self)
        return attributes(self)

    @__dict__.setter
    def __dict__(self, new: dict[str, Any]) -> None:  # type: ignore[override]
        check_write(self, "__dict__")
        _open(self)
        set_attributes(self, new)

    # `object.__setattr__(obj, "__class__", kind)`, which notebooks use, comes here, too. The getter
    # is `type` itself, as `isinstance` asks for it.
    __class__ = property(type, lambda self, kind: _change_class(self, kind))  # type: ignore

    # How the walk reads and refills an object; containers that are objects override these.
    def _pytree_items(self) -> list[tuple[Any, Any]]:
        own = attributes(self)
        return [(name, own[name]) for name in sorted(own)]

    def _pytree_replace(self, items: list[tuple[Any, Any]]) -> None:
        structure_changed(self)
        own = attributes(self)
        new = dict(items)
        for name in [name for name in own if name not in new]:
            del own[name]
        own.update(new)

    def __getstate__(self) -> dict[Any, Any]:
        return {**attributes(self), **dict(self._pytree_items())}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        if not isinstance(state, dict):
            name = type(self).__name__
            raise TypeError(
                f"expected a dict of attributes to restore a {name} from, found a "
                f"{type(state).__name__}: return one from `{name}.__getstate__`, or define "
                f"`{name}.__setstate__` as well"
            )
        ensure_filled(self)  # the user's `__reduce__` may make objects without us
        self._pytree_replace(list({**attributes(self), **state}.items()))

    def __reduce_ex__(self, protocol: Any) -> Any:
        kind = type(self)
        if kind.__reduce__ is not object.__reduce__:
            return self.__reduce__()
        marks = None if self._pytree_marks == kind._pytree_class_marks else self._pytree_marks
        return (_remake, (kind, marks, _arguments_of_new(self)), self.__getstate__())

    def __nnx_repr__(self) -> Iterator[Any]:
        from weft._core.repr import Attr, Object
        from weft._object.shown import shown_attributes

        yield Object(type(self))
        for name, value in shown_attributes(self):
            yield Attr(name, value)


kinds.declare_object_type(Pytree)
compare_by_identity(Pytree)
reporting.update((Pytree.__setattr__, Pytree.__delattr__))
Pytree.__new__._pytree_fills = True  # type: ignore[attr-defined]


def blank(cls: type) -> Any:
    """Makes an object of the running trace without calling its `__init__`."""
    if not cls._pytree_is_settled:
        settle_class(cls)
    return make_object(cls, cls._pytree_class_marks)


def _remake(cls: Any, marks: dict[Any, bool] | None, arguments: Any) -> Any:
    """Makes an object to be filled with what was pickled."""
    new = blank(cls) if arguments is None else cls.__new__(cls, *arguments[0], **arguments[1])
    if marks is not None:
        set_marks(new, marks)
    return new


def _arguments_of_new(obj: Any) -> tuple[tuple, dict[str, Any]] | None:
    """Returns what to call `__new__` with where the user's class says so."""
    if hasattr(obj, "__getnewargs_ex__"):
        return obj.__getnewargs_ex__()
    return (obj.__getnewargs__(), {}) if hasattr(obj, "__getnewargs__") else None


def _open(obj: Pytree) -> None:
    """Notes that the dict of attributes was handed out."""
    ensure_filled(obj)
    _set_is_open(obj, True)
    structure_changed(obj)


def _change_class(obj: Pytree, kind: type) -> None:
    _set_class(obj, kind)
    structure_changed(obj)


def set_marks(obj: Pytree, marks: dict[Any, bool]) -> None:
    """Sets which attributes of an object are marked as data (True) or static (False)."""
    _set_marks(obj, marks)
    structure_changed(obj)


def structure_changed(obj: Pytree) -> None:
    """Voids what was worked out from the structure of an object."""
    if obj._pytree_watches:
        watching.void(obj._pytree_watches)


def watch_object(obj: Pytree, watch: watching.Watch) -> bool:
    """Sets a watch on an object; returns whether all changes will be seen."""
    if obj._pytree_watches is None:
        _set_watches(obj, [])
    watching.add(obj._pytree_watches, watch)
    return not obj._pytree_is_open and reports_changes(type(obj))


def _is_new_array(obj: Pytree, name: str, value: Any) -> bool:
    """Returns whether an attribute that is an array, and no static one, gets another array."""
    old = attributes(obj).get(name)
    is_array = isinstance(value, jax.Array) and isinstance(old, jax.Array)
    return is_array and obj._pytree_marks.get(name) is not False


_warned_losses: set[tuple[type, Any]] = set()


def warn_if_lost(obj: Pytree, name: Any, old: VariableStorage, new: Any) -> None:
    """Warns, once for a place, where an array takes the place of a Variable."""
    if not isinstance(new, ARRAY_TYPES) or (type(obj), name) in _warned_losses:
        return
    _warned_losses.add((type(obj), name))
    where, kind = format_path((name,), "model"), type(old).__name__
    in_code = f"nnx.{kind}" if type(old).__module__.startswith("weft.") else kind
    warn(
        f"an array takes the place of a {kind}: `{where}` of a {type(obj).__name__} is no {kind} "
        "any more, and optimizers and filters do not see it. Write into the one that is there, "
        f"`{where}[...] = array`, or put a new one there, `{where} = {in_code}(array)`; if it is "
        f"meant, `del {where}` first"
    )


class Frozen(NamedTuple):
    """Stands for the trace of an object whose attributes cannot be changed at all."""

    reason: str


def freeze(obj: Pytree, reason: str) -> None:
    """Makes it an error to change the attributes of an object; its Variables may be written."""
    _set_trace(obj, Frozen(reason))


def check_write(obj: Pytree, name: Any) -> None:
    """Raises TraceContextError if the object does not belong to the running trace.

    Raises:
      StructureError: if the object is frozen.
    """
    try:
        trace = obj._pytree_trace
    except AttributeError:  # made by `object.__new__`, just now
        ensure_filled(obj)
        trace = obj._pytree_trace
    if trace != tracing.current():
        if isinstance(trace, Frozen):
            where = format_path((name,), type(obj).__name__)
            raise StructureError(f"cannot change {where}: {trace.reason}")
        root, of = tracing.find_place(obj) or (type(obj).__name__, "")
        raise TraceContextError(
            f"cannot change {format_path((name,), root)}{of and f' of {of}'} from inside "
            f"{tracing.describe()}: the object was captured from outside, and the change would be "
            "lost or leak a tracer. Pass it as an argument of the transformed function (use "
            "`nnx.jit`, `nnx.grad`, ... for functions that update objects): `nnx.jit(f)(model, x)`"
        )


_STRING_MARK = re.compile(r"^['\"]?(?:\w+\.)*(Data|Static)\[")


def _annotations(cls: type) -> dict[str, Any]:
    """Returns a class's own annotations; a name that is not defined yet stays a text."""
    if sys.version_info >= (3, 14):
        import annotationlib

        return annotationlib.get_annotations(cls, format=annotationlib.Format.FORWARDREF)
    return inspect.get_annotations(cls)


def _annotated_marks(cls: type) -> dict[str, bool]:
    marks: dict[str, bool] = {}
    for name, annotation in _annotations(cls).items():
        text = getattr(annotation, "__forward_arg__", annotation)
        if isinstance(text, str):
            match = _STRING_MARK.match(text)
            if match:
                marks[name] = match[1] == "Data"
        elif typing.get_origin(annotation) is Annotated:
            for extra in annotation.__metadata__:
                if extra in ("weft.data", "weft.static"):
                    marks[name] = extra == "weft.data"
    for name, value in cls.__dict__.items():
        if isinstance(value, dataclasses.Field) and "weft.is_data" in value.metadata:
            marks[name] = value.metadata["weft.is_data"]
    return marks


def is_data(value: Any, /) -> bool:
    """Returns whether a value, assigned to an attribute, is data.

    Arrays, Variables and objects are data, and so are containers and pytrees that hold any.

    Example:
      >>> import weft as nnx
      >>> nnx.is_data([nnx.Param(1.0)]), nnx.is_data("relu")
      (True, False)
    """
    return holds_data(value)


has_data = is_data


def register_data_type(type_: type, /) -> type:
    """Declares that instances of a type are data leaves: usable as decorator.

    A type that is registered with JAX stays a pytree; its leaves are data then.

    Example:
      >>> import weft as nnx
      >>> @nnx.register_data_type
      ... class Handle:
      ...     pass
      >>> nnx.is_data(Handle())
      True
    """
    kinds.declare_data_type(type_)
    return type_


def _check_own_new(cls: type) -> None:
    """Raises unless a class without `__init__` has a `__new__` of its own, which takes arguments.

    Raises:
      TypeError: as Python does where a class has neither.
    """
    if getattr(cls.__new__, "__wrapped__", cls.__new__) is not Pytree.__new__:
        return
    raise TypeError(
        f"{cls.__name__}() takes no arguments: it has no `__init__`. Write one, `def __init__("
        "self, features, *, rngs)`, and make its parts there; or let its annotations be fields, "
        f"`@nnx.dataclass` above `class {cls.__name__}`"
    )


def check_pytree(pytree: Pytree) -> None:
    """Raises if an attribute marked as static hides data.

    Raises:
      StructureError: naming the attribute.

    Example:
      >>> import weft as nnx
      >>> nnx.check_pytree(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
    """
    for name, value in pytree._pytree_items():
        if pytree._pytree_marks.get(name) is False and holds_data(value):
            where = format_path((name,), type(pytree).__name__)
            raise StructureError(
                f"{where} is marked static but holds arrays, Variables or Modules, which "
                f"transforms will not see. Remove the mark: `{where} = value`"
            )


class Object(Pytree, pytree=False):
    """Base of objects that the walk sees but JAX does not: they are no pytrees.

    Example:
      >>> import jax
      >>> import weft as nnx
      >>> class Counter(nnx.Object):
      ...     pass
      >>> jax.tree.leaves(Counter())[0].__class__.__name__
      'Counter'
    """

    __slots__ = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**{**kwargs, "pytree": False})
