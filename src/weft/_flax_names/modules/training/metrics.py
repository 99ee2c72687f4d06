"""Another name of `weft.train.metrics`."""

from weft.train.metrics import *  # noqa: F403
