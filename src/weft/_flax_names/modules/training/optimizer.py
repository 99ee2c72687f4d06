"""Another name of `weft.train.optimizer`."""

from weft.train.optimizer import *  # noqa: F403
