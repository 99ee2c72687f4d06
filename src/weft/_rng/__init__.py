"""Random streams.

seeds: keys from seeds, and new keys from old ones. draws: the distributions and initializers as
methods. streams: `RngStream` and its Variables. rngs: `Rngs`. backups, rekey and reseed: changing
the streams inside a model.
"""

from weft._rng.backups import SplitBackups as SplitBackups
from weft._rng.backups import StreamBackup as StreamBackup
from weft._rng.backups import backup_keys as backup_keys
from weft._rng.backups import restore_rngs as restore_rngs
from weft._rng.draws import KeylessInitializer as KeylessInitializer
from weft._rng.draws import KeySource as KeySource
from weft._rng.rekey import fork_rngs as fork_rngs
from weft._rng.rekey import split_rngs as split_rngs
from weft._rng.rekey import with_rngs as with_rngs
from weft._rng.reseed import reseed as reseed
from weft._rng.rngs import Rngs as Rngs
from weft._rng.rngs import UnknownStreamError as UnknownStreamError
from weft._rng.streams import RngCount as RngCount
from weft._rng.streams import RngKey as RngKey
from weft._rng.streams import RngState as RngState
from weft._rng.streams import RngStream as RngStream
