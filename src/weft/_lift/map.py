"""`vmap` and `pmap`: one group of leaves per axis.

The keys of the groups are what JAX is given as `in_axes` and `out_axes`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar, Unpack, overload

import jax

from weft._core.arguments import check_arrays, parameters_of, signature_beside
from weft._core.errors import PrefixError
from weft._core.path import Path, format_path
from weft._core.tracebacks import boundary
from weft._core.types import MISSING, Missing
from weft._graph import prefix as prefixes
from weft._graph.records import watched_in
from weft._graph.snapshot import Snapshot, snapshot_of
from weft._lift.carry import check_arrays_out
from weft._lift.jit.spec import Call, Exit, Groups, Spec
from weft._lift.lift import Lift, Mode, mode_of, outcome, value_from
from weft._lift.lifted import lifted
from weft._lift.naming import names_in, shown_as
from weft._module.capture import TAPS
from weft._variable.variable import Variable, edit_axis_names

if TYPE_CHECKING:
    from weft._lift.options import (  # pyright: ignore[reportMissingModuleSource]
        PmapOptions,
        TransformMetadataOptions,
        VmapOptions,
    )

P = ParamSpec("P")
R = TypeVar("R")

PARTITION_NAME = "partition_name"
_MOST_STRUCTURES = 256  # per function of `pmap`


class StateAxes(prefixes.FilteredPrefix):
    """Axes by filter, for `in_axes` and `out_axes` of an object.

    Args:
      filter_axes: a mapping from filters to axes (an int, None, or `nnx.Carry` in `scan`), or
        pairs; the first match decides.

    Example:
      >>> import weft as nnx
      >>> nnx.StateAxes({nnx.Param: 0, ...: None}).axes
      (0, None)
    """

    @property
    def axes(self) -> tuple[Any, ...]:
        """The axes, in the order of their filters."""
        return self._prefixes


class AxisNames:
    """Removes the mapped axis from the sharding metadata going in, and adds it coming out.

    Entries of other names that `transform_metadata` has are treated likewise, where a Variable has
    a tuple there.
    """

    def __init__(self, transform_metadata: Mapping[str, Any]):
        self.name = transform_metadata.get(PARTITION_NAME)
        self.others = {k: x for k, x in transform_metadata.items() if k != PARTITION_NAME}

    def going_in(self, variable: Variable, axis: Any) -> None:
        if isinstance(axis, int):
            variable.remove_axis(axis, self.name)
            self._edit_others(variable, lambda names, i, _: names.__delitem__(i), axis, 0)

    def coming_out(self, variable: Variable, axis: Any) -> None:
        if isinstance(axis, int):
            variable.add_axis(axis, self.name)
            self._edit_others(variable, list.insert, axis, 1)

    def _edit_others(
        self, variable: Variable, edit: Callable[[list, int, Any], None], axis: int, added: int
    ) -> None:
        for key, name in self.others.items():
            if isinstance(variable._metadata.get(key), tuple):
                edit_axis_names(variable, key, lambda x, i, n=name: edit(x, i, n), axis, added)


def axis_names(transform_metadata: Mapping[str, Any]) -> AxisNames | None:
    """Returns what keeps axis names right, None where nobody asked for it."""
    return AxisNames(transform_metadata) if PARTITION_NAME in transform_metadata else None


class AxesLift(Lift):
    """A lift whose prefixes are axes, or the like, given by two options."""

    options = ("in_axes", "out_axes")

    def signature(self) -> str:
        """Returns the function's signature beside the axes, for errors."""
        options = dict(zip(self.options, (self.in_prefix, self.out_prefix), strict=True))
        return signature_beside(self.f, self.name, self.bound, **options)

    def check_ranks(self, spec: Spec, groups: Groups, exit: Exit) -> None:
        """Raises if an output has not as many axes as its prefix needs.

        Raises:
          PrefixError: naming the output and the shape of one slice of it.
        """
        remaining = [iter(group) for group in groups]
        for (path, treedef), group in zip(outcome(spec, exit), exit.grouping, strict=True):
            key = self.out_keys[group]
            for leaf in jax.tree.leaves(value_from(treedef, remaining[group])):
                rank = getattr(leaf, "ndim", 0)
                is_axis = isinstance(key, int)  # of one more axis than there is inside
                needed = len(key) if hasattr(key, "__len__") else 0
                fits = -rank - 1 <= key <= rank if is_axis else needed <= rank
                if not fits:
                    what = f"over axis {key}" if is_axis else f"as {key!r} says"
                    raise PrefixError(
                        f"nnx.{self.transform} of {self.name!r} puts {format_path(path)} together "
                        f"{what}, but one slice of it has the shape "
                        f"{tuple(leaf.shape) if rank else ()}:{self.signature()}"
                    )


def check_axes(
    call: Call, lift: AxesLift, length: int | None = None, option: str = "axis_size"
) -> int | None:
    """Raises where a leaf lacks the axis that it is mapped over, or lengths differ.

    Args:
      call: the call.
      lift: its lift.
      length: the length that was given beside the arguments.
      option: the name that it has there.

    Returns:
      The length, None where nothing is mapped.

    Raises:
      PrefixError: naming the paths; for random streams, the line that splits them.
      TypeError: for what is no array.
    """
    check_arrays(lift.transform, lift.name, call.entries)
    lengths: dict[int, str] = {} if length is None else {length: f"`{option}`"}
    for path, value, axis in call.entries:
        if not isinstance(axis, int) or isinstance(axis, bool):
            continue
        for leaf in jax.tree.leaves(value):
            shape = getattr(leaf, "shape", ())
            if not -len(shape) <= axis < len(shape):
                raise PrefixError(_missing_axis(lift, path, value, axis, shape))
            lengths.setdefault(shape[axis], format_path(path))
    if len(lengths) > 1:
        found = ", ".join(f"{where} has {number}" for number, where in lengths.items())
        raise PrefixError(
            f"nnx.{lift.transform} of {lift.name!r} maps over axes of different lengths: {found}. "
            + _remedy_of_lengths(call, lift, next(iter(lengths)))
            + ("" if length is None else f", and leave out `{option}` if that is wrong")
            + f":{lift.signature()}"
        )
    return next(iter(lengths), None)


def _remedy_of_lengths(call: Call, lift: AxesLift, length: int) -> str:
    """Says what may be done where a leaf has another length than the first one."""
    for path, value, axis in call.entries:
        shapes = [leaf.shape for leaf in jax.tree.leaves(value)] if type(axis) is int else []
        shape = next((shape for shape in shapes if shape[axis] != length), None)
        if shape is None:
            continue
        where = format_path(path)
        none = f"None if it is not mapped{_code_of_axes(lift, path, None)}"
        if length in shape:
            fitting = shape.index(length)
            code = _code_of_axes(lift, path, fitting)
            return f"Give {where} the axis {fitting}, which has {length}{code}, or {none}"
        return f"Give {where} the length {length} along its axis {axis}, or the axis {none}"
    return "Give what is not mapped the axis None"


def _code_of_axes(lift: AxesLift, path: Path, axis: int | None) -> str:
    """Returns the option with another axis for an argument, as code; nothing if it is unclear."""
    option, given = lift.options[0], lift.in_prefix
    names = parameters_of(lift.f)[0][lift.bound :]
    if len(path) != 1 or path[0] not in names or type(given) not in (int, tuple):
        return ""
    axes = list(given) if isinstance(given, tuple) else [given] * len(names)
    at = names.index(path[0])
    if at >= len(axes) or type(axes[at]) is not int or not all(_is_plain(x) for x in axes):
        return ""
    axes[at] = axis
    return f", `{option}=({', '.join(map(repr, axes))}{',' * (len(axes) == 1)})`"


def _is_plain(axis: Any) -> bool:
    """Says whether an axis is shown as the code that makes it."""
    return axis is None or type(axis) is int


def _missing_axis(lift: AxesLift, path: Any, value: Any, axis: int, shape: Any) -> str:
    where = format_path(path)
    text = (
        f"nnx.{lift.transform} of {lift.name!r} maps {where} over axis {axis}, but its shape is "
        f"{tuple(shape)}"
    )
    if isinstance(value, Variable) and type(value).__name__ in ("RngKey", "RngCount"):
        stream = value._metadata.get("tag", "default")
        return (
            f"{text}: the random stream {stream!r} has one key for all. Split it, one key for "
            f"each: decorate with `@nnx.split_rngs(splits=N)` above `@nnx.{lift.transform}`, or "
            f"share it with `in_axes=nnx.StateAxes({{nnx.RngState: None, ...: {axis}}})`"
        )
    carried = ", or nnx.Carry if it is carried" if lift.transform == "scan" else ""
    return (
        f"{text}. Give it the axis None{carried}, or stack what belongs together:{lift.signature()}"
    )


def _name_of_written(path: Path) -> str:
    if TAPS not in path:
        return format_path(path)
    return f"what {format_path(path[: path.index(TAPS)])} sows"


class Mapped(NamedTuple):
    """A function of the groups, mapped by JAX.

    Attributes:
      function: the function.
      exits: of its traces.
      snapshots: of the static values that went in and came out, where these can change in place.
    """

    function: Callable[..., Any]
    exits: list[Exit]
    snapshots: list[Snapshot | None]

    def holds(self) -> bool:
        """Returns whether these static values are as they were, so that it may be used again."""
        return all(snapshot is None or snapshot.holds() for snapshot in self.snapshots)


class MapLift(AxesLift):
    """The lift of what maps a function over slices or shards."""

    def __init__(
        self,
        f: Callable[..., Any],
        transform: str,
        mode: Mode,
        in_axes: Any,
        out_axes: Any,
        transform_metadata: Mapping[str, Any],
        bound: int = 0,
        kw_axes: Any = 0,
    ):
        super().__init__(
            f,
            transform,
            mode,
            in_prefix=in_axes,
            out_prefix=out_axes,
            kw_prefix=kw_axes,
            check_outputs=True,
            axis_names=axis_names(transform_metadata),
            bound=bound,
        )

    def check_keys(self, kind: type, what: str) -> None:
        """Raises if a prefix is neither of a kind nor None."""
        for key in (*self.in_keys, *self.out_keys):
            if key is not None and (not isinstance(key, kind) or isinstance(key, bool)):
                raise TypeError(
                    f"nnx.{self.transform} of {self.name!r} takes {what} or None, found {key!r}:"
                    f"{self.signature()}"
                )

    def map(self, spec: Spec, transform: Callable[..., Callable[..., Any]]) -> Mapped:
        """Returns the mapped function for one structure of arguments."""
        exits: list[Exit] = []
        snapshots = [snapshot_of(watched_in(spec.record))]

        def pure(*groups: list[Any]) -> Any:  # JAX may keep it: it must not hold a call
            out = self.pure(spec, *groups)
            check_arrays_out(self, spec, out[1], out[0])
            self.check_ranks(spec, *out)
            exits.append(out[1])
            snapshots.append(snapshot_of(out[1].watched))
            return out

        function = transform(shown_as(self.f, pure, lambda args: names_in(spec)))
        return Mapped(function, exits, snapshots)

    def run_mapped(self, call: Call, mapped: Mapped) -> Any:
        """Calls the mapped function; errors of JAX about its outputs name the user's.

        Raises:
          PrefixError: for outputs that have not the axis, or the rank, that they are said to have.
        """
        exits = mapped.exits
        try:
            return self.leave(call, *mapped.function(*call.groups))
        except PrefixError:
            raise
        except ValueError as error:
            if exits and ("out_axes" in str(error) or "out_specs" in str(error)):
                raise PrefixError(self._unmapped_outputs(call, exits[-1])) from None
            raise

    def _unmapped_outputs(self, call: Call, exit: Exit) -> str:
        spots = call.spec.spots
        shared = [w.index for w in exit.written if not isinstance(spots[w.index].prefix, int)]
        names = ", ".join(dict.fromkeys(_name_of_written(spots[index].path) for index in shared))
        kinds = {type(call.objects[index]).__name__ for index in shared} or {"BatchStat"}
        axes = ", ".join(f"nnx.{kind}: 0" for kind in sorted(kinds))
        return (
            f"nnx.{self.transform} of {self.name!r}: a value with the mapped axis is "
            + (f"written to {names}, shared by all slices. " if names else "returned as shared. ")
            + f"Map it (`nnx.StateAxes({{{axes}, ...: None}})`, `out_axes=0`), write a "
            "value that is the same for all, or reduce it first: `jax.lax.pmean(x, axis_name)`"
            + ("; `check_vma=False` trusts you" if self.transform == "shard_map" else "")
        )


@overload
def vmap(f: Callable[P, R], **options: Unpack[VmapOptions]) -> Callable[P, R]: ...
@overload
def vmap(
    f: Missing = ..., **options: Unpack[VmapOptions]
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
@boundary
def vmap(
    f: Any = MISSING,
    *,
    in_axes: Any = 0,
    out_axes: Any = 0,
    axis_name: Any = None,
    axis_size: int | None = None,
    spmd_axis_name: Any = None,
    transform_metadata: Mapping[str, Any] = {},
    graph: bool | None = None,
    graph_updates: bool | None = None,
) -> Any:
    """Vectorizes a function of objects and arrays; objects made inside come out stacked.

    Args:
      f: the function. If missing, a decorator with the options is returned.
      in_axes: axis of each positional argument: an int, None, a container of axes, or a
        `StateAxes` for an object. Keyword arguments have the axes of their parameters,
        keyword-only ones are mapped over axis 0.
      out_axes: likewise, of what is returned.
      axis_name: name of the axis for collectives.
      axis_size: length of the axis, where no argument has it.
      spmd_axis_name: as for `jax.vmap`.
      transform_metadata: `{nnx.PARTITION_NAME: name}` keeps sharding metadata right.
      graph: False to refuse shared references; None for the setting.
      graph_updates: False to write back Variables only; None for the setting.

    Raises:
      PrefixError: if axes do not fit the arguments; random streams must be split first.
      AliasError: if one Variable is mapped in two ways.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> @nnx.split_rngs(splits=3)
      ... @nnx.vmap
      ... def ensemble(rngs):
      ...     return nnx.Linear(2, 1, rngs=rngs)
      >>> models = ensemble(nnx.Rngs(0))
      >>> nnx.vmap(lambda m, x: m(x), in_axes=(0, None))(models, jnp.ones((5, 2))).shape
      (3, 5, 1)
    """

    mode = mode_of(graph, graph_updates)

    def make(function: Callable[..., Any], bound: int) -> MapLift:
        lift = MapLift(function, "vmap", mode, in_axes, out_axes, transform_metadata, bound)
        lift.check_keys(int, "axes, as ints,")
        return lift

    def apply(lift: MapLift, call: Call) -> Any:
        check_axes(call, lift, axis_size)
        mapped = functools.partial(
            jax.vmap,
            in_axes=tuple(lift.in_keys),
            out_axes=(list(lift.out_keys), None),
            axis_name=axis_name,
            axis_size=axis_size,
            spmd_axis_name=spmd_axis_name,
        )
        return lift.run_mapped(call, lift.map(call.spec, mapped))

    return lifted(f, make, apply)


@overload
def pmap(f: Callable[P, R], **options: Unpack[PmapOptions]) -> Callable[P, R]: ...
@overload
def pmap(
    f: Missing = ..., **options: Unpack[PmapOptions]
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
@boundary
def pmap(
    f: Any = MISSING,
    *,
    axis_name: Any = None,
    in_axes: Any = 0,
    out_axes: Any = 0,
    static_broadcasted_argnums: int | Iterable[int] = (),
    devices: Sequence[Any] | None = None,
    backend: str | None = None,
    axis_size: int | None = None,
    donate_argnums: int | Iterable[int] = (),
    transform_metadata: Mapping[str, Any] = {},
    graph: bool | None = None,
    graph_updates: bool | None = None,
) -> Any:
    """Maps a function over devices, one slice each; `shard_map` is its successor in JAX.

    It is compiled once for each structure of the arguments and their shapes, as by `nnx.jit`.

    Args:
      f: the function. If missing, a decorator with the options is returned.
      axis_name: name of the axis for collectives.
      in_axes: as for `vmap`.
      out_axes: as for `vmap`.
      static_broadcasted_argnums: positions of static arguments.
      devices: the devices, in order.
      backend: the backend's name.
      axis_size: length of the axis.
      donate_argnums: accepted for compatibility; arrays are not donated.
      transform_metadata: as for `vmap`.
      graph: False to refuse shared references; None for the setting.
      graph_updates: False to write back Variables only; None for the setting.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import weft as nnx
      >>> model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
      >>> x = jnp.ones((jax.local_device_count(), 4, 2))
      >>> y = nnx.pmap(lambda m, x: m(x), in_axes=(None, 0))(model, x)
      >>> y.shape[1:]
      (4, 3)
    """
    options = {"axis_name": axis_name, "devices": devices, "backend": backend}
    options |= {} if axis_size is None else {"axis_size": axis_size}

    mode = mode_of(graph, graph_updates)

    def make(function: Callable[..., Any], bound: int) -> DeviceLift:
        lift = DeviceLift(function, "pmap", mode, in_axes, out_axes, transform_metadata, bound)
        lift.check_keys(int, "axes, as ints,")
        return lift

    def apply(lift: DeviceLift, call: Call) -> Any:
        length = check_axes(call, lift, axis_size)
        number = len(jax.local_devices(backend=backend) if devices is None else devices)
        if length is not None and length > number:
            raise PrefixError(
                f"nnx.pmap of {lift.name!r} maps over {length} slices, one for each device, "
                f"but there are {number} devices:{lift.signature()}"
            )
        # One for each array: `jax.pmap` forgets an axis where another list is empty.
        keys = zip(lift.in_keys, call.groups, strict=True)
        axes = tuple([key] * len(group) for key, group in keys)
        mapped = functools.partial(
            jax.pmap, in_axes=axes, out_axes=(list(lift.out_keys), None), **options
        )
        try:
            return lift.run_mapped(call, lift.map(call.spec, mapped))
        except jax.errors.JAXTypeError as error:
            _name_arguments(error, names_in(call.spec))
            raise

    option = "static_broadcasted_argnums"
    return lifted(f, make, apply, static=static_broadcasted_argnums, option=option)


class DeviceLift(MapLift):
    """The lift of `pmap`, which compiles: it keeps what it mapped, by structure."""

    def __init__(self, *args: Any):
        super().__init__(*args)
        self._kept: dict[Spec, Mapped] = {}

    def map(self, spec: Spec, transform: Callable[..., Callable[..., Any]]) -> Mapped:
        found = self._kept.get(spec)
        if found is None or not found.holds():
            if len(self._kept) >= _MOST_STRUCTURES:
                self._kept.clear()
            self._kept.pop(spec, None)  # its key holds static values, too
            found = self._kept[spec] = super().map(spec, transform)
        return found


def _name_arguments(error: Exception, names: list[str]) -> None:
    """Puts the paths of arguments into an error of `jax.pmap`, which counts them."""
    numbered = re.compile(r"\bflat_args\[(\d+)\]")
    text = numbered.sub(lambda found: names[int(found[1])], str(error.args[0]))
    error.args = (text, *error.args[1:])


@overload
def transform_metadata(
    f: Callable[P, R], **options: Unpack[TransformMetadataOptions]
) -> Callable[P, R]: ...
@overload
def transform_metadata(
    f: Missing = ..., **options: Unpack[TransformMetadataOptions]
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
def transform_metadata(
    f: Any = MISSING,
    *,
    in_axes: Any = 0,
    out_axes: Any = 0,
    partition: Any,
    graph: bool | None = None,
) -> Any:
    """Returns a function that sees Variables without an axis name, and returns them with it.

    For use inside `jax.vmap` and the like, which do not know of sharding metadata.

    Args:
      f: the function. If missing, a decorator with the options is returned.
      in_axes: axis of each positional argument, as for `vmap`.
      out_axes: likewise, of what is returned.
      partition: the mesh axis of the mapped axis.
      graph: False to refuse shared references; None for the setting.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> make = lambda x: nnx.Param(x, out_sharding=("a",))
      >>> nnx.transform_metadata(make, partition="layers")(jnp.ones(2)).out_sharding
      ('layers', 'a')
    """

    given = ("transform_metadata", mode_of(graph, None), in_axes, out_axes)
    names = {PARTITION_NAME: partition}
    return lifted(
        f,
        lambda function, bound: MapLift(function, *given, names, bound),
        lambda lift, call: lift.leave(call, *lift.pure(call.spec, *call.groups)),
    )
