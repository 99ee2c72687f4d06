"""Modules of Weft as Linen Modules."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx

linen = pytest.importorskip("flax.linen", reason="flax is not installed")

X = jax.random.normal(jax.random.key(7), (4, 3))


class Model(nnx.Module):
    def __init__(self, width, *, rngs):
        self.layers = [nnx.Linear(3, width, rngs=rngs)]
        self.norm = nnx.BatchNorm(width, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.table = jnp.ones(width)
        self.tied = self.layers[0]
        self.tagged = nnx.Param(jnp.ones(width), group="decay")

    def __call__(self, x, train=True):
        self.norm.use_running_average = not train
        self.drop.deterministic = not train
        x = self.norm(self.tied(x)) * self.table * self.tagged.value
        self.sow(nnx.Intermediate, "hidden", x)
        return self.drop(x)

    def double(self, x):
        return 2 * x


@pytest.fixture(scope="module")
def module():
    return nnx.bridge.to_linen(Model, 2)


@pytest.fixture(scope="module")
def variables(module):
    return module.init({"params": jax.random.key(0), "dropout": jax.random.key(1)}, X)


def test_variables_are_sorted_into_collections(variables):
    assert set(variables) == {"params", "batch_stats", "arrays"}
    assert set(variables["params"]) == {"layers", "norm", "tagged"}
    assert set(variables["params"]["layers"]) == {0}
    assert variables["arrays"]["table"].shape == (2,)
    box = variables["params"]["tagged"]
    assert type(box) is nnx.bridge.NNXMeta and box.to_nnx_variable().group == "decay"
    np.testing.assert_array_equal(variables["batch_stats"]["norm"]["mean"], [0.0, 0.0])


def test_a_call_without_mutable_collections_changes_nothing(module, variables):
    y = module.apply(variables, X, train=False)
    assert y.shape == (4, 2)
    np.testing.assert_array_equal(y, module.apply(variables, X, False))


def test_mutable_collections_come_out(module, variables):
    rngs = {"dropout": jax.random.key(2)}
    mutable = ["batch_stats", "intermediates"]
    y, updates = module.apply(variables, X, rngs=rngs, mutable=mutable)
    assert set(updates) == set(mutable) and bool(
        (updates["batch_stats"]["norm"]["mean"] != 0).any()
    )
    again, _ = module.apply(variables, X, rngs=rngs, mutable=mutable)
    np.testing.assert_array_equal(y, again)
    other, _ = module.apply(variables, X, rngs={"dropout": jax.random.key(3)}, mutable=mutable)
    assert bool((y != other).any())


def test_methods(module, variables):
    np.testing.assert_array_equal(module.apply(variables, X, nnx_method="double"), 2 * X)
    np.testing.assert_array_equal(module.apply(variables, X, nnx_method=Model.double), 2 * X)


def test_methods_and_keywords_are_attributes(module, variables):
    bound = module.bind(variables)
    np.testing.assert_array_equal(bound.double(X), 2 * X)
    np.testing.assert_array_equal(
        module.apply(variables, X, method=lambda m, x: m.double(x)), 2 * X
    )
    with_keyword = nnx.bridge.to_linen(nnx.Linear, 2, out_features=3)
    assert with_keyword.out_features == 3
    for name in ("missing", "__dlpack__"):
        with pytest.raises(AttributeError, match=name):
            getattr(module, name)


def test_it_goes_through_jax(module, variables):
    apply = jax.jit(lambda v, x: module.apply(v, x, train=False))
    np.testing.assert_allclose(
        apply(variables, X), module.apply(variables, X, train=False), rtol=1e-6
    )
    loss = lambda params: module.apply({**variables, "params": params}, X, train=False).sum()  # noqa: E731
    grads = jax.grad(loss)(variables["params"])
    assert grads["layers"][0]["kernel"].shape == (3, 2)


def test_inside_other_linen_modules():
    class Outer(linen.Module):
        @linen.compact
        def __call__(self, x):
            return nnx.bridge.to_linen(nnx.Linear, 4, 2, name="inner")(linen.Dense(4)(x))

    variables = Outer().init(jax.random.key(0), X)
    assert variables["params"]["inner"]["kernel"].shape == (4, 2)
    assert Outer().apply(variables, X).shape == (4, 2)


def test_one_key_is_enough_for_making_it(module):
    assert "params" in module.init(jax.random.key(0), X)


def test_a_module_without_rngs():
    scale = nnx.bridge.ToLinen(lambda n: nnx.Dict(w=nnx.Param(jnp.ones(n))), (3,), skip_rng=True)
    multiply = lambda m, x: m.w * x  # noqa: E731
    variables = scale.init(jax.random.key(0), X, nnx_method=multiply)
    np.testing.assert_array_equal(scale.apply(variables, X, nnx_method=multiply), X)


def test_linen_modules_inside_are_made_with_it():
    class Mixed(nnx.Module):
        def __init__(self, rngs):
            self.inner = nnx.bridge.ToNNX(
                linen.BatchNorm(use_running_average=False, momentum=0.0), rngs=rngs
            )

        def __call__(self, x):
            return self.inner(x)

    module = nnx.bridge.to_linen(Mixed)
    variables = module.init(jax.random.key(0), X)
    assert set(variables["batch_stats"]["inner"]) == {"mean", "var"}
    _, updates = module.apply(variables, X, mutable=["batch_stats"])
    np.testing.assert_allclose(updates["batch_stats"]["inner"]["mean"], X.mean(0), rtol=1e-5)
    back = nnx.bridge.ToNNX(nnx.bridge.to_linen(nnx.Linear, 3, 2), rngs=nnx.Rngs(0)).lazy_init(X)
    assert back.kernel.shape == (3, 2) and back(X).shape == (4, 2)


def test_partition_specs_of_linen():
    init = nnx.with_partitioning(nnx.initializers.lecun_normal(), (None, "model"))
    module = nnx.bridge.to_linen(nnx.Linear, 3, 2, kernel_init=init)
    variables = module.init(jax.random.key(0), X)
    specs = linen.get_partition_spec(variables)
    assert tuple(specs["params"]["kernel"]) == (None, "model")


def test_a_stream_without_a_key(module, variables):
    with pytest.raises(ValueError, match=r"the stream drop\.rngs drew a key, but Linen was given"):
        module.apply(variables, X)


def test_missing_variables(module, variables):
    with pytest.raises(nnx.StructureError, match=r"no norm\.mean, norm\.var: give `apply`"):
        module.apply({k: v for k, v in variables.items() if k != "batch_stats"}, X, train=False)
