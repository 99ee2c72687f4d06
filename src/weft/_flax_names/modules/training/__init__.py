"""Training, under the name that code of the NNX API imports it from."""

from . import ema as ema, metrics as metrics, optimizer as optimizer
