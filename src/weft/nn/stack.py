"""Stacks: blocks of one structure, stored as one and run by one scan.

A *block* is a Module that is called on a value and returns the next one, as the layers of a
transformer are. A *stack* of n blocks holds a single Module of their structure, in which every
Variable has the n blocks on axis 0, so that tracing and compiling cost the same for any n. A
*layer* is one block of a stack, looked at and changed in its place.
"""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable, Iterator
from typing import Any, Generic, NoReturn, TypeVar, overload

import jax

from weft._core import trace
from weft._core.caches import forgets
from weft._core.errors import StructureError, TraceContextError
from weft._core.path import format_path
from weft._core.static import Static
from weft._core.types import MISSING
from weft._graph.iterate import iter_graph
from weft._lift.abstract import remat
from weft._lift.loop import Carry, scan
from weft._lift.map import PARTITION_NAME, vmap
from weft._module import Module, Pytree
from weft._object.kinds import holds_data
from weft._object.pytree import attributes
from weft._rng import Rngs, RngStream
from weft._variable.variable import Variable
from weft.nn.stack_layers import layers_of

B = TypeVar("B", bound=Module)
Policy = Callable[..., bool]


class Stack(Module, Generic[B]):
    """A number of blocks of one structure, applied in turn by one `nnx.scan`.

    `stack(x, *args, **kwargs)` is `for block in blocks: x = block(x, *args, **kwargs)`, at the
    cost of one block to trace and to compile. Each block has parameters and random streams of its
    own. `stack[i]` is one layer, `stack[i:j]` a stack of several, and iterating yields the layers:
    what is read there is the stack's current value, and what is written reaches the stack. Where
    blocks differ in structure or shape, put several stacks in a row.

    Args:
      block: makes one block from its `Rngs`.
      n: how many blocks, at least 1.
      rngs: streams that are split into one key per block; an `Rngs` or a stream.
      remat: True to compute intermediate values of a block again for the gradient, or the policy
        that says which are kept, as for `jax.checkpoint`; None or False to keep them all.
      unroll: how many blocks one iteration of the loop runs; True for all of them.
      has_aux: whether a block returns a pair of the next value and an output of its own.
      partition: the mesh axis that the axis of the blocks is sharded over, for the sharding
        metadata of the Variables.

    Attributes:
      stacked: the Module of all blocks; its Variables and arrays have the shape (n, ...).
      n: how many blocks.

    Raises:
      ValueError: if `n` is less than 1.
      TypeError: if `block` is a block, or returns no Module that can be called; if `n` is no
        int, or `rngs` no Rngs or stream.
      StructureError: if a block contains a Variable made outside of it.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> trunk = nnx.Stack(lambda rngs: nnx.Linear(4, 4, rngs=rngs), 12, rngs=nnx.Rngs(0))
      >>> trunk(jnp.ones((2, 4))).shape, trunk.stacked.kernel.shape
      ((2, 4), (12, 4, 4))
      >>> trunk[3].bias[...] = jnp.ones(4)
      >>> trunk.stacked.bias[:, 0].sum().item()
      1.0
    """

    def __init__(
        self,
        block: Callable[[Rngs], B],
        n: int = MISSING,  # type: ignore[assignment]
        *,
        rngs: Rngs | RngStream = MISSING,  # type: ignore[assignment]
        remat: bool | Policy | None = None,
        unroll: int | bool = 1,
        has_aux: bool = False,
        partition: str | None = None,
    ):
        _check_maker(block)
        if isinstance(n, bool) or not hasattr(n, "__index__"):
            found = "none" if n is MISSING else repr(n)
            raise TypeError(
                f"Stack needs the number of blocks, found {found}: "
                "`nnx.Stack(f, 12, rngs=nnx.Rngs(0))`"
            )
        if operator.index(n) < 1:
            raise ValueError(
                f"Stack needs at least one block, found n={n!r}: `nnx.Stack(f, 12, rngs=rngs)`"
            )
        if not isinstance(rngs, (Rngs, RngStream)):
            found = "none" if rngs is MISSING else type(rngs).__name__
            raise TypeError(
                f"Stack takes `rngs` as an nnx.Rngs or an nnx.RngStream, found {found}. Write "
                f"`nnx.Stack(f, {n}, rngs=nnx.Rngs(0))`"
            )
        stacked = _make_blocks(block, n, rngs, partition)
        self._set_up(stacked, operator.index(n), remat, unroll, has_aux, partition)

    def _set_up(
        self,
        stacked: B,
        n: int,
        remat: bool | Policy | None = None,
        unroll: int | bool = 1,
        has_aux: bool = False,
        partition: str | None = None,
    ) -> None:
        if remat is not None and not isinstance(remat, bool) and not callable(remat):
            raise TypeError(
                f"Stack takes `remat` as None, a bool or a policy, found {remat!r}: "
                "`remat=jax.checkpoint_policies.dots_saveable`"
            )
        self.stacked = stacked
        self.n = n
        self.remat = remat
        self.unroll = unroll
        self.has_aux = has_aux
        self.partition = partition

    @property
    def __nnx_stacked__(self) -> dict[str, int]:
        return {"stacked": self.n}

    def __call__(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Applies all blocks in turn.

        Args:
          x: what the first block is called on: an array, or a pytree of arrays and objects. Each
            block must return the same structure, shapes and dtypes.
          *args: further arguments, the same for all blocks: what one writes of their Variables,
            the next one reads. What is no array or object in them stays a plain Python value.
          **kwargs: likewise.

        Returns:
          What the last block returned. With `has_aux` a pair of this and of the outputs of all
          blocks, stacked on axis 0.

        Raises:
          StructureError: if a block changes structure, shape or dtype of `x`.
          TypeError: if a block returns no pair with `has_aux`.
        """
        run = scan(
            _layer_function(self.remat, self.has_aux, self.unroll == 1),
            in_axes=(0, Carry, None, None),
            out_axes=(Carry, 0) if self.has_aux else Carry,
            length=self.n,
            unroll=self.unroll,
            transform_metadata={PARTITION_NAME: self.partition},
        )
        return run(self.stacked, x, _keep_plain(args), _keep_plain(kwargs))

    def __len__(self) -> int:
        """Returns the number of blocks."""
        return self.n

    @overload
    def __getitem__(self, index: int) -> B: ...
    @overload
    def __getitem__(self, index: slice) -> Stack[B]: ...
    def __getitem__(self, index: Any) -> Any:
        """Returns one layer, or a stack of several; writes to their Variables reach this stack.

        Structure, static attributes and metadata are common to all layers, and cannot be changed
        through one. Arrays that no Variable holds are copies.

        Raises:
          IndexError: if there is no such layer.
          TypeError: if the index is neither an int nor a slice.
        """
        if isinstance(index, slice):
            chosen = range(self.n)[index]
            part = layers_of(self)(chosen)
            attributes(part)["n"] = len(chosen)
            return part
        try:
            position = range(self.n)[operator.index(index)]
        except IndexError:
            raise IndexError(f"a Stack of {self.n} blocks has no layer {index}") from None
        except TypeError:
            raise TypeError(
                f"layers of a Stack are chosen by an int or a slice, found {index!r}: `stack[3]`"
            ) from None
        return layers_of(self.stacked)(position)

    def __setitem__(self, index: Any, block: Any) -> NoReturn:
        """Is refused: there are no blocks to be replaced, but arrays of all of them."""
        raise TypeError(
            f"a Stack holds its {self.n} blocks in one array for each Variable, and none of them "
            f"can be put in place of another: write into a layer, `nnx.update(stack[{index!r}], "
            "nnx.state(block))`; or take the blocks apart and stack them anew, `blocks = "
            f"nnx.unstack(stack); blocks[{index!r}] = block; stack = nnx.stack(blocks)`"
        )

    def __delitem__(self, index: Any) -> NoReturn:
        """Is refused, likewise."""
        raise TypeError(
            f"a Stack holds its {self.n} blocks in one array for each Variable, and none of them "
            "can be taken out: take a part, `stack[1:]`, or take the blocks apart and stack some "
            f"anew, `blocks = nnx.unstack(stack); del blocks[{index!r}]; stack = nnx.stack(blocks)`"
        )

    def __iter__(self) -> Iterator[B]:
        return map(layers_of(self.stacked), range(self.n))


def _check_maker(block: Any) -> None:
    """Raises a TypeError for what cannot be called with random streams alone, to make a block."""
    if isinstance(block, (list, tuple, Module)) or not callable(block):
        found, name, blocks = f"a {type(block).__name__}", "Block", "blocks"
        if isinstance(block, Module) and callable(block):
            name, blocks = type(block).__name__, "[block, ...]"
        more = f"; blocks that are there already become a Stack by `nnx.stack({blocks})`"
    else:
        try:
            inspect.signature(block).bind(None)
        except ValueError:  # it has no signature that Python knows
            return
        except TypeError as error:
            name = getattr(block, "__name__", "Block").replace("<lambda>", "Block")
            found, more = f"{name}: {error}", ""
        else:
            return
    raise TypeError(
        f"Stack takes a function that makes a block of random streams, found {found}: write "
        f"`nnx.Stack(lambda rngs: {name}(..., rngs=rngs), n, rngs=rngs)`{more}"
    )


def make_stack(stacked: B, n: int, **options: Any) -> Stack[B]:
    """Makes a Stack of blocks that are stacked already."""
    new: Stack[B] = Stack.__new__(Stack)
    new._set_up(stacked, n, **options)
    return new


def _make_blocks(
    block: Callable[[Any], Any], n: int, rngs: Rngs | RngStream, partition: str | None
) -> Any:
    def make(rngs: Any) -> Any:
        return _make_block(block, rngs)

    make.__qualname__ = "Stack"
    try:
        mapped = vmap(make, axis_size=n, transform_metadata={PARTITION_NAME: partition})
        return mapped(rngs.split(n))
    except TraceContextError as error:
        error.add_note(
            "The function that a Stack is made with draws from the streams that it is given: "
            "`nnx.Stack(lambda rngs: Block(rngs=rngs), n, rngs=rngs)`"
        )
        raise


def _make_block(block: Callable[[Any], Any], rngs: Any) -> Any:
    """Makes one block while all of them are made, and checks that it can be one of several."""
    made = block(rngs)
    if not isinstance(made, Module) or not callable(made):
        raise TypeError(
            "the function that a Stack is made with must return a Module that can be called, "
            f"found {type(made).__name__}: `nnx.Stack(lambda rngs: Block(rngs=rngs), n, rngs=rngs)`"
        )
    here = trace.current()
    for path, value in iter_graph(made):
        if isinstance(value, Variable) and value._trace != here:
            where = format_path(path, type(made).__name__)
            raise StructureError(
                f"{where}, a {type(value).__name__}, was made outside of the function that a Stack "
                "is made with, so that every block would get a copy of its own. Make it inside, or "
                "pass what all blocks share at the call: `stack(x, shared)`"
            )
    return made


@functools.lru_cache(maxsize=256)
def _layer_function(
    remat_option: bool | Policy | None, has_aux: bool, is_loop: bool
) -> Callable[..., Any]:
    """Returns the body of the scan; the same for the same options, so that JAX knows it."""

    def call(block: Any, x: Any, args: Any, kwargs: Any) -> Any:
        out = block(x, *args, **kwargs)
        if has_aux and not (isinstance(out, tuple) and len(out) == 2):
            raise TypeError(
                f"a block of a Stack with has_aux=True must return a pair `(x, output)`, found "
                f"{type(out).__name__}, from a {type(block).__name__}"
            )
        return out

    # Where XLA sees a loop it cannot merge the two computations of a block, which `prevent_cse`
    # would keep it from at a cost.
    policy = remat_option if callable(remat_option) else None
    again = remat(call, prevent_cse=not is_loop, policy=policy)

    def layer(block: Any, x: Any, args: Any, kwargs: Any) -> Any:
        if remat_option:
            return again(block, x, _keep_plain(args), _keep_plain(kwargs))
        return call(block, x, args, kwargs)

    call.__qualname__ = layer.__qualname__ = "Stack"
    return layer


def _keep_plain(arguments: Any) -> Any:
    """Puts what is no array or object into boxes, for it to arrive as the Python value it is."""
    return jax.tree.map(
        lambda x: x if x is None or holds_data(x) else Static(x),
        arguments,
        is_leaf=lambda x: isinstance(x, (Variable, Pytree)),
    )


@forgets
def clear() -> None:
    """Forgets the bodies of the scans over blocks."""
    _layer_function.cache_clear()
