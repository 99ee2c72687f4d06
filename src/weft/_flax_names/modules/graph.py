"""Another name of `weft.graphlib`."""

from weft.graphlib import *  # noqa: F403
