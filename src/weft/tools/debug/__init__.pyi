"""The names of `weft.tools.debug`, and where each is defined."""

from weft.tools.debug.findings import NonFiniteError as NonFiniteError
from weft.tools.debug.key_reuse import KeyReuseError as KeyReuseError
from weft.tools.debug.key_reuse import rng_reuse as rng_reuse
from weft.tools.debug.nonfinite import nans as nans
