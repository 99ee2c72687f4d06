"""Another name of `weft.pytreelib`."""

from .pytreelib import *  # noqa: F403
