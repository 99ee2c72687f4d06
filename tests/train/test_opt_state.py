"""The trees that Optax is given, and the types and metadata of its state."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import weft as nnx


class Net(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.body = [nnx.Linear(2, 2, rngs=rngs), nnx.Linear(2, 2, rngs=rngs)]
        self.head = nnx.Linear(2, 2, rngs=rngs)


def label(path, leaf):
    return "bias" if "bias" in jax.tree_util.keystr(path) else "kernel"


def partitioned(labels):
    return optax.partition({"kernel": optax.adam(1e-2), "bias": optax.sgd(0.1)}, labels)


LABELS = lambda tree: jax.tree.map_with_path(label, tree)  # noqa: E731


@pytest.mark.parametrize(
    "make_labels",
    {
        "function": lambda state: LABELS,
        "state of labels": lambda state: nnx.map_state(lambda p, x: label((), x) and p[-1], state),
        "state of Variables": LABELS,
        "nested dicts": lambda state: LABELS(nnx.to_pure_dict(state)),
        "function that returns nested dicts": lambda state: (
            lambda tree: {
                "body": LABELS(tree["body"]),
                "head": {"kernel": "kernel", "bias": "bias"},
            }
        ),
    }.items(),
    ids=lambda item: item[0],
)
def test_labels_may_be_written_in_every_usual_way(make_labels):
    model, expected = Net(), Net()
    state = nnx.state(model, nnx.Param)
    optimizer = nnx.Optimizer(model, partitioned(make_labels[1](state)), wrt=nnx.Param)
    reference = nnx.Optimizer(expected, partitioned(LABELS), wrt=nnx.Param)
    grads = jax.tree.map(jnp.ones_like, state)
    for _ in range(2):
        optimizer.update(model, grads)
        reference.update(expected, grads)
    for one, other in zip(jax.tree.leaves(model), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(one, other)
    assert nnx.to_flat_state(nnx.state(optimizer)).paths == (
        nnx.to_flat_state(nnx.state(reference)).paths
    )


def test_labels_that_fit_no_form_name_the_parameters():
    with pytest.raises(ValueError) as caught:
        nnx.Optimizer(Net(), partitioned({"boddy": "kernel"}), wrt=nnx.Param)
    [note] = caught.value.__notes__
    assert "neither as a State nor as nested dicts" in note
    assert "nnx.map_state(" in note and "body[0].kernel" in note


# -- state

PATHS = {
    ("opt_state", 0, "count"): "OptArray",
    ("opt_state", 0, "mu", "bias"): "OptVariable",
    ("opt_state", 0, "mu", "kernel"): "OptVariable",
    ("opt_state", 0, "nu", "bias"): "OptVariable",
    ("opt_state", 0, "nu", "kernel"): "OptVariable",
    ("step",): "OptState",
}


def test_state_has_the_types_and_paths_of_the_peer():
    model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(1e-3), wrt=nnx.Param)
    flat = nnx.to_flat_state(nnx.state(optimizer))
    assert {path: type(leaf).__name__ for path, leaf in flat} == PATHS
    assert optimizer.step[...].dtype == jnp.uint32
    assert optimizer.opt_state[0].mu["kernel"].shape == (2, 3)


def test_moments_carry_metadata_but_no_hooks_and_no_misfit_sharding():
    double = lambda variable, value: 2 * value  # noqa: E731
    model = nnx.Linear(
        128,
        256,
        use_bias=False,
        kernel_metadata={"out_sharding": (None, None), "group": "a", "on_set_value": (double,)},
        rngs=nnx.Rngs(0),
    )
    moment = nnx.Optimizer(model, optax.adam(0.1), wrt=nnx.Param).opt_state[0].mu["kernel"]
    assert moment.get_metadata() == {"out_sharding": (None, None), "group": "a"}
    factored = nnx.Optimizer(model, optax.adafactor(0.1), wrt=nnx.Param).opt_state[0].v_row
    assert factored["kernel"].shape == (128,)
    assert factored["kernel"].get_metadata() == {"group": "a"}


def test_a_parameter_named_like_optimizer_state_is_no_moment():
    class Odd(nnx.Module):
        def __init__(self):
            self.count = nnx.Param(jnp.ones((2, 2)))
            self.mu = nnx.Param(jnp.ones(3))

    optimizer = nnx.Optimizer(Odd(), optax.adam(1e-3), wrt=nnx.Param)
    flat = dict(nnx.to_flat_state(nnx.state(optimizer)))
    assert type(flat["opt_state", 0, "count"]) is nnx.OptArray
    assert type(flat["opt_state", 0, "mu", "mu"]) is nnx.OptVariable


def test_to_opt_state_leaves_holes_of_masks():
    boxed = nnx.optimizer.to_opt_state(
        {"hole": nnx.Param(optax.MaskedNode()), "mu": nnx.Param(jnp.ones(2)), "n": 3}
    )
    assert boxed["hole"] == optax.MaskedNode()
    assert type(boxed["mu"]) is nnx.OptVariable and type(boxed["n"]) is nnx.OptArray


def test_moments_may_be_sharded_in_another_way_than_their_parameter():
    mesh = jax.make_mesh((2, 2), ("x", "y"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    names = {"out_sharding": ("x", None), "optimizer_sharding": ("x", "y")}
    with jax.set_mesh(mesh):
        model = nnx.Linear(4, 2, rngs=nnx.Rngs(0), kernel_metadata=names)
        moment = nnx.Optimizer(model, optax.adam(1e-3), wrt=nnx.Param).opt_state[0].mu["kernel"]
    assert moment.get_value().sharding.spec == jax.P("x", "y")
    assert moment.get_metadata() == {"out_sharding": ("x", "y")}
    assert model.kernel.get_value().sharding.spec == jax.P("x", None)
