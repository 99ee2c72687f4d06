"""Variables, under the name that code of the NNX API imports them from."""

from weft._core.config import use_eager_sharding as use_eager_sharding
from weft._core.config import using_eager_sharding as using_eager_sharding
from weft._core.types import MISSING as MISSING
from weft._flax_names.variable_modes import VarDefaults as VarDefaults, var_defaults as var_defaults
from weft._variable.metadata import VariableMetadata as VariableMetadata
from weft._variable.metadata import with_metadata as with_metadata
from weft._variable.names import register_variable_name as register_variable_name
from weft._variable.names import variable_name_from_type as variable_name_from_type
from weft._variable.names import variable_type_from_name as variable_type_from_name
from weft._variable.types import BatchStat as BatchStat, Cache as Cache
from weft._variable.types import Intermediate as Intermediate, Param as Param
from weft._variable.types import Perturbation as Perturbation
from weft._variable.variable import Variable as Variable

VariableState = Variable
