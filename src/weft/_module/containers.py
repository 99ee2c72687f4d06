"""Containers that are Modules: `List`, `Dict` and `Sequential`.

Plain lists and dicts hold data as well; these two exist for code that expects Modules, and they
report their changes. A *List* behaves like a list, a *Dict* like a dict whose string keys are
attributes too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableMapping, MutableSequence
from typing import Any, TypeVar, overload

from weft._module.module import Module
from weft._module.pytree import Mark, attributes, check_write, set_marks

A = TypeVar("A")


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

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        new = super().__new__(cls)
        _set_items(new, [])
        return new

    def __init__(self, it: Iterable[A] | None = None, /):
        for item in it or ():
            self.append(item)

    def _pytree_items(self) -> list[tuple[Any, Any]]:
        return [*enumerate(self._items), *super()._pytree_items()]

    def _pytree_replace(self, items: list[tuple[Any, Any]]) -> None:
        _set_items(self, [value for key, value in items if isinstance(key, int)])
        super()._pytree_replace([item for item in items if not isinstance(item[0], int)])

    def _changed(self, items: list[A]) -> None:
        # A new list each time: whoever remembers the old one can see that it is another.
        _set_items(self, items)

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
        items = list(self._items)
        if isinstance(index, slice):
            items[index] = map(self._take_mark, value)
        else:
            items[index] = self._take_mark(value)
        self._changed(items)

    def __delitem__(self, index: Any) -> None:
        check_write(self, index)
        items = list(self._items)
        del items[index]
        self._changed(items)

    def insert(self, index: int, value: A) -> None:
        """Inserts an item before a position."""
        check_write(self, index)
        items = list(self._items)
        items.insert(index, self._take_mark(value))
        self._changed(items)

    def _take_mark(self, value: Any) -> Any:
        return value.value if type(value) is Mark else value

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__


_set_items = List._items.__set__  # type: ignore[attr-defined]


class Dict(Module, MutableMapping[str, A]):
    """A dict that is a Module; string keys can be read and written as attributes.

    Args:
      *args: a mapping or an iterable of pairs, as for `dict`.
      **kwargs: further items.

    Example:
      >>> import weft as nnx
      >>> heads = nnx.Dict(a=nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
      >>> heads["a"] is heads.a, list(heads)
      (True, ['a'])
    """

    __slots__ = ()

    def __init__(self, *args: Any, **kwargs: Any):
        for key, value in dict(*args, **kwargs).items():
            self[key] = value

    def _pytree_items(self) -> list[tuple[Any, Any]]:
        from weft._path import sorted_keys

        own = attributes(self)
        return [(key, own[key]) for key in sorted_keys(own)]

    def __getitem__(self, key: Any) -> A:
        return attributes(self)[key]

    def __setitem__(self, key: Any, value: A) -> None:
        if isinstance(key, str):
            setattr(self, key, value)
            return
        check_write(self, key)
        if type(value) is Mark:
            set_marks(self, {**self._pytree_marks, key: value.is_data})
            value = value.value
        attributes(self)[key] = value

    def __delitem__(self, key: Any) -> None:
        check_write(self, key)
        del attributes(self)[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(attributes(self))

    def __len__(self) -> int:
        return len(attributes(self))

    def __contains__(self, key: object) -> bool:
        return key in attributes(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__


class Sequential(Module):
    """Applies callables in turn.

    A tuple that one returns is spread over the positional arguments of the next, a dict over its
    keyword arguments.

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

    def __init__(self, *fns: Any):
        if len(fns) == 1 and isinstance(fns[0], (list, tuple)):
            fns = tuple(fns[0])
        for i, fn in enumerate(fns):
            if not callable(fn):
                raise TypeError(
                    f"Sequential expects callables, found {type(fn).__name__} at position {i}: "
                    "`nnx.Sequential(layer, nnx.relu, layer)`"
                )
        self.layers = List(fns)

    def __call__(self, *args: Any, rngs: Any = None, **kwargs: Any) -> Any:
        """Applies the callables; `rngs` is handed to those that take it.

        Raises:
          ValueError: if there are no callables.
        """
        if not self.layers:
            raise ValueError("an empty Sequential cannot be called: give it at least one callable")
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
    import inspect

    call = type(function).__call__ if isinstance(function, Module) else function
    try:
        return "rngs" in inspect.signature(call).parameters
    except (TypeError, ValueError):  # builtins without a signature
        return False
