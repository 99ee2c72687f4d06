"""The faults that Weft reports: one exception class each.

Every class refines `WeftError` and the builtin exception that fits, so that code which catches
`ValueError` keeps working. `surface` is for errors that are not ours.
"""

from __future__ import annotations

from weft._core.foreign_names import Hint


class WeftError(Exception):
    """Base class of the errors that Weft defines.

    Example:
      >>> import weft as nnx
      >>> try:
      ...     nnx.state(nnx.Dict(), 1.5)
      ... except nnx.WeftError as error:
      ...     type(error).__name__
      'FilterError'
    """


class TraceContextError(WeftError, RuntimeError):
    """A Variable or object was written from a trace that it does not belong to.

    Example:
      >>> import jax
      >>> import weft as nnx
      >>> count = nnx.Variable(0)
      >>> jax.jit(lambda: count.set_value(1))()
      Traceback (most recent call last):
        ...
      weft._core.errors.TraceContextError: cannot write Variable (made at ...) from inside ...
    """


class AliasError(WeftError, ValueError):
    """One Variable was reached under two different prefixes (axes, shardings, ...).

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> weight = nnx.Param(jnp.ones(2))
      >>> nnx.vmap(lambda a, b: None, in_axes=(0, None))(weight, weight)
      Traceback (most recent call last):
        ...
      weft._core.errors.AliasError: the same Param is reached under two prefixes: a has 0...
    """


class SharedReferenceError(WeftError, ValueError):
    """An object was reached twice where `graph=False` asks for a tree.

    Example:
      >>> import weft as nnx
      >>> weight = nnx.Param(1.0)
      >>> nnx.split([weight, weight], graph=False)
      Traceback (most recent call last):
        ...
      weft._core.errors.SharedReferenceError: the same Param is reached at list[0] and at list[1]...
    """


class CycleError(WeftError, ValueError):
    """An object contains itself where only a tree can be represented.

    Example:
      >>> import jax
      >>> import weft as nnx
      >>> node = nnx.Dict()
      >>> node.me = node
      >>> jax.tree.leaves(node)
      Traceback (most recent call last):
        ...
      weft._core.errors.CycleError: Dict.me is the Dict itself: a cycle has no pytree form...
    """


class StructureError(WeftError, ValueError):
    """A state or an object does not have the structure that was asked for.

    Example:
      >>> import weft as nnx
      >>> graphdef, state = nnx.split(nnx.Dict(weight=nnx.Param(1.0)))
      >>> nnx.merge(graphdef, {})
      Traceback (most recent call last):
        ...
      weft._core.errors.StructureError: the state does not fit the GraphDef of 1 leaves:...
    """


class PrefixError(WeftError, ValueError):
    """Axes, shardings or carries do not fit the arguments that they stand beside.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> nnx.vmap(lambda x: x, in_axes=(0, 0))(jnp.ones(2))
      Traceback (most recent call last):
        ...
      weft._core.errors.PrefixError: nnx.vmap of ... was given 2 prefixes for 1 arguments:...
    """


class FilterError(WeftError, TypeError, ValueError):
    """Something that is no filter was given as one, or filters do not cover all Variables.

    Example:
      >>> import weft as nnx
      >>> nnx.state(nnx.Dict(), 1.5)
      Traceback (most recent call last):
        ...
      weft._core.errors.FilterError: 1.5 of type float is not a filter: expected a Variable type...
    """


class RetraceError(WeftError, RuntimeError):
    """A function was traced more often than it was allowed to be.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> double = nnx.jit(lambda x: 2 * x, max_traces=1)
      >>> _ = double(jnp.ones(1))
      >>> double(jnp.ones(2))
      Traceback (most recent call last):
        ...
      weft._core.errors.RetraceError: '<lambda>' would be traced again, with max_traces=1: x: ...
    """


class CheckpointError(WeftError, ValueError):
    """A file or folder of saved state is damaged, foreign, of a newer version, or none at all.

    Example:
      >>> import pathlib, tempfile
      >>> import weft as nnx
      >>> file = pathlib.Path(tempfile.mkdtemp(), "model.safetensors")
      >>> file.write_bytes(b"text")
      4
      >>> nnx.load(file)
      Traceback (most recent call last):
        ...
      weft._core.errors.CheckpointError: .../model.safetensors is damaged, or no safetensors file...
    """


def surface(obj: object, name: str) -> None:
    """Raises what a property of an object has raised, for `__getattr__` to call first.

    Where a property raises AttributeError, Python asks `__getattr__` and forgets that error.
    """
    if hasattr(type(obj), name):
        found = [vars(base)[name] for base in type(obj).__mro__ if name in vars(base)]
        if found and not isinstance(found[0], Hint):
            object.__getattribute__(obj, name)
