"""`shard_map`: one group of leaves per PartitionSpec.

The keys of the groups are what JAX is given as `in_specs` and `out_specs`.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, Unpack, overload

import jax

from weft._core.arguments import as_tuple, check_arrays
from weft._core.errors import PrefixError
from weft._core.path import format_path
from weft._core.types import MISSING, Missing
from weft._lift.jit.spec import Call
from weft._lift.lift import mode_of
from weft._lift.lifted import lifted
from weft._lift.map import MapLift

if TYPE_CHECKING:
    from weft._lift.options import ShardMapOptions  # pyright: ignore[reportMissingModuleSource]

P = ParamSpec("P")
R = TypeVar("R")


class ShardLift(MapLift):
    """A lift whose prefixes are PartitionSpecs."""

    options = ("in_specs", "out_specs")


@overload
def shard_map(f: Callable[P, R], **options: Unpack[ShardMapOptions]) -> Callable[P, R]: ...
@overload
def shard_map(
    f: Missing = ..., **options: Unpack[ShardMapOptions]
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
def shard_map(
    f: Any = MISSING,
    *,
    mesh: Any = None,
    in_specs: Any,
    out_specs: Any,
    axis_names: Any = frozenset(),
    check_vma: bool = True,
    graph: bool | None = None,
    graph_updates: bool | None = None,
) -> Any:
    """Maps a function over the shards of its arguments.

    Args:
      f: the function. If missing, a decorator with the options is returned.
      mesh: the mesh; None for the one that is set.
      in_specs: PartitionSpec of each positional argument, a container of them, or a
        `StateSharding` of them for an object. Keyword-only arguments are not split.
      out_specs: likewise, of what is returned.
      axis_names: the mesh axes to map over; all if empty.
      check_vma: as for `jax.shard_map`.
      graph: False to refuse shared references; None for the setting.
      graph_updates: False to write back Variables only; None for the setting.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import weft as nnx
      >>> mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
      >>> P = jax.sharding.PartitionSpec
      >>> model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
      >>> forward = nnx.shard_map(
      ...     lambda m, x: m(x), mesh=mesh, in_specs=(P(), P("data")), out_specs=P("data")
      ... )
      >>> forward(model, jnp.ones((4, 2))).shape
      (4, 3)
    """
    options = {"mesh": mesh, "axis_names": axis_names, "check_vma": check_vma}
    options = {name: value for name, value in options.items() if value is not None}
    whole = jax.sharding.PartitionSpec()

    mode = mode_of(graph, graph_updates)

    def make(function: Callable[..., Any], bound: int) -> ShardLift:
        lift = ShardLift(function, "shard_map", mode, in_specs, out_specs, {}, bound, kw_axes=whole)
        lift.check_keys(jax.sharding.PartitionSpec, "PartitionSpecs")
        return lift

    def apply(lift: ShardLift, call: Call) -> Any:
        _check_shards(call, lift, mesh)
        mapped = functools.partial(
            jax.shard_map,
            in_specs=tuple(whole if key is None else key for key in lift.in_keys),
            out_specs=([whole if key is None else key for key in lift.out_keys], whole),
            **options,
        )
        return lift.run_mapped(call, lift.map(call.spec, mapped))

    return lifted(f, make, apply)


def _check_shards(call: Call, lift: ShardLift, mesh: Any) -> None:
    """Raises unless every array can be split as its PartitionSpec says.

    Raises:
      PrefixError: naming the path.
      TypeError: for what is no array.
    """
    check_arrays(lift.transform, lift.name, call.entries)
    sizes = (jax.sharding.get_abstract_mesh() if mesh is None else mesh).shape
    for key in (*lift.in_keys, *lift.out_keys):
        unknown = [name for name in itertools.chain(*map(as_tuple, key or ())) if name not in sizes]
        if unknown:
            raise PrefixError(
                f"nnx.shard_map of {lift.name!r}: {key!r} names the axis {unknown[0]!r}, but the "
                f"mesh has {', '.join(map(repr, sizes)) or 'none'}:{lift.signature()}"
            )
    for path, value, spec in call.entries:
        for leaf in jax.tree.leaves(value) if spec else ():
            shape = jax.numpy.shape(leaf)
            if len(spec) > len(shape):
                raise PrefixError(
                    f"nnx.shard_map of {lift.name!r} splits {format_path(path)} as {spec!r}, but "
                    f"its shape is {shape}:{lift.signature()}"
                )
            for length, names in zip(shape, map(as_tuple, spec), strict=False):
                number = math.prod(sizes[name] for name in names)
                if length % number:
                    raise PrefixError(
                        f"nnx.shard_map of {lift.name!r} splits {format_path(path)} of shape "
                        f"{shape} as {spec!r} into {number} parts, which {length} cannot be "
                        f"divided by. Pad it, or split another axis:{lift.signature()}"
                    )
