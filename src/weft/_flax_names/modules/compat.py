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
