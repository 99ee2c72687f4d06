"""Modules of Weft as Linen Modules.

For each call the Module is made anew: abstractly, to learn its structure, and then around the
Linen variables. Random streams are no variables; they are made from the keys that Linen is given.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as linen
import jax
from flax.core import FrozenDict

from weft._core.errors import StructureError
from weft._core.path import Path, format_path
from weft._core.static import Static
from weft._graph.api import merge, split
from weft._graph.state import FlatState, from_flat_state, to_flat_state
from weft._lift.abstract import eval_shape
from weft._rng import RngCount, Rngs, RngState
from weft._variable.variable import Variable
from weft.bridge.linen_in_nnx import LinenCall, around, initializing, install
from weft.bridge.variables import iter_linen_vars, nnx_attrs_to_linen_vars, to_linen_var


class ToLinen(linen.Module):
    """A Linen Module whose variables are those of a Module of Weft.

    Methods of the class and keyword arguments are attributes, too: `bound.attend(x)`.

    Attributes:
      nnx_class: makes the Module: its class, or a function.
      args: arguments of `nnx_class`.
      kwargs: keyword arguments; `rngs` is added.
      skip_rng: whether to leave `rngs` out.
      metadata_fn: turns a Variable into a Linen variable.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import weft as nnx
      >>> layer = nnx.bridge.ToLinen(nnx.Linear, (2, 3))
      >>> variables = layer.init(jax.random.key(0), jnp.ones((1, 2)))
      >>> layer.apply(variables, jnp.ones((1, 2))).shape
      (1, 3)
    """

    nnx_class: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = FrozenDict({})
    skip_rng: bool = False
    metadata_fn: Callable[[Variable], Any] | None = to_linen_var

    @linen.compact
    def __call__(
        self, *args: Any, nnx_method: Callable[..., Any] | str | None = None, **kwargs: Any
    ) -> Any:
        """Calls the Module, and keeps what it changes in the collections that are mutable.

        Args:
          *args: its arguments.
          nnx_method: the method to call, or its name; `__call__` if missing.
          **kwargs: its keyword arguments.

        Raises:
          StructureError: if a Variable of the Module has no Linen variable.
          ValueError: if it draws from a stream that Linen was given no key for.
        """
        names = list(self.scope.rngs)  # type: ignore[union-attr]
        keys = {name: self.make_rng(name) for name in names}
        if self.is_initializing():
            module, first = self._make_first(keys)
            unused: dict[str, tuple[RngCount, Any]] = {}
            with initializing():
                output = _call(module, nnx_method, args, kwargs)
        else:
            module, unused = self._restore(keys)
            first = {}
            mutable = [name for name in self.variables if self.is_mutable_collection(name)]
            token = around.set(LinenCall(mutable, frozenset(keys)))
            try:
                output = _call(module, nnx_method, args, kwargs)
            finally:
                around.reset(token)
        _check_unused(unused)
        state = dict(to_flat_state(split(module, RngState, ...)[2]))
        state = from_flat_state({**state, **first})
        to_box = to_linen_var if self.metadata_fn is None else self.metadata_fn
        for collection, tree in nnx_attrs_to_linen_vars(state, to_box).items():
            if self.is_mutable_collection(collection):
                for name, value in tree.items():
                    self.put_variable(collection, name, value)
        return output

    def __getattr__(self, name: str) -> Any:
        own = vars(self)
        if not name.startswith("__") and "nnx_class" in own:
            if name in own["kwargs"]:
                return own["kwargs"][name]
            method = getattr(own["nnx_class"], name, None)
            if callable(method):
                return types.MethodType(_calling(method), self)
        return super().__getattr__(name)

    def _recipe(self) -> Static:
        return Static((self.nnx_class, self.args, dict(self.kwargs), self.skip_rng))

    def _make_first(self, keys: dict[str, jax.Array]) -> tuple[Any, dict[Path, Any]]:
        """Makes the Module, and copies its Variables as they are before it is called.

        In Linen the call that makes the variables does not update them.
        """
        if "params" in keys:  # which is often the only one
            keys = {"default": jax.random.fold_in(keys["params"], 0), **keys}
        module = _make(self._recipe(), keys)
        state = to_flat_state(split(module, RngState, ...)[2])
        return module, {p: x.copy() if isinstance(x, Variable) else x for p, x in state}

    def _restore(self, keys: dict[str, jax.Array]) -> tuple[Any, dict[str, Any]]:
        """Makes the Module around the Linen variables, with streams from the keys.

        Returns:
          The Module, and the counters of the streams for which there is no key.
        """
        given_keys = set(keys)
        keys = {"default": jax.random.key(0), "params": jax.random.key(0), **keys}
        recipe = self._recipe()
        graphdef, state = split(eval_shape(lambda: _make(recipe, keys)))
        streams = iter(_stream_values(recipe, keys))
        given = dict(iter_linen_vars(self.variables))
        unused: dict[str, tuple[RngCount, Any]] = {}
        leaves, missing = [], []
        for path, leaf in to_flat_state(state):
            if isinstance(leaf, RngState):
                leaf = leaf.copy(next(streams))
                name = leaf.get_metadata("tag", "default")
                if isinstance(leaf, RngCount) and name not in given_keys:
                    unused[format_path(path[:-1])] = leaf, leaf.get_raw_value()
            elif path in given:
                leaf = given.pop(path)
            else:
                missing.append(path)
            leaves.append((path, leaf))
        if missing:
            raise StructureError(
                f"the Linen variables have no {', '.join(map(format_path, missing))}: give "
                "`apply` the variables that `init` returned"
            )
        module = merge(graphdef, FlatState(leaves), copy=False)
        for path, variable in given.items():
            install(module, path, variable)
        return module, unused


def _calling(method: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a method of `ToLinen` that calls one of the Module's class."""

    @functools.wraps(method)
    def call(self: ToLinen, *args: Any, **kwargs: Any) -> Any:
        return self(*args, nnx_method=method, **kwargs)

    return call


def _make(recipe: Static, keys: Mapping[str, jax.Array]) -> Any:
    nnx_class, args, kwargs, skip_rng = recipe.value
    options = {} if skip_rng else {"rngs": Rngs(**keys)}
    return nnx_class(*args, **kwargs, **options)


@functools.partial(jax.jit, static_argnums=0)
def _stream_values(recipe: Static, keys: Mapping[str, jax.Array]) -> list[jax.Array]:
    """Makes a Module for its streams; compiled, such that nothing else is computed."""
    state = to_flat_state(split(_make(recipe, keys))[1])
    return [leaf.get_raw_value() for _, leaf in state if isinstance(leaf, RngState)]


def _check_unused(unused: dict[str, tuple[RngCount, Any]]) -> None:
    for path, (count, start) in unused.items():
        if count.get_raw_value() is not start:
            name = count.get_metadata("tag", "default")
            raise ValueError(
                f"the stream {path} drew a key, but Linen was given none for {name!r}: "
                f"`model.apply(variables, x, rngs={{{name!r}: key}})`"
            )


def _call(module: Any, method: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if method is None:
        return module(*args, **kwargs)
    if isinstance(method, str):
        return getattr(module, method)(*args, **kwargs)
    return method(module, *args, **kwargs)


def to_linen(
    nnx_class: Callable[..., Any],
    *args: Any,
    metadata_fn: Callable[[Variable], Any] | None = to_linen_var,
    name: str | None = None,
    skip_rng: bool = False,
    abstract_init: bool = True,
    **kwargs: Any,
) -> ToLinen:
    """Makes a Linen Module of a class of Weft and the arguments of its constructor.

    Args:
      nnx_class: the class, or a function that makes the Module.
      *args: its arguments.
      metadata_fn: turns a Variable into a Linen variable.
      name: the Linen Module's name.
      skip_rng: whether the constructor takes no `rngs`.
      abstract_init: accepted for compatibility: calls always make the Module abstractly.
      **kwargs: its keyword arguments, without `rngs`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import weft as nnx
      >>> layer = nnx.bridge.to_linen(nnx.Linear, 2, 3)
      >>> variables = layer.init(jax.random.key(0), jnp.ones((1, 2)))
      >>> variables["params"]["kernel"].shape
      (2, 3)
    """
    return ToLinen(nnx_class, args, FrozenDict(kwargs), skip_rng, metadata_fn, name=name)
