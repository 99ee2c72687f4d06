"""Round trips by hand: objects through functions of values, and back in place."""

import jax
import pytest

import weft as nnx
from tests.flax_names.trips import Model, change, check


def test_contexts_with_a_tag():
    @jax.jit
    def inside(graphdef, state, again, nothing):
        with nnx.merge_context("trip", inner=True) as ctx:
            model, (alias,) = ctx.merge(graphdef, state), ctx.merge(again, nothing)
        assert alias is model.first
        change(model)
        with nnx.split_context("trip") as ctx:
            return ctx.split(model), ctx.split([model.second, model])

    for _ in range(2):  # the second time nothing is traced
        model = Model()
        first, second = model.first, model.second
        with nnx.update_context("trip") as context:
            assert nnx.current_update_context("trip") is context
            with nnx.split_context("trip") as ctx:
                parts = (*ctx.split(model), *ctx.split([model.first]))
            one, other = inside(*parts)
            with nnx.merge_context("trip", inner=False) as ctx:
                assert ctx.merge(*one) is model
                assert ctx.merge(*other) == [first, model]
        check(model, first, second)


def test_an_update_context_as_a_decorator():
    @nnx.update_context("here")
    def f():
        return nnx.current_update_context("here").tag

    assert f() == "here"
    with pytest.raises(ValueError, match="update context of the tag 'here', found none"):
        nnx.current_update_context("here")


def test_nothing_is_written_where_something_may_not_be():
    model = Model()
    with nnx.update_context("trip"):
        with nnx.split_context("trip") as ctx:
            parts = ctx.split(model)
        with nnx.merge_context("trip", True) as ctx:
            inner = ctx.merge(*parts)
        change(inner)
        with nnx.split_context("trip") as ctx:
            parts = ctx.split(inner)

        @jax.jit
        def write(parts):
            with nnx.merge_context("trip", False) as ctx:
                ctx.merge(*parts)

        with pytest.raises(nnx.TraceContextError):
            write(parts)
    assert model.label == "new" and int(model.steps[...]) == 0 and len(model.layers) == 1


def test_prefixes_of_what_a_tree_holds():
    layer = nnx.vmap(lambda rngs: nnx.Linear(2, 3, rngs=rngs))(nnx.Rngs(0).split(4))
    split = lambda ctx, path, prefix, x: nnx.NodeStates.from_split(  # noqa: E731
        *ctx.split(x, nnx.PathContains("kernel"), ...)
    )
    tree = nnx.to_tree([layer], split_fn=split)
    axes = [nnx.NodeStates.from_prefixes((0, None))]
    call = lambda tree: nnx.from_tree(tree)[0].kernel[...]  # noqa: E731
    assert jax.vmap(call, in_axes=(axes,), axis_size=4)(tree).shape == (4, 2, 3)
    cleared = nnx.extract.clear_non_graph_nodes({"a": layer, "x": 1, "f": [print]})
    assert cleared == {"a": layer, "x": None, "f": [None]}
