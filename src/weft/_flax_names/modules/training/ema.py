"""Another name of `weft.train.ema`."""

from weft.train.ema import EMA as EMA
