"""Sharding, under the name that code of the NNX API imports it from."""

from weft._sharding.abstract_model import abstract_with_sharding as abstract_with_sharding
from weft._sharding.abstract_model import as_abstract as as_abstract
from weft._sharding.abstract_model import get_abstract_model as get_abstract_model
from weft._sharding.partitioning import PARTITION_NAME as PARTITION_NAME, add_axis as add_axis
from weft._sharding.partitioning import get_named_sharding as get_named_sharding
from weft._sharding.partitioning import get_partition_spec as get_partition_spec
from weft._sharding.partitioning import get_var_pspec as get_var_pspec, remove_axis as remove_axis
from weft._sharding.partitioning import with_partitioning as with_partitioning
from weft._variable.sharding import with_logical_constraint as with_logical_constraint
