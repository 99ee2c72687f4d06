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
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, NamedTuple, TypeVar

import jax
import jax.tree_util as jtu

from weft import _trace, _watch
from weft._errors import StructureError, TraceContextError
from weft._module import kinds
from weft._module.classes import prepare_class, reporting, reports_changes
from weft._module.cycles import refuse_cycle
from weft._module.kinds import Kind, holds_data, kind_of
from weft._path import format_path, sorted_keys
from weft._static import Static, compare_by_identity
from weft._storage import ObjectStorage, ensure_filled, make_object, set_attributes
from weft._types import MISSING, SCALAR_TYPES

A = TypeVar("A")

Data = Annotated[A, "weft.data"]
"""Annotation of a class attribute that always holds data: `child: nnx.Data[Module | None]`."""

StaticAttribute = Annotated[A, "weft.static"]
"""Annotation of a class attribute that is always static; public as `nnx.Static`."""


class Mark(NamedTuple):
    """A value on its way into an attribute, with the decision whether it is data."""

    value: Any
    is_data: bool


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


def static(value: Any = MISSING, /, **kwargs: Any) -> Any:
    """Marks an attribute as static, whatever it holds.

    Args:
      value: what to assign: `self.x = nnx.static(value)`.
      **kwargs: without a value, arguments of `dataclasses.field`, for use in a dataclass.

    Returns:
      A mark that assignment to an attribute takes off, or a dataclass field.

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


attributes: Callable[[Any], dict[str, Any]] = ObjectStorage.__dict__["__dict__"].__get__
"""Returns the attributes of an object as the dict that holds them."""

_set_marks = ObjectStorage._pytree_marks.__set__  # type: ignore[attr-defined]
_set_trace = ObjectStorage._pytree_trace.__set__  # type: ignore[attr-defined]
_set_class = object.__dict__["__class__"].__set__
_set_is_open = ObjectStorage._pytree_is_open.__set__  # type: ignore[attr-defined]
_set_watches = ObjectStorage._pytree_watches.__set__  # type: ignore[attr-defined]
set_memory = ObjectStorage._pytree_memory.__set__  # type: ignore[attr-defined]
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
    _pytree_layouts: ClassVar[dict[Any, Any]] = {}

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return blank(cls)

    def __init_subclass__(cls, *, pytree: bool = True, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._pytree_is_pytree = pytree
        cls._pytree_layouts = {}
        cls._pytree_class_marks = {**cls._pytree_class_marks, **_annotated_marks(cls)}
        prepare_class(cls)
        if pytree:
            jtu.register_pytree_with_keys(
                cls,
                _flatten_with_keys,
                lambda aux, children: _unflatten(cls, aux, children),
                _flatten,
            )

    def __setattr__(self, name: str, value: Any) -> None:
        check_write(self, name)
        if type(value) is Mark:
            _set_marks(self, {**self._pytree_marks, name: value.is_data})
            value = value.value
        elif self._pytree_watches and _is_new_array(self, name, value):
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

    def __repr__(self) -> str:
        from weft._repr import represent

        return represent(self)

    def __treescope_repr__(self, path: str | None, subtree_renderer: Any) -> Any:
        from weft.tools.display import render

        return render(self, path, subtree_renderer)


kinds.declare_object_type(Pytree)
compare_by_identity(Pytree)
reporting.update((Pytree.__setattr__, Pytree.__delattr__))
Pytree.__new__._pytree_fills = True  # type: ignore[attr-defined]


def blank(cls: type) -> Any:
    """Makes an object of the running trace without calling its `__init__`."""
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
        _watch.void(obj._pytree_watches)


def watch_object(obj: Pytree, watch: _watch.Watch) -> bool:
    """Sets a watch on an object; returns whether all changes will be seen."""
    if obj._pytree_watches is None:
        _set_watches(obj, [])
    _watch.add(obj._pytree_watches, watch)
    return not obj._pytree_is_open and reports_changes(type(obj))


def _is_new_array(obj: Pytree, name: str, value: Any) -> bool:
    """Returns whether an attribute that is an array, and no static one, gets another array."""
    old = attributes(obj).get(name)
    is_array = isinstance(value, jax.Array) and isinstance(old, jax.Array)
    return is_array and obj._pytree_marks.get(name) is not False


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
    if trace != _trace.current():
        if isinstance(trace, Frozen):
            where = format_path((name,), type(obj).__name__)
            raise StructureError(f"cannot change {where}: {trace.reason}")
        raise TraceContextError(
            f"cannot change {format_path((name,), type(obj).__name__)} from inside "
            f"{_trace.describe()}: the object was captured from outside, and the change would be "
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


def is_data_attribute(obj: Pytree, name: Any, value: Any) -> bool:
    """Returns whether an attribute is data: by its mark, else by what it holds.

    Raises:
      StructureError: for a set that holds data, which has no order to walk it in.
    """
    mark = obj._pytree_marks.get(name)
    if mark is not None:
        return mark
    if not holds_data(value):
        return False
    if isinstance(value, (set, frozenset)):
        raise set_of_data_error((name,), type(obj).__name__)
    return True


def refuse_marks(obj: Pytree) -> None:
    """Raises if a mark was stored with the value that it marks.

    Raises:
      StructureError: naming the attribute.
    """
    for name, value in attributes(obj).items():
        if type(value) is Mark:
            mark, kind = "data" if value.is_data else "static", type(obj).__name__
            raise StructureError(
                f"{format_path((name,), kind)} holds what `nnx.{mark}(...)` returned, which Weft's "
                f"own `__setattr__` takes the value out of: end `{kind}.__setattr__` with "
                "`super().__setattr__(name, value)` in place of `object.__setattr__`"
            )


def set_of_data_error(path: tuple, root: str = "") -> StructureError:
    """Explains that sets cannot hold data."""
    where = format_path(path, root)
    return StructureError(
        f"{where} is a set that holds arrays, Variables or Modules: a set has no order, so its "
        f"elements cannot be told apart. Use a list, `{where} = list(...)`, or a dict"
    )


# -- JAX's pytree protocol
class _Aux(NamedTuple):
    data_names: tuple[Any, ...]
    boxed: tuple[bool, ...]  # which children have static leaves in boxes
    static_names: tuple[Any, ...]
    statics: tuple[Static, ...]
    marks: Static


_NO_MARKS_KEY = Static({})


def _box(value: Any, is_marked: bool) -> Any:
    """Puts what is static inside a container into boxes, for JAX not to see it."""
    kind = kind_of(value)
    if kind is Kind.NODE and not isinstance(value, set):
        handler = kinds.node_type(type(value))
        new = handler.blank(value)
        handler.replace(new, [(k, _box(child, is_marked)) for k, child in handler.items(value)])
        return new
    if kind is Kind.VALUE and isinstance(value, tuple):
        handler = kinds.value_type(type(value))
        parts = handler.split(value)[1]
        return handler.join(type(value), tuple([_box(part, is_marked) for part in parts]))
    is_number = is_marked and isinstance(value, SCALAR_TYPES)
    is_static = kind is Kind.NODE or (kind is Kind.STATIC and value is not None and not is_number)
    return Static(value) if is_static else value


def _unbox(value: Any) -> Any:
    if type(value) is Static:
        return value.value
    kind = kind_of(value)
    if kind is Kind.NODE:
        handler = kinds.node_type(type(value))
        handler.replace(value, [(key, _unbox(child)) for key, child in handler.items(value)])
    elif kind is Kind.VALUE and isinstance(value, tuple):
        handler = kinds.value_type(type(value))
        return handler.join(type(value), tuple(map(_unbox, handler.split(value)[1])))
    return value


_CONTAINERS = (Kind.NODE, Kind.VALUE)


def _flatten(obj: Pytree) -> tuple[list[Any], _Aux]:
    children, data_names, boxed, static_names, statics = [], [], [], [], []
    for name, value in obj._pytree_items():
        if is_data_attribute(obj, name, value):
            boxes = kind_of(value) in _CONTAINERS
            children.append(_box(value, obj._pytree_marks.get(name) is True) if boxes else value)
            data_names.append(name)
            boxed.append(boxes)
        else:
            static_names.append(name)
            statics.append(Static(value))
    refuse_cycle(obj, children)
    marks = obj._pytree_marks
    return children, _Aux(
        tuple(data_names),
        tuple(boxed),
        tuple(static_names),
        tuple(statics),
        Static(marks) if marks else _NO_MARKS_KEY,
    )


def _flatten_with_keys(obj: Pytree) -> tuple[list[tuple[Any, Any]], _Aux]:
    children, aux = _flatten(obj)
    keys = (
        jtu.SequenceKey(name) if isinstance(name, int) else jtu.GetAttrKey(name)
        for name in aux.data_names
    )
    return list(zip(keys, children, strict=True)), aux


def _unflatten(cls: type[Pytree], aux: _Aux, children: Any) -> Pytree:
    obj = blank(cls)
    _set_marks(obj, aux.marks.value)
    items = {
        name: _unbox(child) if boxes else child
        for name, boxes, child in zip(aux.data_names, aux.boxed, children, strict=True)
    }
    items.update(zip(aux.static_names, (s.value for s in aux.statics), strict=True))
    obj._pytree_replace([(name, items[name]) for name in sorted_keys(items)])
    return obj


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

    Example:
      >>> import weft as nnx
      >>> @nnx.register_data_type
      ... class Handle:
      ...     pass
      >>> nnx.is_data(Handle())
      True
    """
    kinds._KINDS[type_] = Kind.ARRAY
    return type_


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
