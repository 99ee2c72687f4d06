"""Classes of objects: what a class decides for its instances when it is made.

Weft sees attributes that are in an object's dict, hears of changes that go through its own
`__setattr__`, and fills slots of its own when an object is made. A user's class may go another way
in each of these: what can be mended is mended here, and what would be lost in silence is refused.
"""

from __future__ import annotations

import abc
import functools
import gc
import inspect
import types
from collections.abc import Callable, Iterator
from typing import Any

from weft._object.derived import Derived
from weft._variable.storage import ObjectStorage, ensure_filled

reporting: set[Callable[..., None]] = set()
"""The `__setattr__` and `__delattr__` methods that report all changes they make."""


def prepare_class(cls: type) -> None:
    """Prepares a new class of objects.

    Raises:
      TypeError: if it keeps attributes in slots, where nobody sees them.
    """
    _refuse_slots(cls)
    _fill_after_new(cls)
    _derive_cached_properties(cls)
    _hand_out_dict(cls)
    if any(_names_setattr(code) for code in _codes(cls)):
        cls._pytree_goes_past = True  # type: ignore[attr-defined]
    cls.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]  # `abc` asks for it
    abc.update_abstractmethods(cls)


def settle_class(cls: type) -> None:
    """Takes the comparison off a class that `dataclasses.dataclass` has made for it.

    Objects compare by identity: what they hold, arrays, has no truth. A comparison that a class
    defines itself stays. To be called before the first instance is made, as decorators come after
    `prepare_class`.
    """
    for base in cls.__mro__:
        if issubclass(base, ObjectStorage) and "__dataclass_params__" in vars(base):
            own = base._pytree_comparison  # type: ignore[attr-defined]
            for name in {"__eq__", "__hash__"} & vars(base).keys() - own:
                delattr(base, name)
    cls._pytree_is_settled = True  # type: ignore[attr-defined]


def reports_changes(cls: type) -> bool:
    """Returns whether instances of a class report all changes of their attributes.

    They do not where its own code sets attributes past `Pytree.__setattr__`, or may do so.
    """
    return (
        cls.__setattr__ in reporting
        and cls.__delattr__ in reporting
        and not getattr(cls, "_pytree_goes_past", False)
        and not _has_other_dict(cls)
    )


def _own_namespaces(cls: type) -> Iterator[dict[str, Any]]:
    """Yields what a class and its bases that are no objects define: the others were prepared."""
    for base in cls.__mro__[:-1]:
        if base is cls or not issubclass(base, ObjectStorage):
            yield dict(vars(base))


def _codes(cls: type) -> Iterator[types.CodeType]:
    """Yields the code of the methods and properties of a class."""
    for namespace in _own_namespaces(cls):
        for value in namespace.values():
            is_property = isinstance(value, property)
            for function in (value.fget, value.fset) if is_property else (value,):
                code = getattr(getattr(function, "__wrapped__", function), "__code__", None)
                if isinstance(code, types.CodeType):
                    yield code


def _names_setattr(code: types.CodeType) -> bool:
    """Returns whether a function uses `object.__setattr__`, or another one by that name."""
    inner = (x for x in code.co_consts if isinstance(x, types.CodeType))
    names = code.co_names
    return "__setattr__" in names or "__delattr__" in names or any(map(_names_setattr, inner))


@functools.cache
def _has_other_dict(cls: type) -> bool:
    """Returns whether a base that comes first hands out the dict of attributes unnoticed."""
    return not isinstance(_dicts(cls)[0], property)


def _dicts(cls: type) -> list[Any]:
    return [vars(base)["__dict__"] for base in cls.__mro__ if "__dict__" in vars(base)]


def _hand_out_dict(cls: type) -> None:
    """Puts the `__dict__` that notes who asks for it before those of other bases."""
    found = _dicts(cls)
    if not isinstance(found[0], property):
        # `setattr` refuses this name, for classes have a `__dict__` themselves. Where this does not
        # work instances are compared on each call, which is slower.
        for namespace in gc.get_referents(vars(cls)):
            namespace["__dict__"] = next(x for x in found if isinstance(x, property))
        cls.__doc__ = cls.__doc__  # lets Python forget what it has looked up


def _refuse_slots(cls: type) -> None:
    slots = [name for name, x in vars(cls).items() if isinstance(x, types.MemberDescriptorType)]
    if slots and "_pytree_items" not in vars(cls):
        names = ", ".join(map(repr, slots))
        raise TypeError(
            f"{cls.__qualname__} keeps {names} in slots, where transforms, copies and checkpoints "
            "do not see them: leave `__slots__` out, or `slots=True` of the dataclass. Attributes "
            f"without slots are seen: `class {cls.__name__}(nnx.Module): ...`"
        )


def _fill_after_new(cls: Any) -> None:
    """Fills the slots of what a `__new__` of the user's returns, which may be a bare object."""
    make = cls.__new__
    if getattr(make, "_pytree_fills", False):
        return

    @functools.wraps(make)
    def __new__(kind: type, *args: Any, **kwargs: Any) -> Any:
        made = make(kind, *args, **kwargs)
        if isinstance(made, ObjectStorage):
            ensure_filled(made)
        return made

    __new__._pytree_fills = True  # type: ignore[attr-defined]
    cls.__new__ = __new__


def _derive_cached_properties(cls: type) -> None:
    for namespace in _own_namespaces(cls):
        for name, value in namespace.items():
            if type(value) is functools.cached_property:
                if inspect.getattr_static(cls, name) is value:
                    setattr(cls, name, Derived(value.func, name))
