"""Training, under the name that code of the NNX API imports it from."""

from . import ema as ema
from . import metrics as metrics
from . import optimizer as optimizer
