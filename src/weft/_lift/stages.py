"""The stages of compiling ahead of time: `trace`, then `lower`, then `compile`.

Each wraps JAX's stage of that name together with the function of `nnx.jit` that it belongs to and
the static side of the call that it was made for.
"""

from __future__ import annotations

from typing import Any, Generic, NoReturn, ParamSpec, TypeVar

from weft._errors import StructureError
from weft._graph.records import describe_difference
from weft._lift.arguments import argument_paths
from weft._lift.lift import Lift
from weft._lift.spec import Spec
from weft._path import format_path

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)


class _Stage(Generic[P, R_co]):
    """One stage of compiling ahead of time; what it does not define is JAX's."""

    def __init__(self, stage: Any, jit_wrapped: Any, staged: Any):
        self._stage = stage
        self.jit_wrapped = jit_wrapped
        self._staged = staged

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._stage, name)


class Traced(_Stage[P, R_co]):
    """A traced function: `.jaxpr`, `.lower()`, and the rest of `jax.stages.Traced`.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> layer = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
      >>> forward = nnx.jit(lambda layer, x: layer(x))
      >>> traced = forward.trace(layer, jnp.ones((1, 2)))
      >>> traced.jaxpr.out_avals
      [ShapedArray(float32[1,3])]
    """

    def lower(self, *args: Any, **kwargs: Any) -> Lowered[P, R_co]:
        """Lowers to the compiler's input language."""
        return Lowered(self._stage.lower(*args, **kwargs), self.jit_wrapped, self._staged)


class Lowered(_Stage[P, R_co]):
    """A lowered function: `.as_text()`, `.compile()`, and the rest of `jax.stages.Lowered`.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> layer = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
      >>> forward = nnx.jit(lambda layer, x: layer(x))
      >>> lowered = forward.lower(layer, jnp.ones((1, 2)))
      >>> "dot_general" in lowered.as_text()
      True
    """

    def compile(self, *args: Any, **kwargs: Any) -> Compiled[P, R_co]:
        """Compiles for the devices at hand."""
        return Compiled(self._stage.compile(*args, **kwargs), self.jit_wrapped, self._staged)


class Compiled(_Stage[P, R_co]):
    """A compiled function: called like the original, with objects of the same structure.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> layer = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
      >>> forward = nnx.jit(lambda layer, x: layer(x))
      >>> compiled = forward.lower(layer, jnp.ones((1, 2))).compile()
      >>> compiled(layer, jnp.ones((1, 2))).shape
      (1, 3)
    """

    def __init__(self, stage: Any, jit_wrapped: Any, staged: Any):
        super().__init__(stage, jit_wrapped, staged)
        self._run = jit_wrapped.compiled(staged, stage, self._refuse)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        return self._run(*args, **kwargs)

    def _refuse(self, spec: Spec) -> NoReturn:
        raise StructureError(_explain(self.jit_wrapped.lift, self._staged.spec, spec))


def _explain(lift: Lift, compiled: Spec, called: Spec) -> str:
    difference = describe_difference(compiled.record, called.record)
    text = f"{lift.name!r} was compiled for arguments of another structure"
    if difference is None:
        text = (
            f"what was compiled of {lift.name!r} puts a static value into objects that has changed "
            "in place since"
        )
    else:
        path, expected, found = difference
        first, *below = path or ("arguments",)
        if isinstance(first, int):
            first = argument_paths(lift.f, first + 1)[-1]
        where = format_path((*(first if isinstance(first, tuple) else (first,)), *below))
        text += f": {where} was {expected} and is {found}"
    return f"{text}. Compile it again, or call the `nnx.jit` function, which does so by itself"
