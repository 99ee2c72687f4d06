"""Another name of `weft.graphlib`."""

from .graphlib import *  # noqa: F403
