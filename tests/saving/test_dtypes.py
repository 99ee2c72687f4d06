"""Every dtype, shape and layout: bit-equal after a round trip, whoever reads the file."""

import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
from hypothesis import given, settings
from hypothesis import strategies as st

import weft as nnx
from weft._saving.dtypes import (
    DTYPES,
    FORMAT_DTYPES,
    FORMAT_NAMES,
    from_stored,
    stored_as,
    to_stored,
)

SHAPES = st.lists(st.integers(0, 4), max_size=4).map(tuple)
LAYOUTS = {
    "C": lambda x: x,
    "F": lambda x: np.asarray(x, order="F"),
    "transposed": lambda x: x.T,
    "negative stride": lambda x: x[::-1] if x.ndim else x,
    "stride": lambda x: np.repeat(x, 2, axis=-1)[..., ::2] if x.ndim else x,
    "swapped": lambda x: x.astype(x.dtype.newbyteorder(">")),
    "broadcast": lambda x: np.broadcast_to(x, (2, *x.shape)),
    "read-only": lambda x: np.frombuffer(x.tobytes(), x.dtype).reshape(x.shape),
}


def some(dtype: np.dtype, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """An array of any bits that the dtype has, NaNs and infinities among them."""
    random = np.random.default_rng(seed)
    count = int(np.prod(shape))
    if dtype.itemsize == 1 and not dtype.name.startswith("float8"):
        bits = int(dtype.name.strip("abcdefghijklmnopqrstuvwxyz_")[:1] or 8)
        limit = {"bool": 2}.get(dtype.name, 2**bits)
        values = random.integers(0, limit, count, np.uint8)
        return values.astype(dtype).reshape(shape)
    return np.frombuffer(random.bytes(count * dtype.itemsize), dtype).reshape(shape)


@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from(sorted(DTYPES)), SHAPES, st.sampled_from(sorted(LAYOUTS)), st.integers(0, 99)
)
def test_arrays_round_trip(dtype, shape, layout, seed):
    array = LAYOUTS[layout](some(DTYPES[dtype], shape, seed))
    with tempfile.TemporaryDirectory() as folder:
        nnx.save(f"{folder}/a", x=nnx.Variable(array))
        found = nnx.load(f"{folder}/a")["x"]
        target = nnx.Variable(np.zeros(array.shape, dtype))
        nnx.restore(f"{folder}/a", x=target)
        with open(f"{folder}/a", "rb") as stream:
            ((name, seen),) = safetensors.deserialize(stream.read())
        expected = np.asarray(array, DTYPES[dtype], order="C")
        for value in (found, target.value):
            assert (value.dtype, value.shape) == (DTYPES[dtype], array.shape)
            assert value.tobytes() == expected.tobytes()
    assert name == "x" and bytes(seen["data"]) == to_stored(array).tobytes()
    assert (FORMAT_DTYPES[seen["dtype"]].name, tuple(seen["shape"])) == stored_as(
        dtype, array.shape
    )


@pytest.mark.parametrize("dtype", sorted(DTYPES))
def test_arrays_of_jax_round_trip(dtype, tmp_path):
    if DTYPES[dtype].itemsize >= 8 and dtype != "complex64":
        pytest.skip("needs jax_enable_x64")
    try:
        value = jnp.asarray(np.array([[0, 1, 1], [1, 0, 1]]).astype(DTYPES[dtype]))
    except (TypeError, ValueError, jax.errors.JaxRuntimeError):
        pytest.skip("JAX has no such arrays")
    target = nnx.Variable(jnp.zeros_like(value))
    nnx.save(tmp_path / "a", x=nnx.Variable(value))
    nnx.restore(tmp_path / "a", x=target)
    assert isinstance(target.value, jax.Array) and target.value.dtype == value.dtype
    assert np.asarray(target.value).tobytes() == np.asarray(value).tobytes()


def test_other_dtypes_are_refused(tmp_path):
    for array in (np.array(["a"]), np.zeros(2, "datetime64[s]"), np.zeros(2, [("a", int)])):
        with pytest.raises(TypeError, match=r"found an array of dtype .*: it cannot be saved"):
            nnx.save(tmp_path / "a", x=nnx.Variable(array))


def test_tables_agree():
    for name, dtype in DTYPES.items():
        stored = to_stored(np.zeros((2, 3), dtype))
        assert (stored.dtype.name, stored.shape) == stored_as(name, (2, 3))
        assert stored.dtype.name in FORMAT_NAMES
        assert from_stored(stored, name).dtype == dtype


def test_torch_reads_the_file(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from safetensors.torch import load_file

    names = ["float32", "bfloat16", "float16", "float8_e4m3fn", "float8_e5m2", "int8", "bool"]
    arrays = {name: some(DTYPES[name], (2, 3), 0) for name in names}
    nnx.save(tmp_path / "a", x={name: nnx.Variable(array) for name, array in arrays.items()})
    found = load_file(tmp_path / "a")
    for name, array in arrays.items():
        value = found[f"x.{name}"].contiguous()
        assert str(value.dtype) == f"torch.{name}" and value.shape == array.shape
        assert value.view(torch.uint8).numpy().tobytes() == array.tobytes()
