"""The stages of compiling ahead of time: `trace`, then `lower`, then `compile`.

Each wraps JAX's stage of that name together with the function of `nnx.jit` that it belongs to and
the static side of the call that it was made for.
"""

from __future__ import annotations

from typing import Any, Generic, NoReturn, ParamSpec, TypeVar

from weft._core.arguments import argument_paths
from weft._core.errors import StructureError
from weft._core.path import Path, format_path
from weft._core.static import Static
from weft._core.tracebacks import trim
from weft._graph.records import describe_difference
from weft._lift.jit.spec import Spec
from weft._lift.lift import Lift, records_out

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
        try:
            return self._run(*args, **kwargs)
        except Exception as error:
            trim(error)
            raise

    def _refuse(self, spec: Spec) -> NoReturn:
        lift, staged = self.jit_wrapped.lift, self._staged
        difference = describe_difference(staged.spec.record, spec.record)
        found = _explain(lift, difference) if difference else _explain_change(lift, staged)
        raise StructureError(
            f"{found}. Compile it again, or call the `nnx.jit` function, which does so by itself"
        )


def _explain(lift: Lift, difference: tuple[Path, str, str]) -> str:
    """Says in what the arguments of a call differ from those that were compiled for."""
    path, expected, found = difference
    where = _written(lift, path or ("arguments",))
    return (
        f"{lift.name!r} was compiled for arguments of another structure: {where} was {expected} "
        f"and is {found}"
    )


def _explain_change(lift: Lift, staged: Any) -> str:
    """Says which static value that the compiled function puts into objects is another now."""
    spots = staged.spec.spots
    exits = [outcome.exit for outcome in staged.program.outcomes]
    metadata = [(spots[w.index].path, w.metadata) for e in exits for w in e.written if w.metadata]
    records = [pair for exit in exits for pair in records_out(staged.spec, exit)]
    boxes = [(path, getattr(record, "metadata", record)) for path, record in records]
    places = [
        f"{_written(lift, path)}, where it is {box.value!r} now"
        for path, box in (*metadata, *boxes)
        if isinstance(box, Static) and Static(box.value) != box
    ]
    return (
        f"what was compiled of {lift.name!r} puts a static value into "
        f"{places[0] if places else 'objects'}: it was changed in place since"
    )


def _written(lift: Lift, path: Path) -> str:
    first, *below = path
    if isinstance(first, int):
        first = argument_paths(lift.f, first + 1)[-1]
    return format_path((*(first if isinstance(first, tuple) else (first,)), *below))
