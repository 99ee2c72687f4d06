"""The table that turns token numbers into vectors, and vectors into logits over tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec, get_abstract_mesh

from weft._module import Module
from weft._rng import Rngs
from weft.nn import dtypes
from weft.nn.initializers import Initializer, default_embed_init
from weft.nn.linear import OutSharding, given
from weft.nn.parameters import NO_METADATA, check_sizes, new_param
from weft.nn.torch_weights import TorchWeights


class Embed(Module):
    """A table with one row of features for each token.

    Args:
      num_embeddings: number of tokens.
      features: size of a row.
      dtype: computation dtype; by default that of the table.
      param_dtype: dtype of the table.
      embedding_init: initializer of the table.
      promote_dtype: what casts the table and queries to `dtype`.
      rngs: random streams; `params` is used.
      embedding_metadata: keyword metadata of the table.

    Attributes:
      embedding: Param of shape (num_embeddings, features).

    Raises:
      TypeError: if `rngs` is not an `Rngs`.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> embed = nnx.Embed(num_embeddings=10, features=4, rngs=nnx.Rngs(0))
      >>> vectors = embed(jnp.array([[1, 2, 3]]))
      >>> vectors.shape
      (1, 3, 4)
      >>> embed.attend(vectors).shape
      (1, 3, 10)
    """

    torch_weights: ClassVar[TorchWeights] = {"weight": "embedding"}

    def __init__(
        self,
        num_embeddings: int,
        features: int,
        *,
        dtype: dtypes.Dtype | None = None,
        param_dtype: dtypes.Dtype = jnp.float32,
        embedding_init: Initializer = default_embed_init,
        promote_dtype: dtypes.PromoteDtype = dtypes.promote_dtype,
        rngs: Rngs,
        embedding_metadata: Mapping[str, Any] = NO_METADATA,
    ):
        check_sizes(self, num_embeddings=num_embeddings, features=features)
        shape = (num_embeddings, features)
        self.embedding = new_param(
            self, rngs, embedding_init, shape, param_dtype, embedding_metadata
        )
        self.num_embeddings = num_embeddings
        self.features = features
        self.dtype = self.embedding.dtype if dtype is None else dtype
        self.param_dtype = param_dtype
        self.promote_dtype = promote_dtype

    def __call__(self, inputs: jax.Array, out_sharding: OutSharding = None) -> jax.Array:
        """Looks up rows.

        Args:
          inputs: token numbers, integers of any shape. One that is not in the table, negative or
            too large, gets zeros, and no row a gradient; -1 may mark padding.
          out_sharding: sharding of the result, on a mesh of explicit axes; None for that of the
            tokens and of the features in the table.

        Returns:
          An array of shape (*inputs.shape, features).

        Raises:
          ValueError: if `inputs` are not integers.
        """
        inputs = jnp.asarray(inputs)
        if not jnp.issubdtype(inputs.dtype, jnp.integer):
            raise ValueError(
                f"Embed(num_embeddings={self.num_embeddings}, features={self.features}) expects "
                f"integer token numbers, found {inputs.dtype.name}: cast them, "
                "`inputs.astype(jnp.int32)`"
            )
        (table,) = self.promote_dtype((self.embedding[...],), dtype=self.dtype, inexact=False)
        if out_sharding is None and AxisType.Explicit in get_abstract_mesh().axis_types:
            out_sharding = _sharding_of_rows(inputs, table)
        options = {"mode": "fill", "fill_value": 0, "wrap_negative_indices": False}
        return table.at[inputs].get(**options, **given(out_sharding=out_sharding))

    def attend(self, query: jax.Array, out_sharding: OutSharding = None) -> jax.Array:
        """Compares vectors with all rows, as a last layer that shares the table does.

        Args:
          query: array of shape (..., features).
          out_sharding: sharding of the result, on a mesh of explicit axes.

        Returns:
          The inner products, of shape (..., num_embeddings).

        Raises:
          ValueError: if the last axis of `query` is not `features` long.
        """
        query = dtypes.as_array(query)
        query, table = self.promote_dtype((query, self.embedding[...]), dtype=self.dtype)
        if query.shape[-1:] != (self.features,):
            raise ValueError(
                f"Embed(num_embeddings={self.num_embeddings}, features={self.features}).attend "
                f"expects a query of shape (..., {self.features}), found shape {query.shape}: "
                f"project it first, `nnx.Linear({(query.shape or (1,))[-1]}, {self.features}, ...)`"
            )
        return jnp.dot(query, table.T, out_sharding=out_sharding)


def _sharding_of_rows(ids: jax.Array, table: jax.Array) -> PartitionSpec:
    """Returns the sharding of rows that are looked up, which JAX does not find out by itself."""
    *_, features = jax.typeof(table).sharding.spec
    of_ids = jax.typeof(ids).sharding.spec
    taken = {axis for axes in of_ids for axis in (axes if isinstance(axes, tuple) else (axes,))}
    wanted = features if isinstance(features, tuple) else (features,)
    return PartitionSpec(*of_ids, None if taken & {*wanted} else features)
