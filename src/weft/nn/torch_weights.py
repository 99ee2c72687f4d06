"""How weights stand in PyTorch: what a layer declares, and what rules of `nnx.load_weights` say.

A class declares it as `torch_weights`, a class attribute or a property: by the name that an array
has in PyTorch the attribute that it is here. Weights have PyTorch's *form* in files, the kernel of
a `Linear` for example as (out, in), and the *layout of the layer* in the model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

Arrays = np.ndarray | tuple[np.ndarray, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Into:
    """Where arrays of a file go in a model, and how: for rules, and for `torch_weights` of layers.

    Several arrays are joined along an axis, and what goes into several targets is split along it.
    What several rules and layers say is done one after another: a rule leads to the form of
    PyTorch, in which the kernel of a `Linear` is (out, in), and the layer turns that into its own.

    Args:
      targets: one path or several: in rules from the model on, with variables as the names have,
        `"blocks[{i}].mlp.up.kernel"`; in `torch_weights` from the layer on.
      axes: how the axes of each array that has so many are permuted, as by `np.transpose`; of a
        layer that is the kernel, and not the bias. None for not at all.
      axis: along which to join and to split.
      sizes: how long each of several arrays is along that axis, for saving; None for equal parts.
      load: what makes one array of the arrays of the file, in place of permuting and joining.
      save: its inverse, which returns one array or a tuple of them; without it the model can be
        loaded, and not saved.

    Raises:
      TypeError: if `targets` are no texts.
      ValueError: if `axes` or `sizes` are given as well as a function, or `axes` are no
        permutation, or `save` stands without `load`.

    Example:
      >>> import jax.numpy as jnp
      >>> import numpy as np
      >>> import weft as nnx
      >>> model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
      >>> source = {"w": np.zeros((2, 3)), "bias": np.zeros(3)}  # (in, out): not as in PyTorch
      >>> report = nnx.load_weights(model, source, {"w": nnx.Into("kernel", axes=(1, 0))})
      >>> float(jnp.abs(model.kernel).max())
      0.0
    """

    targets: tuple[str, ...]
    axes: tuple[int, ...] | None = None
    axis: int = 0
    sizes: tuple[int, ...] | None = None
    load: Callable[..., np.ndarray] | None = None
    save: Callable[[np.ndarray], Arrays] | None = None

    def __init__(
        self,
        targets: str | Sequence[str],
        *,
        axes: Sequence[int] | None = None,
        axis: int = 0,
        sizes: Sequence[int] | None = None,
        load: Callable[..., np.ndarray] | None = None,
        save: Callable[[np.ndarray], Arrays] | None = None,
    ):
        if (load or save) and (axes is not None or sizes is not None):
            raise ValueError(
                "nnx.Into takes either `axes` and `sizes` or functions, found both: let `load` and "
                "`save` permute and join as well"
            )
        if not all(isinstance(x, str) for x in _several(targets)):
            raise TypeError(
                f"nnx.Into leads to a path or several, found {targets!r}: write it as "
                '`nnx.Into("blocks[{i}].up.kernel")`'
            )
        if axes is not None and sorted(axes) != list(range(len(axes))):
            raise ValueError(
                f"nnx.Into permutes axes, and axes={tuple(axes)} is no permutation: write "
                f"`axes={tuple(range(len(axes)))[::-1]}` to turn them around"
            )
        if save is not None and load is None:
            raise ValueError(
                "nnx.Into has `save` and no `load`: give the inverse, `nnx.Into(..., load=..., "
                "save=...)`"
            )
        values = {
            "targets": (targets,) if isinstance(targets, str) else tuple(targets),
            "axes": None if axes is None else tuple(axes),
            "axis": axis,
            "sizes": None if sizes is None else tuple(sizes),
            "load": load,
            "save": save,
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)


def _several(targets: Any) -> Sequence[Any]:
    return [targets] if isinstance(targets, str) or not isinstance(targets, Sequence) else targets


Name: TypeAlias = str | tuple[str, ...]
TorchWeights: TypeAlias = Mapping[Name, "str | tuple[str, ...] | Into | None"]
"""By name in PyTorch, or several that make one array, what they are here; None for nothing."""


def convolution(rank: int) -> Into:
    """Returns how the kernel of a convolution of so many spatial axes stands: (out, in, *space)."""
    return Into("kernel", axes=(*range(2, rank + 2), 1, 0))


def flipped_convolution(rank: int) -> Into:
    """Returns how a kernel (*space, in, out) stands that PyTorch has flipped: (in, out, *space)."""
    space = tuple(range(rank))

    def load(x: np.ndarray) -> np.ndarray:
        return np.flip(np.moveaxis(x, (0, 1), (-2, -1)), space)

    def save(x: np.ndarray) -> np.ndarray:
        return np.moveaxis(np.flip(x, space), (-2, -1), (0, 1))

    return Into("kernel", load=load, save=save)


def matrix(in_features: tuple[int, ...], out_features: tuple[int, ...]) -> Into:
    """Returns how a kernel (*in, *out) stands: as the matrix (out, in) of all features."""

    def load(x: np.ndarray) -> np.ndarray:
        return x.T.reshape(in_features + out_features)

    def save(x: np.ndarray) -> np.ndarray:
        return x.reshape(int(np.prod(in_features)), -1).T

    return Into("kernel", load=load, save=save)


def reshaped(target: str, here: tuple[int, ...], there: tuple[int, ...]) -> Into:
    """Returns how an array stands that has another shape in PyTorch."""
    return Into(target, load=lambda x: x.reshape(here), save=lambda x: x.reshape(there))


def added(*targets: str) -> Into:
    """Returns how biases stand that are the sum of two: saved as themselves and zeros."""
    return Into(targets, load=np.add, save=lambda x: (x, np.zeros_like(x)))


def of_part(part: str, names: Mapping[Any, Any], suffix: str = "") -> TorchWeights:
    """Returns a declaration for a layer around a part that has one: names get a suffix."""

    def longer(name: Name) -> Name:
        return name + suffix if isinstance(name, str) else tuple([one + suffix for one in name])

    def into(value: Any) -> Any:
        if value is None:
            return None
        entry = value if isinstance(value, Into) else Into(value)
        options = {
            field.name: getattr(entry, field.name)
            for field in dataclasses.fields(entry)
            if field.name != "targets"
        }
        return Into([f"{part}.{target}" for target in entry.targets], **options)

    return {longer(name): into(value) for name, value in names.items()}
