"""Options of a layer that the caller may give late: at the call, or on the layer.

The value given at the call counts; if it is None, the one the layer holds; if that is None too,
the layer raises instead of guessing, since a guess would make training run as inference.
"""

from __future__ import annotations

from typing import Any


def choose_option(layer: Any, name: str, given: Any) -> Any:
    """Returns an option as given at the call, or else as the layer holds it.

    Args:
      layer: the layer, which holds the option as the attribute `name`.
      name: the option, also the name of the keyword at the call.
      given: the value given at the call, or None.

    Raises:
      ValueError: if both are None.
    """
    chosen = getattr(layer, name) if given is None else given
    if chosen is None:
        kind = type(layer).__name__
        raise ValueError(
            f"{kind} does not know its `{name}`: it was given neither when the layer was made nor "
            f"at the call. Give it once, `nnx.{kind}(..., {name}=False)`; or at each call, "
            f"`layer(x, {name}=False)`; or for a whole model, `nnx.view(model, {name}=False)`"
        )
    return chosen
