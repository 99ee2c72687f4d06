"""Variables: mutable boxes around an array or a pytree of arrays.

A *Variable* has a type (what the value is for: `Param`, `BatchStat`, ...), a *raw value* (what is
stored) and *metadata* (keyword facts about it, among them *hooks*, functions called when the value
is made, read or written). `get_value` and `set_value` go through the hooks, the other spellings
(`v[...]`, `v.value`, arithmetic, `jnp` functions) through these two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, Self, TypeVar, overload

import jax
import jax.tree_util as jtu
import numpy as np
from jax.core import Tracer

from weft._core import trace
from weft._core.errors import surface
from weft._core.exported import register_export
from weft._core.foreign_names import VARIABLE
from weft._core.makeup import compare_by_identity
from weft._core.path import VALUE
from weft._core.static import Static
from weft._core.tracebacks import call_site
from weft._core.types import MISSING, Missing
from weft._variable.guard import check_write, warn_if_captured
from weft._variable.items import with_item
from weft._variable.keeper import read_kept, set_metadata_dict, set_raw
from weft._variable.lost_writes import note_loan
from weft._variable.metadata import (
    HOOKS,
    VariableMetadata,
    axis_names,
    current_name,
    with_axis_names,
    with_current_names,
)
from weft._variable.operators import ValueOperators
from weft._variable.sharding import shard_on_creation
from weft._variable.storage import (
    VariableStorage,
    fill_variable,
    make,
    make_variables,
    set_origin,
)
from weft._variable.values import from_picklable, own_value, to_picklable

A = TypeVar("A")

NO_METADATA = Static({})


class Variable(VariableStorage, ValueOperators[A]):
    """A mutable box around a value, with a type and metadata; a JAX pytree with the value below.

    Subclasses are Variable types; filters select by them. A Variable acts as its value in
    arithmetic, indexing and `jax.numpy` functions.

    Args:
      value: an array, PRNG key, `ShapeDtypeStruct`, Python scalar, or a pytree of these; or a
        `VariableMetadata`, or another Variable whose value is taken.
      hijax: None or False; JAX's experimental boxes are not used by Weft.
      ref: None or False; likewise for JAX references.
      eager_sharding: whether to shard the value now by its `out_sharding`; None for the setting.
      **metadata: keyword facts. `out_sharding` names mesh axes: a tuple, a `PartitionSpec` or a
        `NamedSharding`; `sharding` is its older name.
        `on_get_value`, `on_set_value` and `on_create_value` are hooks `(variable, value) ->
        value`, `on_add_axis` and `on_remove_axis` are `(variable, index, name)`.

    Raises:
      ValueError: for `hijax=True` or `ref=True`, or if the value is a reference of JAX.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> weight = nnx.Param(jnp.zeros((2, 2)), out_sharding=("in", "out"))
      >>> weight[0, 1] = 3.0
      >>> float((weight * 2)[0, 1])
      6.0
    """

    __slots__ = ()
    required_metadata: ClassVar[frozenset[str]] = frozenset()
    _is_passing: ClassVar[bool] = False  # whether what is written may be lost

    def __init__(
        self,
        value: A | VariableMetadata[A],
        *,
        hijax: bool | None = None,
        ref: bool | None = None,
        eager_sharding: bool | None = None,
        **metadata: Any,
    ):
        check_no_reference_modes(hijax=hijax, ref=ref)
        raw: Any = value
        if isinstance(raw, VariableMetadata):
            metadata = {**raw.as_keywords(), **metadata}
            raw = raw.raw_value
        raw = pure_value(raw)
        if type(raw) is jax.Ref:  # `isinstance` takes a microsecond
            raise ValueError(
                f"{type(self).__name__} holds a value and is itself what can be written, found a "
                f"reference of JAX: give its value, `{type(self).__name__}(ref[...])`"
            )
        if eager_sharding is not None:
            metadata["eager_sharding"] = eager_sharding
        fill_variable(self, raw, with_current_names(metadata))
        set_origin(self, call_site())
        raw = _call_hooks(self, "on_create_value", self.create_value(raw))
        if "out_sharding" in self._metadata:
            raw = shard_on_creation(self, raw)
        set_raw(self, raw)

    @property
    def _raw(self) -> Any:
        """The stored value, handed out: whoever leased the array may no longer overwrite it."""
        value = self._slot
        # Read again after asking: in between another thread may have leased and donated it.
        if self._keeper is None and self._slot is value:
            return value
        return read_kept(self)

    # -- hooks for subclasses
    def create_value(self, value: A) -> A:
        """Returns the value to store when the Variable is made; override it to change it."""
        return value

    def add_axis(self, axis_index: int, axis_name: str | None) -> None:
        """Tells the Variable that a transform added an axis to its value.

        Args:
          axis_index: where the axis was put.
          axis_name: the mesh axis it is sharded over, or None.
        """

        def add(names: list, index: int) -> None:
            names.insert(index, axis_name)

        edit_axis_names(self, "out_sharding", add, axis_index, 1)
        for hook in _hooks(self, "on_add_axis"):
            hook(self, axis_index, axis_name)

    def remove_axis(self, axis_index: int, axis_name: str | None) -> None:
        """Tells the Variable that a transform removed an axis; the inverse of `add_axis`.

        Raises:
          ValueError: if the axis at that place has another name.
        """

        def remove(names: list, index: int) -> None:
            found = names[index] if 0 <= index < len(names) else None
            if names and found != axis_name:
                raise ValueError(
                    f"{type(self).__name__} has axis {found!r} at {axis_index}, "
                    f"expected {axis_name!r}; its out_sharding is {tuple(names)!r}"
                )
            del names[max(index, 0) : index + 1]

        edit_axis_names(self, "out_sharding", remove, axis_index, 0)
        for hook in _hooks(self, "on_remove_axis"):
            hook(self, axis_index, axis_name)

    # -- the value
    @overload
    def get_value(self) -> A: ...
    @overload
    def get_value(self, *, index: Any) -> Any: ...
    def get_value(self, *, index: Any = MISSING) -> Any:
        """Returns the value, through the `on_get_value` hooks.

        Args:
          index: what to index the value with; the whole value if missing.
        """
        if trace.frames.stack:
            warn_if_captured(self)
        value = self._raw
        if self._metadata or type(self)._has_hooks:
            value = _call_hooks(self, "on_get_value", value)
        if index is MISSING or (index is ... and not isinstance(value, np.ndarray)):
            return value
        return value[index]

    def set_value(self, value: Any, *, index: Any = MISSING) -> None:
        """Replaces the value, through the `on_set_value` hooks.

        Args:
          value: the new value; a Variable stands for its value.
          index: which part of the value to replace; all of it if missing.

        Raises:
          TraceContextError: if the Variable belongs to another trace.
        """
        check_write(self)
        if isinstance(value, Variable):
            value = own_value(value.get_value())
        if index is not MISSING:
            value = with_item(self, index, value)
        if self._metadata or type(self)._has_hooks:
            value = _call_hooks(self, "on_set_value", value)
        set_raw(self, value)

    def get_raw_value(self) -> A:
        """Returns the stored value without calling hooks."""
        return self._raw

    def set_raw_value(self, value: A) -> None:
        """Stores a value without calling hooks.

        Raises:
          TraceContextError: if the Variable belongs to another trace.
        """
        check_write(self)
        set_raw(self, value)

    @property
    def value(self) -> A:
        """The value, through the hooks; the same as `v[...]`."""
        return self.get_value()

    @value.setter
    def value(self, value: A | Variable[A]) -> None:
        self.set_value(value)

    @property
    def raw_value(self) -> A:
        """The stored value, as `get_raw_value` returns it."""
        return self._raw

    # -- metadata
    @property
    def type(self) -> type:
        """The Variable's type."""
        return type(self)

    var_type = type

    @property
    def hijax(self) -> bool:
        """Always False, as Weft does not use JAX's experimental boxes."""
        return False

    @property
    def ref(self) -> bool:
        """Always False, as Weft does not use JAX references."""
        return False

    @property
    def sharding_names(self) -> Any:
        """The `out_sharding` metadata under its older name."""
        return self._metadata.get("out_sharding")

    def get_metadata(
        self,
        name: str | None = None,
        default: Any = MISSING,
        *,
        exclude_required: bool | None = None,
    ) -> Any:
        """Returns one entry of the metadata, or a copy of all of it.

        Args:
          name: which entry; None for all of them.
          default: what to return where there is no such entry.
          exclude_required: accepted for compatibility; Weft stores no required entries.

        Raises:
          KeyError: if there is no such entry and no default.
        """
        if name is None:
            return dict(self._metadata)
        value = self._metadata.get(current_name(name), default)
        if isinstance(value, Missing):
            raise KeyError(
                f"{type(self).__name__} has no metadata {name!r}; it has {sorted(self._metadata)}"
            )
        return value

    def set_metadata(self, *args: Any, **kwargs: Any) -> None:
        """Sets metadata: `(name, value)`, keywords to add, or one dict that replaces all.

        Raises:
          TypeError: for other arguments.
          TraceContextError: if the Variable belongs to another trace.
        """
        is_name_alone = len(args) == 1 and not isinstance(args[0], Mapping)
        if len(args) > 2 or is_name_alone or (args and kwargs):
            raise TypeError(
                "set_metadata takes one dict, a name and a value, or keywords: "
                "`v.set_metadata(tag='a')`"
            )
        check_write(self)
        new: dict[str, Any]
        if len(args) == 1:
            new = with_current_names(args[0])
        else:
            named = dict([args]) if args else kwargs
            new = {**self._metadata, **with_current_names(named)}
        set_metadata_dict(self, new)

    def has_metadata(self, name: str) -> bool:
        """Returns whether the metadata has an entry of this name."""
        return current_name(name) in self._metadata

    def del_metadata(self, name: str) -> None:
        """Deletes an entry of the metadata.

        Raises:
          KeyError: if there is no such entry.
        """
        check_write(self)
        self.get_metadata(name)
        name = current_name(name)
        kept = {k: v for k, v in self._metadata.items() if k != name}
        set_metadata_dict(self, kept)

    # -- copies
    def copy(self, value: Any = MISSING, **updates: Any) -> Self:
        """Returns a new Variable of the same type, with other value or metadata where given."""
        raw = pure_value(self if value is MISSING else value)
        return make(type(self), raw, {**self._metadata, **with_current_names(updates)})

    replace = copy
    to_state = copy

    def copy_from(self, other: Variable[A]) -> None:
        """Takes value and metadata of another Variable of the same type.

        Raises:
          ValueError: if the types differ.
          TraceContextError: if this Variable belongs to another trace.
        """
        if type(self) is not type(other):
            raise ValueError(
                f"expected a {type(self).__name__} to copy from, found a {type(other).__name__}"
            )
        self.update_from_state(other)

    def update_from_state(self, variable_state: Variable[A]) -> None:
        """Takes value and metadata of a Variable of a State, whatever its type."""
        check_write(self)
        set_metadata_dict(self, dict(variable_state._metadata))
        set_raw(self, pure_value(variable_state))

    @classmethod
    def from_metadata(cls, value: A, attributes: Mapping[str, Any]) -> Self:
        """Builds a Variable from a raw value and its metadata, without calling hooks."""
        return make(cls, value, dict(attributes))

    # -- attributes of the value
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in VariableStorage.__slots__:
            raise AttributeError(name)
        surface(self, name)
        metadata = self._metadata
        if name in metadata:
            return metadata[name]
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        value = self.get_value()
        try:
            return getattr(value, name)
        except AttributeError:
            advice = f": {VARIABLE[name]}" if name in VARIABLE else ""
            raise AttributeError(
                f"{type(self).__name__} has no attribute or metadata {name!r}, nor has its value "
                f"of type {type(value).__name__}; its metadata is {sorted(metadata)}{advice}"
            ) from None

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(getattr(type(self), name, None), property):
            object.__setattr__(self, name, value)
            return
        raise AttributeError(
            f"cannot set attribute {name!r} of a {type(self).__name__}: write the value with "
            f"`v[...] = x` and metadata with `v.set_metadata({name}=x)`"
        )

    def __delattr__(self, name: str) -> None:
        raise AttributeError(
            f"cannot delete attribute {name!r} of a {type(self).__name__}: delete metadata with "
            f"`v.del_metadata({name!r})`"
        )

    # -- copying and pickling
    def __getstate__(self) -> dict[str, Any]:
        return {"value": to_picklable(self._raw), "metadata": self._metadata}

    def __setstate__(self, state: dict[str, Any]) -> None:
        fill_variable(self, from_picklable(state["value"]), state["metadata"])

    def __reduce_ex__(self, protocol: Any) -> Any:
        if type(self).__reduce__ is not object.__reduce__:
            return self.__reduce__()
        return (object.__new__, (type(self),), self.__getstate__())

    def __nnx_repr__(self) -> Iterator[Any]:
        from weft._core.repr import Attr, Object

        yield Object(type(self))
        yield Attr("", self._raw, path_key="value")
        for name, value in self._metadata.items():
            yield Attr(name, value)

    _has_hooks: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._has_hooks = any(hasattr(cls, name) for name in HOOKS)
        _register(cls)


is_variable: Callable[[Any], bool] = Variable.__instancecheck__
"""Returns whether something is a Variable; runs in C."""


def pure_value(leaf: Any) -> Any:
    """Returns the raw value of a Variable, in containers of its own, and anything else as it is."""
    return own_value(leaf._raw) if isinstance(leaf, Variable) else leaf


def raw_value(leaf: Any) -> Any:
    """Returns the raw value of a Variable, and anything else as it is."""
    return leaf.get_raw_value() if isinstance(leaf, Variable) else leaf


def check_no_reference_modes(**modes: bool | None) -> None:
    """Raises for `hijax=True` and `ref=True`, which change what a Variable is in the peer."""
    for name, value in modes.items():
        if value:
            raise ValueError(
                f"{name}=True is not supported: a Weft Variable is always a plain Python box, and "
                f"the transforms of Weft write updates back; leave out `{name}=`"
            )


def _hooks(variable: Variable, name: str) -> tuple[Callable, ...]:
    hooks = variable._metadata.get(name, ())
    return hooks if isinstance(hooks, tuple) else (hooks,) if callable(hooks) else tuple(hooks)


def _call_hooks(variable: Variable, name: str, value: Any) -> Any:
    if hasattr(type(variable), name):
        value = getattr(type(variable), name)(variable, value)
    for hook in _hooks(variable, name):
        value = hook(variable, value)
    return value


def edit_axis_names(
    variable: Variable, key: str, edit: Callable[[list, int], None], axis_index: int, added: int
) -> None:
    """Changes an entry of the metadata that says something of each axis, if there is one.

    Args:
      variable: the Variable.
      key: the entry.
      edit: is given a list of what the entry says, and where to change it.
      axis_index: the axis, from the end if negative.
      added: how many axes come to it.
    """
    names = variable._metadata.get(key)
    if names is None:
        return
    check_write(variable)
    listed = list(axis_names(names))
    if axis_index < 0:
        axis_index += len(listed) + added
    while added and len(listed) < axis_index:  # axes that are not named are not sharded
        listed.append(None)
    edit(listed, axis_index)
    edited = with_axis_names(names, listed)
    set_metadata_dict(variable, {**variable._metadata, key: edited})


# -- pytree
def metadata_key(variable: Variable) -> Static:
    """Returns the metadata as a static value."""
    return Static(variable._metadata) if variable._metadata else NO_METADATA


def _flatten(variable: Variable) -> tuple[tuple[Any, ...], Static | None]:
    raw = variable._slot
    if variable._keeper is not None or variable._slot is not raw:  # as `Variable._raw`
        raw = read_kept(variable)
    return (raw,), metadata_key(variable) if variable._metadata else None


def _flatten_with_keys(variable: Variable) -> tuple[tuple[Any, ...], Static | None]:
    (raw,), metadata = _flatten(variable)
    return ((VALUE, raw),), metadata


def _register(kind: type[Variable]) -> None:
    def unflatten(metadata: Static | None, children: Iterable[Any]) -> Variable:
        (raw,) = children
        own = (NO_METADATA if metadata is None else metadata).value
        (made,) = make_variables((kind,), (raw,), (own,))
        if isinstance(raw, Tracer):
            note_loan(made)
        return made

    jtu.register_pytree_with_keys(kind, _flatten_with_keys, unflatten, _flatten)
    register_export(
        kind,
        lambda metadata: {} if metadata is None else metadata.value,
        lambda metadata, children: make(kind, children[0], metadata),
    )


_register(Variable)
compare_by_identity(Variable)
