"""The functions of the NNX API with `graph=True` and `graph_updates=True`, whatever the settings.

Each function is that of the same name in `weft`, with other defaults for the options named beside
it in the table.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from weft import _abstract_model, _graph, _lift, _rng
from weft._graph import flat, view
from weft._lift import partial

_GRAPH = ("graph",)
_BOTH = ("graph", "graph_updates")
_FUNCTIONS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "backup_keys": (_rng, _GRAPH),
    "cached_partial": (partial, _BOTH),
    "checkify": (_lift, _BOTH),
    "clone": (_graph, _GRAPH),
    "cond": (_lift, _BOTH),
    "custom_vjp": (_lift, _BOTH),
    "eval_shape": (_lift, _BOTH),
    "flatten": (flat, _GRAPH),
    "fori_loop": (_lift, _BOTH),
    "fork_rngs": (_rng, _BOTH),
    "get_abstract_model": (_abstract_model, _GRAPH),
    "grad": (_lift, _BOTH),
    "graphdef": (_graph, _GRAPH),
    "iter_children": (_graph, _GRAPH),
    "iter_graph": (_graph, _GRAPH),
    "iter_modules": (_graph, _GRAPH),
    "jit": (_lift, _BOTH),
    "jvp": (_lift, _BOTH),
    "pmap": (_lift, _BOTH),
    "recursive_map": (_graph, _GRAPH),
    "remat": (_lift, _BOTH),
    "reseed": (_rng, _GRAPH),
    "scan": (_lift, _BOTH),
    "shard_map": (_lift, _BOTH),
    "split": (_graph, _GRAPH),
    "split_rngs": (_rng, _BOTH),
    "state": (_graph, _GRAPH),
    "switch": (_lift, _BOTH),
    "value_and_grad": (_lift, _BOTH),
    "view": (view, _GRAPH),
    "view_info": (view, _GRAPH),
    "vjp": (_lift, _BOTH),
    "vmap": (_lift, _BOTH),
    "while_loop": (_lift, _BOTH),
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
        name: _with_true(getattr(module, name), options)
        for name, (module, options) in _FUNCTIONS.items()
    }
)
