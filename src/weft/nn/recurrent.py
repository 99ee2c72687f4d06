"""Recurrent layers: a cell run over the time axis of its inputs.

Inputs have the shape (batch..., time, features...), or (time, batch..., features...) if they are
*time-major*. Sequences of a batch may be shorter than the time axis; what follows their *lengths*
is padding, which the last carry does not depend on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from weft._core.filters import Filter
from weft._graph import merge, split
from weft._graph.iterate import iter_graph
from weft._lift.loop import Carry, scan
from weft._lift.map import StateAxes
from weft._module import Module
from weft._rng import Rngs, RngStream
from weft._rng.rekey import split_rngs
from weft.nn.bidirectional import Bidirectional as Bidirectional
from weft.nn.bidirectional import RNNBase as RNNBase
from weft.nn.dtypes import as_array
from weft.nn.gru import GRUCell as GRUCell
from weft.nn.layer_rngs import find_stream
from weft.nn.lstm import LSTMCell as LSTMCell
from weft.nn.lstm import OptimizedLSTMCell as OptimizedLSTMCell
from weft.nn.nnx_names import names_for
from weft.nn.recurrent_cell import RNNCellBase as RNNCellBase
from weft.nn.recurrent_cell import carry_stream
from weft.nn.recurrent_cell import modified_orthogonal as modified_orthogonal
from weft.nn.simple_cell import SimpleCell as SimpleCell
from weft.nn.torch_weights import TorchWeights, of_part

__getattr__ = names_for(__name__)

Step = Callable[..., tuple[Any, jax.Array]]


class RNN(Module):
    """Runs a cell over the time axis, with one compiled step.

    Args:
      cell: the cell.
      time_major: whether the inputs are (time, batch..., features...).
      return_carry: whether to return the last carry too.
      reverse: whether to run backwards in time; the sequences are turned round, up to their
        lengths.
      keep_order: whether to turn the outputs back into the order of the inputs, if `reverse`.
      unroll: how many steps to unroll, as for `jax.lax.scan`.
      state_axes: what is done with the cell's Variables, as a `StateAxes` for `nnx.scan`; None
        to carry all of them from step to step.
      broadcast_rngs: a filter for the cell's streams that draw the same keys in every step.
      rngs: what a carry that is not zeros is drawn from: an `Rngs` or a stream, of which one is
        kept; True for a stream of seed 0; False or None for none.

    Attributes:
      rngs: the stream kept for the first carry, or None. With `rngs=True` there is none if the
        carry is zeros.

    Raises:
      TypeError: if `rngs` is of another type.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> layer = nnx.RNN(nnx.LSTMCell(3, 4, rngs=nnx.Rngs(0)), return_carry=True)
      >>> carry, outputs = layer(jnp.ones((2, 5, 3)), seq_lengths=jnp.array([5, 2]))
      >>> outputs.shape
      (2, 5, 4)
      >>> bool((carry[1] == outputs[jnp.arange(2), jnp.array([4, 1])]).all())
      True
    """

    def __init__(
        self,
        cell: RNNCellBase,
        *,
        time_major: bool = False,
        return_carry: bool = False,
        reverse: bool = False,
        keep_order: bool = False,
        unroll: int = 1,
        state_axes: Any = None,
        broadcast_rngs: Filter = None,
        rngs: Rngs | RngStream | bool | None = True,
    ):
        self.cell = cell
        self.time_major = time_major
        self.return_carry = return_carry
        self.reverse = reverse
        self.keep_order = keep_order
        self.unroll = unroll
        self.state_axes = StateAxes({...: Carry}) if state_axes is None else state_axes
        self.broadcast_rngs = broadcast_rngs
        self.rngs = carry_stream(rngs, "RNN", needed=self.draws_carry)

    @property
    def draws_carry(self) -> bool:
        """Whether the cell may draw its first carry."""
        return getattr(self.cell, "draws_carry", True)

    @property
    def torch_weights(self) -> TorchWeights:
        """What `nnx.load_weights` takes: the weights of the first layer of a `torch.nn.LSTM`."""
        return of_part("cell", getattr(self.cell, "torch_weights", {}), "_l0")

    def __call__(
        self,
        inputs: jax.Array,
        *,
        initial_carry: Any = None,
        seq_lengths: jax.Array | None = None,
        return_carry: bool | None = None,
        time_major: bool | None = None,
        reverse: bool | None = None,
        keep_order: bool | None = None,
        rngs: Rngs | RngStream | None = None,
    ) -> Any:
        """Returns the outputs of all steps, or the last carry and these.

        Args:
          inputs: of shape (batch..., time, features...), or time-major.
          initial_carry: the carry before the first step, cast to the dtypes in which the cell
            returns it; None to let the cell make it.
          seq_lengths: the lengths of the sequences, integers of the batch's shape; None for the
            whole time axis. The carry returned is the one after the last step within the length;
            outputs after it are of no meaning.
          return_carry: overrides the layer's.
          time_major: overrides the layer's.
          reverse: overrides the layer's.
          keep_order: overrides the layer's.
          rngs: what to draw the first carry from, in place of the layer's stream.

        Returns:
          Outputs in the layout of the inputs, or (last carry, outputs).

        Raises:
          ValueError: if the inputs have too few axes, the lengths another shape than the batch,
            or there is nothing to draw the carry from.
        """
        return_carry = self.return_carry if return_carry is None else return_carry
        time_major = self.time_major if time_major is None else time_major
        reverse = self.reverse if reverse is None else reverse
        keep_order = self.keep_order if keep_order is None else keep_order

        inputs = as_array(inputs)
        num_features = self.cell.num_feature_axes
        num_batch = inputs.ndim - num_features - 1
        if num_batch < 0:
            layout = "(time, batch..., features)" if time_major else "(batch..., time, features)"
            raise ValueError(
                f"RNN expects inputs of shape {layout} with {num_features} feature axes, found "
                f"shape {inputs.shape}: to run a single step, call the cell, `rnn.cell(carry, x)`"
            )
        time_axis = 0 if time_major else num_batch
        step_shape = inputs.shape[:time_axis] + inputs.shape[time_axis + 1 :]
        if seq_lengths is not None:
            seq_lengths = jnp.asarray(seq_lengths)
            _check_lengths(seq_lengths, step_shape[:num_batch])
        if reverse:
            inputs = flip_sequences(inputs, seq_lengths, num_batch, time_major)
        carry = initial_carry
        if carry is None:
            carry = self.cell.initialize_carry(step_shape, _stream(self, rngs))
        carry = _in_dtypes_of_step(self.cell, carry, step_shape, inputs.dtype)
        carry, outputs = _scan(
            self, carry, inputs, time_axis, seq_lengths if return_carry else None
        )
        if reverse and keep_order:
            outputs = flip_sequences(outputs, seq_lengths, num_batch, time_major)
        return (carry, outputs) if return_carry else outputs


def _stream(layer: Any, given: Rngs | RngStream | None) -> RngStream | None:
    if isinstance(given, Rngs):
        return find_stream(given, "carry", "RNN").fork()
    return layer.rngs if given is None else given


def _scan(
    layer: Any, carry: Any, inputs: jax.Array, time_axis: int, seq_lengths: jax.Array | None
) -> tuple[Any, jax.Array]:
    out_axes = (Carry, time_axis)
    if seq_lengths is None:
        in_axes = (layer.state_axes, Carry, time_axis)
        with _same_keys(layer, _step) as step:
            run = scan(step, in_axes=in_axes, out_axes=out_axes, unroll=layer.unroll)
            return run(layer.cell, carry, inputs)
    in_axes = (layer.state_axes, Carry, time_axis, None)
    with _same_keys(layer, _step_within_lengths) as step:
        run = scan(step, in_axes=in_axes, out_axes=out_axes, unroll=layer.unroll)
        start = (carry, carry, jnp.zeros((), seq_lengths.dtype))
        (_, last, _), outputs = run(layer.cell, start, inputs, seq_lengths)
        return last, outputs


@contextlib.contextmanager
def _same_keys(layer: Any, step: Step) -> Iterator[Step]:
    """Gives the streams of `broadcast_rngs` keys for one call; yields a step that starts them.

    The step is a function of this module where there are none, so that scans are not retraced.
    """
    if layer.broadcast_rngs is None:
        yield step
        return
    with split_rngs(layer.cell, splits=1, only=layer.broadcast_rngs, squeeze=True) as backups:
        chosen = {id(stream) for stream, *_ in backups}
        places = [i for i, stream in enumerate(_streams(layer.cell)) if id(stream) in chosen]

        def starting(cell: Any, *args: Any) -> Any:
            streams = _streams(cell)
            for place in places:
                count = streams[place].count
                count.set_value(jnp.zeros_like(count.get_value()))
            return step(cell, *args)

        yield starting


def _streams(cell: Any) -> list[RngStream]:
    return [node for _, node in iter_graph(cell) if isinstance(node, RngStream)]


def _step(cell: Any, carry: Any, inputs: jax.Array) -> tuple[Any, jax.Array]:
    return cell(carry, inputs)


def _step_within_lengths(
    cell: Any, carry: Any, inputs: jax.Array, seq_lengths: jax.Array
) -> tuple[Any, jax.Array]:
    """One step that keeps beside the carry the last one within the lengths, and the time."""
    current, last, time = carry
    current, outputs = cell(current, inputs)
    # The copy comes before the selection, so that gradients of the two carries are added before
    # that of the outputs: the order, and so the last bit, of a loop that emits every carry.
    outputs = jax.tree.map(jnp.copy, outputs)

    def update(old: jax.Array, new: jax.Array) -> jax.Array:
        within = time < seq_lengths
        return jnp.where(within.reshape(within.shape + (1,) * (new.ndim - within.ndim)), new, old)

    return (current, jax.tree.map(update, last, current), time + 1), outputs


def _in_dtypes_of_step(cell: Any, carry: Any, step_shape: tuple[int, ...], dtype: Any) -> Any:
    """Returns a carry in the dtypes that a step returns it in: a loop cannot change them."""
    dtypes = {getattr(cell, "dtype", None), getattr(cell, "param_dtype", dtype)} - {None}
    dtypes |= {jnp.result_type(leaf) for leaf in jax.tree.leaves(carry)}
    if {jnp.dtype(each) for each in dtypes} == {jnp.dtype(dtype)}:
        return carry
    graphdef, state = split(cell)
    after = jax.eval_shape(
        lambda state, carry, inputs: merge(graphdef, state)(carry, inputs)[0],
        state,
        carry,
        jax.ShapeDtypeStruct(step_shape, dtype),
    )
    return jax.tree.map(lambda old, new: jnp.asarray(old).astype(new.dtype), carry, after)


def _check_lengths(seq_lengths: jax.Array, batch: tuple[int, ...]) -> None:
    if seq_lengths.shape != batch or not jnp.issubdtype(seq_lengths.dtype, jnp.integer):
        raise ValueError(
            f"RNN expects seq_lengths as integers of the batch's shape {batch}, one length per "
            f"sequence, found {seq_lengths.dtype} of shape {seq_lengths.shape}"
        )


def flip_sequences(
    inputs: jax.Array, seq_lengths: jax.Array | None, num_batch_dims: int, time_major: bool
) -> jax.Array:
    """Returns sequences turned round in time, each up to its length.

    Args:
      inputs: of shape (batch..., time, features...), or time-major.
      seq_lengths: the lengths, integers of the batch's shape; None for the whole time axis.
      num_batch_dims: how many batch axes there are.
      time_major: whether the time axis comes first.

    Returns:
      An array of the same shape. Padding stays behind its sequence, turned round itself.

    Raises:
      ValueError: if the lengths do not have the batch's shape.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> x = jnp.array([[[1], [2], [3], [0]]])
      >>> nnx.nn.recurrent.flip_sequences(x, jnp.array([3]), 1, False)[0, :, 0].tolist()
      [3, 2, 1, 0]
    """
    time_axis = 0 if time_major else num_batch_dims
    if seq_lengths is None:
        return jnp.flip(inputs, time_axis)
    batch = inputs.shape[1 : 1 + num_batch_dims] if time_major else inputs.shape[:num_batch_dims]
    _check_lengths(seq_lengths, batch)
    steps = inputs.shape[time_axis]
    backwards = jnp.arange(steps - 1, -1, -1, dtype=seq_lengths.dtype)
    over_time = [steps if axis == time_axis else 1 for axis in range(num_batch_dims + 1)]
    source = (backwards.reshape(over_time) + jnp.expand_dims(seq_lengths, time_axis)) % steps
    source = source.reshape(source.shape + (1,) * (inputs.ndim - source.ndim))
    return jnp.take_along_axis(inputs, source, axis=time_axis)
