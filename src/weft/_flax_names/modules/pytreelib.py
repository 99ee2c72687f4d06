"""Objects, under the name that code of the NNX API imports them from."""

from dataclasses import dataclass as _frozen_dataclass
from dataclasses import field as _field

from weft._module import Data as Data, Object as Object, Pytree as Pytree, Static as Static
from weft._module import check_pytree as check_pytree, data as data, has_data as has_data
from weft._module import is_data as is_data, register_data_type as register_data_type
from weft._module import static as static
from weft._module.dataclass import dataclass as dataclass
from weft._variable.variable import Variable as Variable

from .tracers import TraceState as _TraceState


@_frozen_dataclass(frozen=True)
class PytreeState:
    """What the peer notes about an object; Weft keeps the trace alone, and keeps it elsewhere.

    Attributes:
      initializing: whether the object is being made by `lazy_init`.
      is_setup: whether its `setup` has run.
      trace_state: the trace that it belongs to.

    Example:
      >>> import weft as nnx
      >>> nnx.pytreelib.PytreeState().trace_state.is_valid()
      True
    """

    initializing: bool = False
    is_setup: bool = False
    trace_state: _TraceState = _field(default_factory=_TraceState, init=False)
