"""`tabulate`, under the name that code of the NNX API imports it from."""

from weft.tools.summary import CallInfo as CallInfo, filter_rng_streams as filter_rng_streams
from weft.tools.summary import tabulate as tabulate
