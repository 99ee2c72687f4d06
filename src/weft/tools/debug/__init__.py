"""Debugging by path: where the first NaN appeared, and which keys are drawn twice.

Each name is imported when it is first used.
"""

from weft._core.elsewhere import names_in as _names_in

__all__, __getattr__, __dir__ = _names_in(  # pyright: ignore[reportUnsupportedDunderAll]
    __name__,
    {
        "weft.tools.debug.findings": "NonFiniteError",
        "weft.tools.debug.nonfinite": "nans",
        "weft.tools.debug.key_reuse": "KeyReuseError rng_reuse",
    },
)
