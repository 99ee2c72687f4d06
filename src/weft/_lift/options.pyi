"""The options of the transforms, for type checkers; nothing is here at run time."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Required, TypedDict

from weft._lift.jit.trace_log import OnRetrace

class JitOptions(TypedDict, total=False):
    """The options of `jit`."""

    in_shardings: Any
    out_shardings: Any
    static_argnums: int | Sequence[int] | None
    static_argnames: str | Iterable[str] | None
    donate_argnums: int | Sequence[int] | None
    donate_argnames: str | Iterable[str] | None
    keep_unused: bool
    device: Any
    backend: str | None
    inline: bool
    donate: str | None
    max_traces: int | None
    on_retrace: OnRetrace
    graph: bool | None
    graph_updates: bool | None

class GradOptions(TypedDict, total=False):
    """Options of `grad` that do not change what type it has."""

    holomorphic: bool
    allow_int: bool
    reduce_axes: Sequence[str]
    graph: bool | None

class AnyGradOptions(GradOptions, total=False):
    """All options of `grad`: which argument is differentiated, and in what form."""

    argnums: Any
    has_aux: bool
    graph_updates: bool | None

class MakeJaxprOptions(TypedDict, total=False):
    """The options of `make_jaxpr`."""

    graph: bool | None
    graph_updates: bool | None
    static_argnums: int | Sequence[int]

class RematOptions(TypedDict, total=False):
    """The options of `remat`."""

    prevent_cse: bool
    static_argnums: int | Sequence[int]
    policy: Callable[..., bool] | None
    graph: bool | None
    graph_updates: bool | None

class VmapOptions(TypedDict, total=False):
    """The options of `vmap`."""

    in_axes: Any
    out_axes: Any
    axis_name: Any
    axis_size: int | None
    spmd_axis_name: Any
    transform_metadata: Mapping[str, Any]
    graph: bool | None
    graph_updates: bool | None

class PmapOptions(TypedDict, total=False):
    """The options of `pmap`."""

    axis_name: Any
    in_axes: Any
    out_axes: Any
    static_broadcasted_argnums: int | Iterable[int]
    devices: Sequence[Any] | None
    backend: str | None
    axis_size: int | None
    donate_argnums: int | Iterable[int]
    transform_metadata: Mapping[str, Any]
    graph: bool | None
    graph_updates: bool | None

class ShardMapOptions(TypedDict, total=False):
    """The options of `shard_map`."""

    mesh: Any
    in_specs: Required[Any]
    out_specs: Required[Any]
    axis_names: Any
    check_vma: bool
    graph: bool | None
    graph_updates: bool | None

class TransformMetadataOptions(TypedDict, total=False):
    """The options of `transform_metadata`."""

    in_axes: Any
    out_axes: Any
    partition: Required[Any]
    graph: bool | None

class ScanOptions(TypedDict, total=False):
    """The options of `scan`."""

    length: int | None
    reverse: bool
    unroll: int | bool
    _split_transpose: bool
    in_axes: Any
    out_axes: Any
    transform_metadata: Mapping[str, Any]
    graph: bool | None
    graph_updates: bool | None
