"""Filling a model: weights are read one after another, and come to their devices at once.

What is a layer of a Stack is written into the array of all layers, on each device its part of it:
so never more than one weight is in memory besides the model.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from weft._core.errors import StructureError
from weft._core.path import Path, format_path
from weft._saving.facts import fact_of
from weft._saving.leaves import Objects
from weft._saving.place import place, sharding_of
from weft._saving.shards import box_of
from weft.tools.weights.layout import Slot
from weft.tools.weights.links import Link
from weft.tools.weights.source import Source, check_not_traced

_ROOT = "model"


def fill(
    model: Any, links: Iterable[Link], source: Source, dtype_of: Callable[[Slot], Any]
) -> None:
    """Writes weights into a model, all of them or, if one cannot be read, none.

    Args:
      model: the model.
      links: which arrays are which weights.
      source: the arrays.
      dtype_of: says what dtype a weight gets.

    Raises:
      StructureError: if an array cannot be converted, or an integer is too large.
      TypeError: if the model is traced.
      CheckpointError: if a file is damaged.
    """
    objects = Objects({_ROOT: model})
    for path, value in objects.leaves.items():
        check_not_traced(format_path(path[1:]), value)
    olds = objects.placed()
    # Leaf by leaf: of a Stack all layers of one Variable after another, so that few are begun.
    ordered = sorted(links, key=lambda link: str(link.slots[0].leaf))
    counts: dict[Path, int] = {}
    for slot in (slot for link in ordered for slot in link.slots):
        counts[slot.leaf] = counts.get(slot.leaf, 0) + 1
    begun: dict[Path, _Layers] = {}
    values: dict[Path, Any] = {}
    for link in ordered:
        for slot, weight in zip(link.slots, read(link, source), strict=True):
            path, dtype = (_ROOT, *slot.leaf), dtype_of(slot)
            _check_range(slot, weight, dtype)
            if not slot.index:
                own = np.array(weight, dtype, order="C")
                fact = fact_of(path, own)
                values[path] = place(own, fact, olds[path], fact)
                continue
            if slot.leaf not in begun:
                begun[slot.leaf] = _Layers(slot, olds[path], dtype, counts[slot.leaf])
            begun[slot.leaf].put(slot.index, weight)
            counts[slot.leaf] -= 1
            if not counts[slot.leaf]:
                values[path] = begun.pop(slot.leaf).joined()
    objects.write(values)


def read(link: Link, source: Source) -> list[np.ndarray]:
    """Returns the weights of a link, in the order of its slots.

    Raises:
      StructureError: if the arrays cannot be converted.
    """
    arrays = [source.read(name) for name in link.sources if name is not None]
    try:
        return link.load(arrays)
    except (ValueError, TypeError, IndexError) as error:
        raise StructureError(
            f"{', '.join(map(str, link.sources))} of {source.where} cannot become "
            f"{', '.join(map(str, link.slots))}, and nothing was written: {error}"
        ) from error


def _check_range(slot: Slot, weight: np.ndarray, dtype: Any) -> None:
    """Raises for integers that another dtype does not have: it would make others of them."""
    if not jnp.issubdtype(dtype, jnp.integer) or dtype == weight.dtype or not weight.size:
        return
    limits, least, most = jnp.iinfo(dtype), weight.min(), weight.max()
    if least < limits.min or most > limits.max:
        raise StructureError(
            f"{slot} is {np.dtype(dtype)}, which has no {least if least < limits.min else most}, "
            "and nothing was written: give it a wider dtype in the model, or make it smaller by a "
            "rule, `nnx.Into(..., load=...)`"
        )


class _Layers:
    """The array of all layers of a Stack, while they are put into it.

    Args:
      slot: one of the layers.
      old: the leaf that it replaces, which may be abstract.
      dtype: the dtype.
      count: how many layers come.

    Raises:
      StructureError: if not all come, and the others have no value.
    """

    def __init__(self, slot: Slot, old: Any, dtype: Any, count: int):
        expected = math.prod(old.shape[: len(slot.index)])
        if count < expected and isinstance(old, jax.ShapeDtypeStruct):
            raise StructureError(
                f"{format_path(slot.leaf)} is of {expected} layers in an abstract model, of which "
                f"the source has {count}, and nothing was written: load into a model that has "
                "values"
            )
        self._shape, self._dtype = tuple(old.shape), dtype
        self._sharding = sharding_of(old)
        self._parts: dict[Any, tuple[tuple[slice, ...], jax.Array]] = {}
        keeps_old = count < expected
        if self._sharding is None:
            whole = jnp.array(old, dtype) if keeps_old else jnp.zeros(self._shape, dtype)
            self._parts[None] = (tuple([slice(0, n) for n in self._shape]), whole)
            return
        olds = {shard.device: shard.data for shard in old.addressable_shards} if keeps_old else {}
        places = self._sharding.addressable_devices_indices_map(self._shape)
        for device, index in places.items():
            box = tuple([slice(*ends) for ends in box_of(index, self._shape)])
            shape = [part.stop - part.start for part in box]
            with _only_on(device):
                if keeps_old:
                    made = jax.device_put(np.asarray(olds[device]).astype(dtype), device)
                else:
                    made = jnp.zeros(shape, dtype, device=device)
            self._parts[device] = (box, made)

    def put(self, index: tuple[int, ...], weight: np.ndarray) -> None:
        """Writes a layer, on each device what it has of it."""
        # The one before is through, so that layers do not wait in the memory of the host.
        jax.block_until_ready([part for _, part in self._parts.values()])
        weight = np.asarray(weight, self._dtype)
        for device, (box, part) in self._parts.items():
            outer, inner = box[: len(index)], box[len(index) :]
            if not all(own.start <= i < own.stop for own, i in zip(outer, index, strict=True)):
                continue
            place = [np.int32(i - own.start) for own, i in zip(outer, index, strict=True)]
            own_part = np.ascontiguousarray(weight[inner])
            with _only_on(device):
                moved = jax.device_put(own_part, device)
                self._parts[device] = (box, _written(part, moved, place))

    def joined(self) -> jax.Array:
        """Returns the array."""
        arrays = [part for _, part in self._parts.values()]
        if self._sharding is None:
            return arrays[0]
        return jax.make_array_from_single_device_arrays(self._shape, self._sharding, arrays)


def _only_on(device: Any) -> contextlib.AbstractContextManager[Any]:
    """Returns a context with the mesh of one device, as that around may be of others."""
    if device is None:
        return contextlib.nullcontext()
    return jax.set_mesh(jax.sharding.Mesh(np.array([device]), ("device",)))


@functools.partial(jax.jit, donate_argnums=0)
def _written(whole: jax.Array, layer: jax.Array, index: list[Any]) -> jax.Array:
    """Returns an array with a layer written into it, in the same memory."""
    start = [*index, *[np.int32(0)] * layer.ndim]
    return lax.dynamic_update_slice(whole, layer.reshape((1,) * len(index) + layer.shape), start)
