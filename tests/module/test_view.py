"""Views and copies with other attributes: new objects around the same Variables."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx


class Block(nnx.Module):
    def __init__(self, rngs):
        self.linear = nnx.Linear(2, 2, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.norm = nnx.BatchNorm(2, rngs=rngs)
        self.width = 2

    def __call__(self, x):
        return self.drop(self.norm(self.linear(x)))


class Model(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.blocks = [Block(rngs), Block(rngs)]
        self.again = self.blocks[0]
        self.width = 3

    def set_view(self, width: int | None = None, **rest: object) -> None:
        """Sets the width.

        Args:
          width: how wide
            it is.
          **rest: is kept.

        Returns:
          nothing.
        """
        if width is not None:
            self.width = width
        if rest:
            self.rest = rest


@pytest.fixture
def model():
    return Model()


# -- view
def test_a_view_shares_variables_and_has_objects_of_its_own(model):
    seen = nnx.view(model, deterministic=True, use_running_average=True)
    assert seen is not model and seen.blocks[0] is not model.blocks[0]
    assert seen.again is seen.blocks[0]
    for block, other in zip(seen.blocks, model.blocks, strict=True):
        assert block.drop.deterministic and block.norm.use_running_average
        assert not other.drop.deterministic and not other.norm.use_running_average
        assert block.linear.kernel is other.linear.kernel
        assert block.drop.rngs.key is other.drop.rngs.key


def test_writes_through_a_view_reach_the_model(model):
    seen = nnx.view(model, deterministic=True)
    x = jnp.ones((2, 2))

    @nnx.jit
    def forward(block, x):
        return block(x)

    forward(seen.blocks[0], x)
    assert float(model.blocks[0].norm.mean.value.sum()) != 0
    assert nnx.view(model, deterministic=True).blocks[0].norm.mean is model.blocks[0].norm.mean


def test_views_select_modules(model):
    seen = nnx.view(model, only=nnx.PathContains(1), deterministic=True)
    assert seen.blocks[1].drop.deterministic and not seen.blocks[0].drop.deterministic


def test_views_of_a_tree(model):
    seen = nnx.view({"a": model, "n": 1}, deterministic=True)
    assert seen["a"].blocks[1].drop.deterministic and seen["n"] == 1


def test_set_view_may_take_any_option(model):
    seen = nnx.view(model, width=7, anything=1)
    assert seen.width == 7 and seen.rest == {"anything": 1}
    assert model.width == 3 and not hasattr(model, "rest")


def test_an_option_that_no_module_takes(model):
    block = model.blocks[0]
    with pytest.raises(ValueError, match=r"in Block has a view option 'dterministic'; there are"):
        nnx.view(block, dterministic=True)
    with pytest.raises(ValueError, match=r"there are \['use_running_average'\]"):
        nnx.view(block, only=nnx.BatchNorm, deterministic=True)
    assert nnx.view(block, dterministic=True, raise_if_not_found=False) is not block


def test_view_inside_jit(model):
    @nnx.jit
    def forward(block, x):
        return nnx.view(block, deterministic=True, use_running_average=True)(x)

    x = jnp.ones((2, 2))
    block = nnx.view(model, deterministic=True, use_running_average=True).blocks[0]
    assert jnp.allclose(forward(model.blocks[0], x), block(x))


# -- view_info
def test_view_info_lists_options_with_their_documentation(model):
    assert nnx.view_info(model) == inspect.cleandoc(
        """
        BatchNorm:
          use_running_average: bool | None = None
            whether to use the running statistics.
        Dropout:
          deterministic: bool | None = None
            whether to return the input as it is.
        Model:
          width: int | None = None
            how wide
            it is.
          rest: object
            is kept.
        """
    )
    assert nnx.view_info(model, only=nnx.Dropout).splitlines()[0] == "Dropout:"
    assert nnx.view_info(model.blocks[0].linear) == ""


def test_view_info_without_documentation_or_annotations():
    class Bare(nnx.Module):
        def set_view(self, a, b: int = 3):
            pass

    assert nnx.view_info(Bare()) == "Bare:\n  a\n  b: int = 3"


# -- with_attributes
def test_attributes_are_replaced_in_a_copy(model):
    copy = nnx.with_attributes(model, width=9)
    assert (copy.width, copy.blocks[0].width, copy.again.width) == (9, 9, 9)
    assert (model.width, model.blocks[0].width) == (3, 2)
    assert copy.blocks[0].linear.kernel is model.blocks[0].linear.kernel
    assert nnx.with_attributes(model, only=Block, width=9).width == 3


def test_attributes_that_no_module_has(model):
    with pytest.raises(ValueError, match="no selected Module in Model has an attribute named 'no'"):
        nnx.with_attributes(model, no=1, width=2)
    assert nnx.with_attributes(model, no=1, width=2, raise_if_not_found=False).width == 2


def test_views_are_pytrees(model):
    seen = nnx.view(model.blocks[0], deterministic=True)
    assert len(jax.tree.leaves(seen)) == len(jax.tree.leaves(model.blocks[0]))


# -- stacked layers


class Counter(nnx.Module):
    def set_view(self, size: int) -> None:
        self.count = nnx.Cache(jnp.arange(size))


class Layers(nnx.Module):
    """What a Stack is to views."""

    def __init__(self, inner: nnx.Module, n: int):
        self.stacked = inner
        self.plain = Counter()
        self.n = n

    @property
    def __nnx_stacked__(self) -> dict[str, int]:
        return {"stacked": self.n}


def test_what_is_made_among_stacked_layers_has_their_axes():
    seen = nnx.view(Layers(Layers(Counter(), 3), 2), size=4)
    inner = seen.stacked
    assert seen.plain.count.shape == (4,) and inner.plain.count.shape == (2, 4)
    assert inner.stacked.count.shape == (2, 3, 4)
    assert (inner.stacked.count[...] == jnp.arange(4)).all()


def test_a_stack_decodes_as_it_computes_at_once():
    class Attention(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.inner = nnx.MultiHeadAttention(2, 8, decode=False, rngs=rngs)

        def __call__(self, x):
            return x + self.inner(x, is_causal=True)

    model = nnx.Stack(Attention, 3, rngs=nnx.Rngs(0))
    x = jnp.sin(jnp.arange(80.0).reshape(2, 5, 8))
    for _ in range(2):  # each with an empty cache
        decoder = nnx.view(model, decode=True, batch_size=2, max_length=5)
        parts = [decoder(x[:, i : i + 1]) for i in range(5)]
        np.testing.assert_allclose(jnp.concatenate(parts, 1), model(x), atol=1e-5)
    assert decoder.stacked.inner.cached_key.shape == (3, 2, 5, 2, 4)
    assert model.stacked.inner.cached_key is None
    assert decoder.stacked.inner.query.kernel is model.stacked.inner.query.kernel
