"""`jit`, under the name that code of the NNX API imports it from."""

from weft._lift.jit import JitWrapped as JitWrapped
from weft._lift.jit import StateSharding as StateSharding
from weft._lift.jit import jit as jit
from weft._lift.partial import jit_partial as jit_partial
from weft._lift.shards import shard_map as shard_map
from weft._lift.stages import Compiled as Compiled
from weft._lift.stages import Lowered as Lowered
from weft._lift.stages import Traced as Traced
