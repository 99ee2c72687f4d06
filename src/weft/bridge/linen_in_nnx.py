"""Linen Modules as Modules of Weft.

A Linen Module makes its variables when it is first called; `lazy_init` makes that call.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import flax.linen as linen
import jax

from weft._core.errors import surface
from weft._core.path import Path, format_path
from weft._graph.updates import items_inside, store_items
from weft._module.module import Module
from weft._object.pytree import attributes
from weft._rng import Rngs, RngStream
from weft._variable.variable import Variable
from weft.bridge.variables import iter_linen_vars, nnx_attrs_to_linen_vars

F = TypeVar("F", bound=Callable[..., Any])

_MODULE, _RNGS = "to_nnx__module", "to_nnx__rngs"
_initialized: contextvars.ContextVar[set[int] | None] = contextvars.ContextVar(
    "initialized", default=None
)
around: contextvars.ContextVar[LinenCall | None] = contextvars.ContextVar("around", default=None)
"""The Linen call that goes on around, which `ToLinen` sets."""


class LinenCall(NamedTuple):
    """A call of a Linen Module: which collections it may change, which keys it was given."""

    mutable: list[str]
    keys: frozenset[str]


class ToNNX(Module):
    """A Linen Module that holds its variables itself, as Variables.

    Fields and methods of the Linen Module are attributes, too: `model.features`, `model.attend(x)`.

    Args:
      module: the Linen Module.
      rngs: random streams for making variables and for calls: an `Rngs`, a stream, a key or None.

    Example:
      >>> import flax.linen, jax.numpy as jnp
      >>> import weft as nnx
      >>> model = nnx.bridge.ToNNX(flax.linen.Dense(3), rngs=nnx.Rngs(0))
      >>> model = model.lazy_init(jnp.ones((1, 2)))
      >>> model.kernel.shape, model(jnp.ones((1, 2))).shape
      ((2, 3), (1, 3))
    """

    def __init__(self, module: Any, rngs: Rngs | RngStream | jax.Array | None = None):
        self.to_nnx__module: Any = module
        if isinstance(rngs, (jax.Array, RngStream)):
            rngs = Rngs(rngs if isinstance(rngs, jax.Array) else rngs())
        elif isinstance(rngs, Rngs):
            rngs = rngs.fork()
        self.to_nnx__rngs: Any = rngs

    @property
    def rngs(self) -> Rngs | None:
        """The random streams."""
        return self.to_nnx__rngs

    @property
    def module(self) -> Any:
        """The Linen Module."""
        return self.to_nnx__module

    def __getattr__(self, name: str) -> Any:
        surface(self, name)
        module = attributes(self).get(_MODULE)
        kind = type(module)
        if module is None or name.startswith("__") or hasattr(linen.Module, name):
            raise AttributeError(f"ToNNX has no attribute {name!r}")
        method = getattr(kind, name, None)
        if callable(method):
            return types.MethodType(_calling(method), self)
        if name in getattr(module, "__dataclass_fields__", ()):
            return getattr(module, name)
        raise AttributeError(
            f"neither ToNNX nor the {kind.__name__} in it has an attribute {name!r}; the Variables "
            f"of a Linen Module are made by its first call: `model.lazy_init(x)`"
        )

    def lazy_init(self, *args: Any, **kwargs: Any) -> ToNNX:
        """Makes the variables by a call with these arguments, and returns this Module."""
        return lazy_init(self, *args, **kwargs)

    def __call__(
        self,
        *args: Any,
        rngs: Rngs | Mapping[str, jax.Array] | jax.Array | None = None,
        method: Callable[..., Any] | str | None = None,
        mutable: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Calls the Linen Module.

        Args:
          *args: its arguments.
          rngs: random streams or keys by name; those given to `ToNNX` if missing.
          method: the method to call; `__call__` if missing.
          mutable: which collections it may change, as for Linen's `apply`; changes are kept.
          **kwargs: its keyword arguments.

        Returns:
          What the Linen Module returns.

        Raises:
          ValueError: if there are no variables yet and this is no `lazy_init`.
        """
        keys = _linen_keys(self.to_nnx__rngs if rngs is None else rngs)
        initialized = _initialized.get()
        if initialized is not None and id(self) not in initialized:
            initialized.add(id(self))
            output, variables = self.module.init_with_output(keys, *args, method=method, **kwargs)
            self._write(variables)
            return output
        own = {k: v for k, v in attributes(self).items() if k not in (_MODULE, _RNGS)}
        outer = around.get()
        mutable = outer.mutable or None if mutable is None and outer is not None else mutable
        output = self.module.apply(
            nnx_attrs_to_linen_vars(own),
            *args,
            rngs=keys,
            method=method,
            mutable=False if mutable is None else mutable,
            **kwargs,
        )
        if mutable is None or mutable is False:
            return output
        output, updates = output
        self._write(updates)
        return output

    def _write(self, variables: Mapping[str, Any]) -> None:
        for path, variable in iter_linen_vars(variables):
            install(self, path, variable)


@functools.cache
def _calling(method: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a method of `ToNNX` that calls one of the Linen Module; always the same one."""

    @functools.wraps(method)
    def call(self: ToNNX, *args: Any, **kwargs: Any) -> Any:
        return self(*args, method=method, **kwargs)

    return call


def install(root: Any, path: Path, new: Any) -> None:
    """Writes a Variable into the one at a path, or puts it there, in dicts where there is nothing.

    Raises:
      ValueError: if something else is at the path.
    """
    for key in path[:-1]:
        child = dict(items_inside(root)).get(key)
        if child is None:
            child = {}
            store_items(root, {key: child})
        root = child
    old = dict(items_inside(root)).get(path[-1])
    if isinstance(old, Variable) and isinstance(new, Variable):
        old.update_from_state(new)
    elif old is None or isinstance(old, jax.Array):
        store_items(root, {path[-1]: new})
    else:
        raise ValueError(
            f"a Linen variable is called {format_path(path)}, where there is a "
            f"{type(old).__name__}: give the Linen Module another name"
        )


def _linen_keys(rngs: Any) -> dict[str, Any]:
    """Draws one key per stream; a stream called default stands for "params", too."""
    if rngs is None:
        return {}
    if isinstance(rngs, jax.Array):
        return {"params": rngs}
    outer = around.get()
    keys = {
        name: key() if callable(key) else key
        for name, key in rngs.items()
        if outer is None or name in outer.keys  # the others have no keys of their own
    }
    if "params" not in keys and "default" in keys:
        keys["params"] = keys.pop("default")
    return keys


@contextlib.contextmanager
def initializing() -> Iterator[None]:
    """Lets every `ToNNX` make its variables at its first call in the block."""
    token = _initialized.set(set())
    try:
        yield
    finally:
        _initialized.reset(token)


def lazy_init(fn: F, *args: Any, **kwargs: Any) -> F:
    """Runs a model once so that the Linen Modules in it make their variables.

    Args:
      fn: a Module, one of its methods, or a function of Modules.
      *args: arguments to call it with.
      **kwargs: keyword arguments.

    Returns:
      `fn`; of a method, the Module it belongs to.

    Example:
      >>> import flax.linen, jax.numpy as jnp
      >>> import weft as nnx
      >>> model = nnx.Sequential(nnx.bridge.ToNNX(flax.linen.Dense(3), rngs=nnx.Rngs(0)), nnx.relu)
      >>> nnx.bridge.lazy_init(model, jnp.ones((1, 2))).layers[0].bias.shape
      (3,)
    """
    with initializing():
        fn(*args, **kwargs)
    is_method = isinstance(fn, types.MethodType) and isinstance(fn.__self__, Module)
    return fn.__self__ if is_method else fn  # type: ignore[attr-defined]
