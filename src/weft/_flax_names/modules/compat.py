"""The functions of the NNX API with `graph=True` and `graph_updates=True`, whatever the settings.

Each function is that of the same name in `weft`, with other defaults for the options named beside
it in the table.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # with the signatures that these have in `weft`
    from weft import backup_keys as backup_keys
    from weft import cached_partial as cached_partial
    from weft import checkify as checkify
    from weft import clone as clone
    from weft import cond as cond
    from weft import custom_vjp as custom_vjp
    from weft import eval_shape as eval_shape
    from weft import flatten as flatten
    from weft import fori_loop as fori_loop
    from weft import fork_rngs as fork_rngs
    from weft import get_abstract_model as get_abstract_model
    from weft import grad as grad
    from weft import graphdef as graphdef
    from weft import iter_children as iter_children
    from weft import iter_graph as iter_graph
    from weft import iter_modules as iter_modules
    from weft import jit as jit
    from weft import jvp as jvp
    from weft import pmap as pmap
    from weft import recursive_map as recursive_map
    from weft import remat as remat
    from weft import reseed as reseed
    from weft import scan as scan
    from weft import shard_map as shard_map
    from weft import split as split
    from weft import split_rngs as split_rngs
    from weft import state as state
    from weft import switch as switch
    from weft import value_and_grad as value_and_grad
    from weft import view as view
    from weft import view_info as view_info
    from weft import vjp as vjp
    from weft import vmap as vmap
    from weft import while_loop as while_loop

_GRAPH = ("graph",)
_BOTH = ("graph", "graph_updates")
_FUNCTIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "backup_keys": ("_rng.backups", _GRAPH),
    "cached_partial": ("_lift.partial", _BOTH),
    "checkify": ("_lift.abstract", _BOTH),
    "clone": ("_graph.api", _GRAPH),
    "cond": ("_lift.branch", _BOTH),
    "custom_vjp": ("_lift.custom_vjp", _BOTH),
    "eval_shape": ("_lift.abstract", _BOTH),
    "flatten": ("_graph.flat", _GRAPH),
    "fori_loop": ("_lift.repeat", _BOTH),
    "fork_rngs": ("_rng.rekey", _BOTH),
    "get_abstract_model": ("_abstract_model", _GRAPH),
    "grad": ("_lift.autodiff", _BOTH),
    "graphdef": ("_graph.api", _GRAPH),
    "iter_children": ("_graph.iterate", _GRAPH),
    "iter_graph": ("_graph.iterate", _GRAPH),
    "iter_modules": ("_graph.iterate", _GRAPH),
    "jit": ("_lift.jit", _BOTH),
    "jvp": ("_lift.vjp", _BOTH),
    "pmap": ("_lift.map", _BOTH),
    "recursive_map": ("_graph.iterate", _GRAPH),
    "remat": ("_lift.abstract", _BOTH),
    "reseed": ("_rng.reseed", _GRAPH),
    "scan": ("_lift.loop", _BOTH),
    "shard_map": ("_lift.shards", _BOTH),
    "split": ("_graph.api", _GRAPH),
    "split_rngs": ("_rng.rekey", _BOTH),
    "state": ("_graph.api", _GRAPH),
    "switch": ("_lift.branch", _BOTH),
    "value_and_grad": ("_lift.autodiff", _BOTH),
    "view": ("_graph.view", _GRAPH),
    "view_info": ("_graph.view", _GRAPH),
    "vjp": ("_lift.vjp", _BOTH),
    "vmap": ("_lift.map", _BOTH),
    "while_loop": ("_lift.repeat", _BOTH),
}


def _with_true(function: Callable[..., Any], options: tuple[str, ...]) -> Callable[..., Any]:
    defaults = dict.fromkeys(options, True)

    @functools.wraps(function)
    def compatible(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **{**defaults, **kwargs})

    signature = inspect.signature(function)
    parameters = [
        p.replace(default=True) if p.name in defaults else p for p in signature.parameters.values()
    ]
    compatible.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return compatible


globals().update(
    {
        name: _with_true(getattr(importlib.import_module(f"weft.{home}"), name), options)
        for name, (home, options) in _FUNCTIONS.items()
    }
)
