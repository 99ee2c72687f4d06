"""`jax.export` of functions of States, Variables and Modules, called in another process."""

import json
import subprocess
import sys

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx
from weft._core import exported as exporting

pytest.importorskip("flatbuffers", reason="jax.export needs it to write programs")


class Net(nnx.Module):
    def __init__(self, size=3):
        rngs = nnx.Rngs(0, dropout=1)
        self.layers = nnx.List([nnx.Linear(2, size, rngs=rngs), nnx.BatchNorm(size, rngs=rngs)])
        self.table, self.scale = jnp.ones(size), nnx.data(2.0)
        self.mixed = (jnp.ones(()), "text", 3)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.activation = jax.nn.relu
        self.rate = 0.1

    def __call__(self, x):
        for layer in self.layers:
            x = layer(x)
        x = self.activation(x + self.table * self.mixed[0]) * self.rate * self.scale
        return self.drop(x)


class Special(nnx.Param):
    """A type of the user's."""


def there_and_back(f, *args, symbolic=()):
    exported = jax.export.export(jax.jit(f))(*(symbolic or args))
    found = jax.export.deserialize(exported.serialize()).call(*args)
    jax.tree.map(assert_close, found, f(*args))
    return found


def assert_close(found, expected):
    expected = jnp.asarray(expected)
    if jax.dtypes.issubdtype(expected.dtype, jax.dtypes.prng_key):
        found, expected = map(jax.random.key_data, (found, expected))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


X = jnp.linspace(-1.0, 1.0, 8).reshape(4, 2)


def test_states():
    graphdef, params, rest = nnx.split(Net(), nnx.Param, ...)

    def step(params, rest, x):
        model = nnx.merge(graphdef, params, rest)
        return model(x), nnx.state(model, nnx.BatchStat)

    (_, stats) = there_and_back(step, params, rest, X)
    assert type(stats) is nnx.State
    assert list(stats["layers"]) == [1]  # an int, as before
    assert type(stats["layers"][1]["mean"]) is nnx.BatchStat
    there_and_back(lambda flat: flat, nnx.to_flat_state(params))
    there_and_back(lambda s: s, nnx.as_pure(params))
    there_and_back(lambda s: s, nnx.State({0: X, "a": {10: X, 2: X}}))  # of a pure dict


PUBLIC = [getattr(nnx, name) for name in dir(nnx)]
VARIABLES = {x for x in PUBLIC if isinstance(x, type) and issubclass(x, nnx.Variable)}


@pytest.mark.parametrize("kind", sorted(VARIABLES | {Special}, key=lambda kind: kind.__name__))
def test_variables(kind):
    found = there_and_back(lambda v: (v, v[...] * 2.0), kind(X, names=("a", None), rate=0.5))
    assert type(found[0]) is kind
    assert found[0].get_metadata() == {"names": ("a", None), "rate": 0.5}
    there_and_back(lambda v: v, kind({"k": X, "v": (X,)}))


def test_modules():
    def step(model, x):
        return model(x), model

    with jax.numpy_dtype_promotion("standard"):
        _, model = there_and_back(step, Net(), X)
    assert type(model) is Net
    assert (model.mixed[1:], model.rate, model.activation) == (("text", 3), 0.1, jax.nn.relu)
    there_and_back(lambda m, x: m(x), nnx.Sequential(nnx.Linear(2, 3, rngs=nnx.Rngs(0))), X)
    there_and_back(lambda r: r.normal((2,)), nnx.Rngs(0, params=1))


class Keyed(nnx.Module):
    def __init__(self):
        self.ints = {1: nnx.Param(X), 0: jnp.ones(2)}
        self.mixed = {"b": [jnp.zeros(2)], 3: nnx.Param(X), (1, None): "text"}
        self.nested = [{(0, 1): {2: nnx.Linear(2, 3, rngs=nnx.Rngs(0))}}]

    def __call__(self, x):
        return self.nested[0][0, 1][2](x) + self.ints[0].sum()


LAYERS = {
    "dicts with other keys than texts": Keyed,
    "RNN": lambda: nnx.RNN(nnx.GRUCell(2, 3, rngs=nnx.Rngs(0)), rngs=nnx.Rngs(0)),
    "WeightNorm": lambda: nnx.WeightNorm(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), rngs=nnx.Rngs(0)),
    "SpectralNorm": lambda: nnx.SpectralNorm(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), rngs=nnx.Rngs(0)),
    "Conv": lambda: nnx.Conv(2, 3, 2, padding="CAUSAL", rngs=nnx.Rngs(0)),
    "attention": lambda: nnx.MultiHeadAttention(2, 2, decode=False, rngs=nnx.Rngs(0)),
    "LoRALinear": lambda: nnx.LoRALinear(2, 3, lora_rank=1, rngs=nnx.Rngs(0)),
    "Stack": lambda: nnx.Stack(lambda rngs: nnx.Linear(2, 2, rngs=rngs), 2, rngs=nnx.Rngs(0)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name):
    layer = LAYERS[name]()
    there_and_back(lambda layer, x: (layer(x), layer), layer, X[None])
    assert type(there_and_back(lambda layer: layer, layer)) is type(layer)


def test_a_batch_of_any_size():
    graphdef, state = nnx.split(Net())

    def forward(state, x):
        return nnx.merge(graphdef, state)(x)

    (batch,) = jax.export.symbolic_shape("batch")
    symbolic = (state, jax.ShapeDtypeStruct((batch, 2), jnp.float32))
    exported = jax.export.export(jax.jit(forward))(*symbolic)
    again = jax.export.deserialize(exported.serialize())
    for size in (1, 5):
        assert again.call(state, jnp.ones((size, 2))).shape == (size, 3)


SCRIPT = """
import sys
import jax, jax.export, jax.numpy as jnp, numpy as np
import weft as nnx
from tests.core.test_exported import Net
with open(sys.argv[1], "rb") as file:
    program = jax.export.deserialize(file.read())
model = Net()
out, state = program.call(model, nnx.state(nnx.Rngs(5)), jnp.ones((4, 2)))
print(type(out).__name__, type(state).__name__, float(out.activation(-1.0)), out.layers[1].epsilon)
np.testing.assert_array_equal(out.table, 5.0 * np.ones(3))
"""


def test_another_process_calls_it(tmp_path):
    def step(model, streams, x):
        model.table = model.table * 5.0
        return model, streams

    file = tmp_path / "program"
    exported = jax.export.export(jax.jit(step))(Net(), nnx.state(nnx.Rngs(5)), jnp.ones((4, 2)))
    file.write_bytes(exported.serialize())
    out = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(file)], capture_output=True, text=True, check=False
    )
    assert out.stdout == "Net State 0.0 1e-05\n", out.stderr


def test_what_cannot_be_written_is_named():
    net = Net()
    net.activation = lambda x: x
    exported = jax.export.export(jax.jit(lambda m: m.table))(net)
    with pytest.raises(nnx.StructureError, match=r"Net\[3\]\.activation is .*lambda.* no name"):
        exported.serialize()


def test_classes_of_one_name():
    def make():
        class Net(nnx.Module):
            def __init__(self):
                self.w = nnx.Param(X)

        return Net

    first, second = make(), make()
    there_and_back(lambda a, b: (a.w[...], b), first(), second())


def test_versions():
    written = exporting._write({"a": (1,)}, nnx.Param)
    assert json.loads(written)["version"] == exporting.VERSION == 1
    assert exporting._read(written) == {"a": (1,)}
    newer = json.dumps({**json.loads(written), "version": 2}).encode()
    with pytest.raises(nnx.StructureError, match=r"format is version 2; this one reads up to 1"):
        exporting._read(newer)
