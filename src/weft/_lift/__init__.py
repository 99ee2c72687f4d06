"""Transforms: the one lift and its instances; see the README in this folder."""

from weft._lift.abstract import checkify as checkify
from weft._lift.abstract import checkpoint as checkpoint
from weft._lift.abstract import eval_shape as eval_shape
from weft._lift.abstract import make_jaxpr as make_jaxpr
from weft._lift.abstract import remat as remat
from weft._lift.autodiff import DiffState as DiffState
from weft._lift.autodiff import grad as grad
from weft._lift.autodiff import value_and_grad as value_and_grad
from weft._lift.branch import cond as cond
from weft._lift.branch import switch as switch
from weft._lift.custom_vjp import custom_vjp as custom_vjp
from weft._lift.jit import StateSharding as StateSharding
from weft._lift.jit import jit as jit
from weft._lift.loop import Carry as Carry
from weft._lift.loop import scan as scan
from weft._lift.map import PARTITION_NAME as PARTITION_NAME
from weft._lift.map import StateAxes as StateAxes
from weft._lift.map import pmap as pmap
from weft._lift.map import shard_map as shard_map
from weft._lift.map import transform_metadata as transform_metadata
from weft._lift.map import vmap as vmap
from weft._lift.repeat import fori_loop as fori_loop
from weft._lift.repeat import while_loop as while_loop
from weft._lift.vjp import jvp as jvp
from weft._lift.vjp import vjp as vjp
