"""Containers that are Modules: `List`, `Dict` and `Sequential`.

Plain lists and dicts hold data as well; these two exist for code that expects Modules, and they
report their changes. A *List* behaves like a list, a *Dict* like a dict whose string keys are
attributes too, save those that are methods.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import (
    Callable,
    ItemsView,
    Iterable,
    Iterator,
    KeysView,
    Mapping,
    MutableMapping,
    MutableSequence,
    Sequence,
    ValuesView,
)
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from weft._core.errors import surface
from weft._core.foreign_names import SEQUENTIAL, give_hints
from weft._core.path import Own, sorted_keys
from weft._module.module import Module
from weft._object.classes import reporting
from weft._object.kinds import bound_objects
from weft._object.pytree import (
    Mark,
    attributes,
    check_write,
    set_marks,
    structure_changed,
    warn_if_lost,
)
from weft._variable.storage import VariableStorage

A = TypeVar("A")
if TYPE_CHECKING:
    import typing_extensions  # pyright: ignore[reportMissingModuleSource]

    R = typing_extensions.TypeVar("R", default=Any)
else:
    R = TypeVar("R")


class List(Module, MutableSequence[A]):
    """A list that is a Module; its keys in paths are ints.

    Args:
      it: an iterable of items; empty if missing.

    Example:
      >>> import weft as nnx
      >>> rngs = nnx.Rngs(0)
      >>> layers = nnx.List([nnx.Linear(2, 2, rngs=rngs), nnx.relu])
      >>> layers.append(nnx.Linear(2, 3, rngs=rngs))
      >>> len(layers), layers[-1].out_features
      (3, 3)
    """

    __slots__ = ("_items",)

    if not TYPE_CHECKING:

        def __new__(cls, *args: Any, **kwargs: Any) -> Any:
            new = super().__new__(cls)
            _set_items(new, [])
            return new

    def __init__(self, it: Iterable[A] | None = None, /):
        self._change([*self._with_marks(), *(it or ())])

    def _pytree_items(self) -> list[tuple[Any, Any]]:
        return [*enumerate(self._items), *super()._pytree_items()]

    def _pytree_replace(self, items: list[tuple[Any, Any]]) -> None:
        structure_changed(self)
        _set_items(self, [value for key, value in items if isinstance(key, int)])
        super()._pytree_replace([item for item in items if not isinstance(item[0], int)])

    def _with_marks(self) -> list[Any]:
        marks = self._pytree_marks
        return [Mark(x, marks[i]) if i in marks else x for i, x in enumerate(self._items)]

    def _change(self, items: list[Any]) -> None:
        """Takes new items, in marks where they were marked."""
        # A new list each time: whoever remembers the old one can see that it is another.
        _set_items(self, [x.value if type(x) is Mark else x for x in items])
        marks = {name: mark for name, mark in self._pytree_marks.items() if isinstance(name, str)}
        marks.update((i, x.is_data) for i, x in enumerate(items) if type(x) is Mark)
        set_marks(self, marks)

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[A]:
        return iter(self._items)

    @overload
    def __getitem__(self, index: int) -> A: ...
    @overload
    def __getitem__(self, index: slice) -> list[A]: ...
    def __getitem__(self, index: Any) -> Any:
        return self._items[index]

    def __setitem__(self, index: Any, value: Any) -> None:
        check_write(self, index)
        items = self._with_marks()
        if not isinstance(index, slice):
            if isinstance(self._items[index], VariableStorage):
                warn_if_lost(self, index, self._items[index], value)
            if type(items[index]) is Mark and type(value) is not Mark:
                value = Mark(value, items[index].is_data)  # as for attributes, it is the place's
        items[index] = value
        self._change(items)

    def __delitem__(self, index: Any) -> None:
        check_write(self, index)
        items = self._with_marks()
        del items[index]
        self._change(items)

    def insert(self, index: int, value: A) -> None:
        """Inserts an item before a position."""
        check_write(self, index)
        items = self._with_marks()
        items.insert(index, value)
        self._change(items)

    def extend(self, values: Iterable[A]) -> None:
        """Adds items at the end."""
        check_write(self, len(self))
        self._change([*self._with_marks(), *_items_of(values)])

    def clear(self) -> None:
        """Removes all items."""
        check_write(self, 0)
        self._change([])

    def sort(self, *, key: Callable[[A], Any] | None = None, reverse: bool = False) -> None:
        """Sorts the items in place; each keeps its mark."""
        check_write(self, 0)
        of: Callable[[Any], Any] = (lambda x: x) if key is None else key
        by = lambda x: of(x.value if type(x) is Mark else x)  # noqa: E731
        self._change(sorted(self._with_marks(), key=by, reverse=reverse))

    def reverse(self) -> None:
        """Reverses the order of the items in place; each keeps its mark."""
        check_write(self, 0)
        self._change(self._with_marks()[::-1])

    def copy(self) -> List[A]:
        """Returns another List with the same items."""
        return copy.copy(self)

    def __add__(self, other: Any) -> List[A]:
        if not isinstance(other, (list, List)):
            return NotImplemented
        return _list_of([*self._with_marks(), *_items_of(other)])

    def __radd__(self, other: Any) -> List[A]:
        return (
            _list_of([*other, *self._with_marks()]) if isinstance(other, list) else NotImplemented
        )

    def __mul__(self, number: Any) -> List[A]:
        try:
            return _list_of(self._with_marks() * number)
        except TypeError:
            return NotImplemented

    __rmul__ = __mul__

    def __imul__(self, number: Any) -> List[A]:
        check_write(self, 0)
        self._change(self._with_marks() * number)
        return self

    def __nnx_repr__(self) -> Iterator[Any]:
        from weft._core.repr import Attr, Object

        yield Object(type(self), "([", "])")
        for item in self._items:
            yield Attr("", item)

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__


_set_items = List._items.__set__  # type: ignore[attr-defined]


def _items_of(values: Iterable[Any]) -> list[Any]:
    """Returns items, those of a List with their marks."""
    return values._with_marks() if isinstance(values, List) else [*values]


def _list_of(items: list[Any]) -> List:
    new = List()
    new._change(items)
    return new


DICT_ORDER = "<order>"
"""Key of a `Dict` in the walk that holds the order of the others."""


class Dict(Module, MutableMapping[str, A]):
    """A dict that is a Module; string keys can be read and written as attributes.

    A key that is also the name of a method, such as `train`, is reached as an item only.

    Args:
      *args: a mapping or an iterable of pairs, as for `dict`.
      **kwargs: further items.

    Example:
      >>> import weft as nnx
      >>> heads = nnx.Dict(a=nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
      >>> heads["a"] is heads.a, list(heads)
      (True, ['a'])
    """

    __slots__ = ("_items", "_order")

    if not TYPE_CHECKING:

        def __new__(cls, *args: Any, **kwargs: Any) -> Any:
            new = super().__new__(cls)
            new._pytree_replace([])
            return new

    @overload
    def __init__(self, /, **kwargs: A): ...
    @overload
    def __init__(self, items: Mapping[str, A] | Iterable[tuple[str, A]], /, **kwargs: A): ...
    def __init__(self, /, *args: Any, **kwargs: Any):
        self.update(*args, **kwargs)

    @classmethod
    def fromkeys(cls, iterable: Iterable[Any], value: Any = None, /) -> Dict[Any]:
        """Returns a Dict that has one value under all of these keys."""
        return cls(dict.fromkeys(iterable, value))

    def _pytree_items(self) -> list[tuple[Any, Any]]:
        items = self._items if self._order is None else {**self._items, DICT_ORDER: self._order}
        found = [(key, items[key]) for key in sorted_keys(items)]
        if attributes(self):  # of a subclass, set past `__setattr__`
            found += [(Own(name), value) for name, value in super()._pytree_items()]
        return found

    def _pytree_replace(self, items: list[tuple[Any, Any]]) -> None:
        own = [(key.name, value) for key, value in items if type(key) is Own]
        new = {key: value for key, value in items if type(key) is not Own}
        order = new.pop(DICT_ORDER, None)
        super()._pytree_replace(own)
        _set_dict(self, new if order is None else {key: new[key] for key in order})
        _set_order(self, order)

    def __getstate__(self) -> dict[Any, Any]:
        return dict(self._pytree_items())

    def _change(self, items: dict[Any, Any]) -> None:
        """Takes new items, in marks where that is new; their order is noted unless sorted."""
        gone = self._items.keys() - items.keys()
        marks = {key: mark for key, mark in self._pytree_marks.items() if key not in gone}
        marks.update((key, x.is_data) for key, x in items.items() if type(x) is Mark)
        if marks != self._pytree_marks:
            set_marks(self, marks)
        order = tuple(items)
        structure_changed(self)
        _set_dict(self, {k: x.value if type(x) is Mark else x for k, x in items.items()})
        _set_order(self, None if sorted_keys(items) == [*order] else order)

    def __getitem__(self, key: Any) -> A:
        return self._items[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        check_write(self, key)
        old = self._items.get(key)
        if isinstance(old, VariableStorage) and type(value) is not Mark:
            warn_if_lost(self, key, old, value)
        self._change({**self._items, key: value})

    def __delitem__(self, key: Any) -> None:
        check_write(self, key)
        items = dict(self._items)
        del items[key]
        self._change(items)

    def update(self, /, *args: Any, **kwargs: Any) -> None:
        """Adds the items of a mapping or of an iterable of pairs, and keyword arguments."""
        new = dict(*(_marked_items(x) for x in args), **kwargs)
        check_write(self, next(iter(new), "items"))
        self._change({**self._items, **new})

    def clear(self) -> None:
        """Removes all items."""
        check_write(self, next(iter(self._items), "items"))
        self._change({})

    def popitem(self) -> tuple[Any, A]:
        """Removes the item that was added last; returns its key and value."""
        key = next(reversed(self._items), None)
        if key is None and None not in self._items:
            raise KeyError("popitem(): the Dict is empty")
        return key, self.pop(key)

    def copy(self) -> Dict[A]:
        """Returns another Dict with the same items."""
        return copy.copy(self)

    def __or__(self, other: Any) -> Dict[A]:
        return _merged(self, other) if isinstance(other, Mapping) else NotImplemented

    def __ror__(self, other: Any) -> Dict[A]:
        return _merged(other, self) if isinstance(other, Mapping) else NotImplemented

    def __ior__(self, other: Any) -> Dict[A]:
        self.update(other)
        return self

    def keys(self) -> KeysView[Any]:
        """Returns a view of the keys."""
        return _Keys(self)

    def values(self) -> ValuesView[A]:
        """Returns a view of the values."""
        return _Values(self)

    def items(self) -> ItemsView[Any, A]:
        """Returns a view of the items: pairs of key and value."""
        return _Items(self)

    def __getattr__(self, name: str) -> A:
        if name.startswith("__") or name in Dict.__slots__:
            raise AttributeError(name)
        surface(self, name)
        if name not in self._items:
            raise AttributeError(f"{type(self).__name__} has no attribute or key {name!r}")
        return self._items[name]

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __delattr__(self, name: str) -> None:
        if name not in self._items:
            raise AttributeError(f"{type(self).__name__} has no key {name!r}")
        del self[name]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items)

    def __reversed__(self) -> Iterator[Any]:
        return reversed(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, key: object) -> bool:
        return key in self._items

    def __nnx_repr__(self) -> Iterator[Any]:
        from weft._core.repr import Attr, Object

        yield Object(type(self))
        for key, value in self._items.items():
            named = isinstance(key, str)
            yield Attr(key if named else "", value, "" if named else f"{key!r}: ", path_key=key)

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__  # type: ignore[assignment]  # a Module: equal to itself only


class _Keys(KeysView):
    def __reversed__(self) -> Iterator[Any]:
        return reversed([*self])


class _Values(ValuesView):
    def __reversed__(self) -> Iterator[Any]:
        return reversed([*self])


class _Items(ItemsView):
    def __reversed__(self) -> Iterator[Any]:
        return reversed([*self])


def _marked_items(values: Any) -> Any:
    """Returns a mapping, that of a Dict with its marks."""
    if not isinstance(values, Dict):
        return values
    marks = values._pytree_marks
    return {k: Mark(x, marks[k]) if k in marks else x for k, x in values._items.items()}


def _merged(*mappings: Any) -> Dict:
    new = Dict()
    for mapping in mappings:
        new.update(mapping)
    return new


_set_dict = Dict._items.__set__  # type: ignore[attr-defined]
_set_order = Dict._order.__set__  # type: ignore[attr-defined]
reporting.update((Dict.__setattr__, Dict.__delattr__))


class Sequential(Module, Generic[R]):
    """Applies callables in turn.

    A tuple that one returns is spread over the positional arguments of the next, a dict over its
    keyword arguments. It is indexed and iterated like a list; a slice is a Sequential again. What
    methods and partials among them are bound to is a part of it, too.

    Args:
      *fns: callables: Modules or functions; or one list or tuple of them.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> rngs = nnx.Rngs(0)
      >>> model = nnx.Sequential(nnx.Linear(2, 4, rngs=rngs), nnx.relu, nnx.Linear(4, 1, rngs=rngs))
      >>> model(jnp.ones((3, 2))).shape
      (3, 1)
    """

    @overload
    def __init__(self, *fns: *tuple[*tuple[Callable[..., Any], ...], Callable[..., R]]): ...
    @overload
    def __init__(self, fns: Sequence[Callable[..., R]], /): ...
    @overload
    def __init__(self: Sequential[Any], *fns: Callable[..., Any]): ...
    def __init__(self, *fns: Any):
        if len(fns) == 1 and isinstance(fns[0], (list, tuple)):
            fns = tuple(fns[0])
        for i, fn in enumerate(fns):
            if not callable(fn):
                raise TypeError(
                    f"Sequential expects callables, found {type(fn).__name__} at position {i}: "
                    "`nnx.Sequential(layer, nnx.relu, layer)`"
                )
        self.layers: List[Callable[..., Any]] = List(fns)
        parts = [obj for fn in fns for obj in bound_objects(fn)]
        if parts:  # methods and partials only refer to objects
            self.parts = parts

    @property
    def torch_weights(self) -> dict[str, str]:
        """By the names that `torch.nn.Sequential` has for its parts, those of the layers."""
        return {str(i): f"layers[{i}]" for i in range(len(self.layers))}

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.layers)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> Sequential[Any]: ...
    def __getitem__(self, index: Any) -> Any:
        found = self.layers[index]
        return Sequential(*found) if isinstance(index, slice) else found

    def __call__(self, *args: Any, rngs: Any = None, **kwargs: Any) -> R:
        """Applies the callables; `rngs` is handed to those that take it.

        Without callables it is the identity: one positional argument comes back as it is, several
        as a tuple, keywords alone as a dict, and nothing as None.
        """
        if not self.layers:
            return args[0] if len(args) == 1 else args or kwargs or None  # type: ignore[return-value]
        output: Any = None
        for i, layer in enumerate(self.layers):
            if i:
                args, kwargs = _as_arguments(output)
            if rngs is not None and _takes_rngs(layer):
                kwargs = {**kwargs, "rngs": rngs}
            output = layer(*args, **kwargs)
        return output


def _as_arguments(output: Any) -> tuple[tuple, dict[str, Any]]:
    if isinstance(output, tuple):
        return output, {}
    if isinstance(output, dict):
        return (), output
    return (output,), {}


def _takes_rngs(function: Any) -> bool:
    call = type(function).__call__ if isinstance(function, Module) else function
    try:
        return "rngs" in inspect.signature(call).parameters
    except (TypeError, ValueError):  # builtins without a signature
        return False


give_hints(Sequential, SEQUENTIAL)
