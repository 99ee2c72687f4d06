"""The functions of the NNX API with `graph=True` and `graph_updates=True`, whatever the settings.

Each function is that of the same name in `weft`, with other defaults.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import weft

if TYPE_CHECKING:  # with the signatures that these have in `weft`
    from weft import backup_keys as backup_keys, cached_partial as cached_partial
    from weft import checkify as checkify, clone as clone, cond as cond, custom_vjp as custom_vjp
    from weft import eval_shape as eval_shape, flatten as flatten, fori_loop as fori_loop
    from weft import fork_rngs as fork_rngs, get_abstract_model as get_abstract_model, grad as grad
    from weft import graphdef as graphdef, iter_children as iter_children, iter_graph as iter_graph
    from weft import iter_modules as iter_modules, jit as jit, jvp as jvp, pmap as pmap
    from weft import recursive_map as recursive_map, remat as remat, reseed as reseed, scan as scan
    from weft import shard_map as shard_map, split as split, split_rngs as split_rngs
    from weft import state as state, switch as switch, value_and_grad as value_and_grad
    from weft import view as view, view_info as view_info, vjp as vjp, vmap as vmap
    from weft import while_loop as while_loop

_OF_WALKS = """
backup_keys clone flatten get_abstract_model graphdef iter_children iter_graph iter_modules
recursive_map reseed split state view view_info
"""
_OF_TRANSFORMS = """
cached_partial checkify cond custom_vjp eval_shape fori_loop fork_rngs grad jit jvp pmap remat
scan shard_map split_rngs switch value_and_grad vjp vmap while_loop
"""


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


_OPTIONS = {
    **dict.fromkeys(_OF_WALKS.split(), ("graph",)),
    **dict.fromkeys(_OF_TRANSFORMS.split(), ("graph", "graph_updates")),
}
globals().update(
    {name: _with_true(getattr(weft, name), options) for name, options in _OPTIONS.items()}
)
