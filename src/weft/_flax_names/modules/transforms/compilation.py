"""`jit`, under the name that code of the NNX API imports it from."""

from weft._lift.jit.jit import JitWrapped as JitWrapped
from weft._lift.jit.jit import StateSharding as StateSharding
from weft._lift.jit.jit import jit as jit
from weft._lift.jit.stages import Compiled as Compiled
from weft._lift.jit.stages import Lowered as Lowered
from weft._lift.jit.stages import Traced as Traced
from weft._lift.partial import jit_partial as jit_partial
from weft._lift.shards import shard_map as shard_map
