"""Random streams.

seeds: keys from seeds, and new keys from old ones. draws: the distributions and initializers as
methods. streams: `RngStream` and its Variables. rngs: `Rngs`. backups, rekey and reseed: changing
the streams inside a model.
"""

from weft._rng.draws import KeylessInitializer as KeylessInitializer
from weft._rng.draws import KeySource as KeySource
from weft._rng.rngs import Rngs as Rngs
from weft._rng.rngs import UnknownStreamError as UnknownStreamError
from weft._rng.streams import RngCount as RngCount
from weft._rng.streams import RngKey as RngKey
from weft._rng.streams import RngState as RngState
from weft._rng.streams import RngStream as RngStream
