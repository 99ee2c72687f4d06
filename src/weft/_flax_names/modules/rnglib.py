"""Random streams, under the name that code of the NNX API imports them from."""

from weft._core.path import Key as Key
from weft._core.path import Path as PathParts
from weft._rng import KeylessInitializer as KeylessInitializer, RngCount as RngCount
from weft._rng import RngKey as RngKey, Rngs as Rngs, RngState as RngState, RngStream as RngStream
from weft._rng.backups import SplitBackups as SplitBackups, StreamBackup as StreamBackup
from weft._rng.backups import backup_keys as backup_keys, restore_rngs as restore_rngs
from weft._rng.rekey import fork_rngs as fork_rngs, split_rngs as split_rngs, with_rngs as with_rngs
from weft._rng.reseed import reseed as reseed
from weft._variable.variable import Variable as Variable
