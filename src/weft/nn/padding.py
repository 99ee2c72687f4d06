"""Padding and window arguments of convolution and pooling, brought to the form JAX takes."""

from __future__ import annotations

from collections.abc import Sequence

Padding = str | int | Sequence[int | tuple[int, int]]


def canonicalize_padding(padding: Padding, rank: int) -> str | list[tuple[int, int]]:
    """Returns a padding as a string or as one (low, high) pair for each spatial axis.

    Args:
      padding: a name such as "SAME", which is returned in capitals; one int for all sides; or, for
        each axis, an int or a pair.
      rank: number of spatial axes.

    Raises:
      ValueError: for anything else.

    Example:
      >>> from weft.nn.padding import canonicalize_padding
      >>> canonicalize_padding((1, (0, 2)), rank=2)
      [(1, 1), (0, 2)]
    """
    if isinstance(padding, str):
        return padding.upper()
    if isinstance(padding, int):
        return [(padding, padding)] * rank
    if isinstance(padding, Sequence) and len(padding) == rank:
        pairs = [(pad, pad) if isinstance(pad, int) else tuple(pad) for pad in padding]
        if all(len(pair) == 2 and all(isinstance(side, int) for side in pair) for pair in pairs):
            return pairs  # type: ignore[return-value]
    raise ValueError(
        f"expected a padding for {rank} spatial axes, found {padding!r}: pass a name such as "
        f"'SAME', one int, or {rank} ints or (low, high) pairs, `padding={((1, 1),) * rank}`"
    )


def per_axis(
    value: int | Sequence[int] | None, rank: int, *, owner: str, argument: str
) -> tuple[int, ...]:
    """Returns one positive int for each spatial axis.

    Args:
      value: the ints, one for all axes, or None for ones.
      rank: number of spatial axes.
      owner: whose argument it is, for error messages.
      argument: its name.

    Raises:
      ValueError: if there is another number of ints, or if one is not positive.
    """
    values = (
        tuple(value) if isinstance(value, Sequence) else (1 if value is None else value,) * rank
    )
    if len(values) != rank or any(v < 1 for v in values):
        raise ValueError(
            f"{owner} has {rank} spatial axes and expects {argument} to be a positive int or "
            f"{rank} of them, found {value!r}: use for example `{argument}={(2,) * rank}`"
        )
    return values
