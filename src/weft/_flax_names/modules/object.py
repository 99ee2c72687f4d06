"""Another name of `weft.pytreelib`."""

from weft.pytreelib import *  # noqa: F403
