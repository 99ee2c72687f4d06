"""Training, under the name that code of the NNX API imports it from."""

from weft.train import ema as ema
from weft.train import metrics as metrics
from weft.train import optimizer as optimizer
