"""Training, under the name that code of the NNX API imports it from."""

from weft.training import ema as ema
from weft.training import metrics as metrics
from weft.training import optimizer as optimizer
