"""`jit`, under the name that code of the NNX API imports it from."""

from weft._lift.jit.jit import JitWrapped as JitWrapped, StateSharding as StateSharding, jit as jit
from weft._lift.jit.stages import Compiled as Compiled, Lowered as Lowered, Traced as Traced
from weft._lift.partial import jit_partial as jit_partial
from weft._lift.shards import shard_map as shard_map
