"""The file: no damage unseen, no other version misread, files of former versions readable."""

import json
import os
import random
import re
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
import safetensors

import weft as nnx
from weft._core.errors import CheckpointError
from weft._saving import tensor_file

GOLDEN = Path(__file__).parents[1] / "data" / "saved-format-1.safetensors"


def small():
    weight = nnx.Param(jnp.arange(3.0))
    return {"a": weight, "tied": weight, "b": nnx.Param(jnp.ones((2, 2), jnp.bfloat16))}


def trained():
    model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    tx = optax.adamw(1e-3)
    return {"model": model, "opt": nnx.Optimizer(model, tx, wrt=nnx.Param), "rngs": nnx.Rngs(1)}


FILES = {
    "small": small,
    "trained": trained,
    "empty": dict,
    "number": lambda: {"n": nnx.Variable(3)},
}


@pytest.fixture(params=FILES)
def file(request, tmp_path):
    nnx.save(tmp_path / "a", **FILES[request.param](), meta={"n": 1, "text": "é"})
    return tmp_path / "a"


def read_all(file):
    return dict(nnx.load(file))


def found_damaged(file):
    """The message of the one error class that any damage leads to, loading or restoring."""
    with pytest.raises(CheckpointError, match="damaged") as caught:
        read_all(file)
    assert str(file) in str(caught.value)
    return str(caught.value)


def test_no_flipped_bit_goes_unseen(file):
    good = file.read_bytes()
    chance = random.Random(0)
    for _ in range(1000):
        bad = bytearray(good)
        bad[chance.randrange(len(bad))] ^= 1 << chance.randrange(8)
        file.write_bytes(bad)
        found_damaged(file)


def test_truncated_zero_filled_lengthened_and_swapped(file):
    good = file.read_bytes()
    other = file.with_name("other")
    nnx.save(other, x=nnx.Param(jnp.ones(3)))
    cuts = range(0, len(good), max(1, len(good) // 150))
    for bad in (
        *(good[:n] for n in cuts),
        *(good[:n] + bytes(len(good) - n) for n in cuts if any(good[n:])),
        *(good[:n] + bytes(1) + good[n + 1 :] for n in cuts if good[n]),
        *(good[:n] + good[n + 1 :] for n in cuts),
        good + b"\0",
        good + good,
        good[:-8] + other.read_bytes()[-8:] if b'"shape":[' in good else b"",
    ):
        file.write_bytes(bad)
        found_damaged(file)
    file.unlink()
    with pytest.raises(FileNotFoundError, match=re.escape(str(file))):
        nnx.load(file)


def test_restoring_from_a_damaged_file_changes_nothing(tmp_path):
    nnx.save(tmp_path / "a", **small())
    data = bytearray((tmp_path / "a").read_bytes())
    data[-1] ^= 1
    (tmp_path / "a").write_bytes(data)
    objects = small()
    objects["a"].value = jnp.zeros(3)
    with pytest.raises(
        CheckpointError, match=r"a is damaged: the bytes of b do not have the check"
    ):
        nnx.restore(tmp_path / "a", **objects)
    assert (objects["a"] == 0).all()


# -- facts that were changed together with their checksum


def rewritten(file, change):
    """Changes facts and their checksum, as someone malicious would."""
    with safetensors.safe_open(file, "numpy") as opened:
        record = json.loads(opened.metadata()["weft"])
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    change(record)
    text = json.dumps(record)
    header["__metadata__"] = {"weft": text, "weft.crc32": str(zlib.crc32(text.encode()))}
    new = json.dumps(header).encode()
    file.write_bytes(len(new).to_bytes(8, "little") + new + data[8 + length :])


BAD_FACTS = {
    "format of text": lambda r: r.update(format="x"),
    "no arrays": lambda r: r.pop("arrays"),
    "array of no header": lambda r: r["arrays"].update(c=r["arrays"]["a"]),
    "array less": lambda r: r["arrays"].pop("a"),
    "other path": lambda r: r["arrays"]["a"].update(path=["b"]),
    "no path": lambda r: r["arrays"]["a"].update(path=None),
    "empty path": lambda r: r["arrays"]["a"].update(path=[]),
    "other dtype": lambda r: r["arrays"]["a"].update(dtype="int32"),
    "unknown dtype": lambda r: r["arrays"]["a"].update(dtype="object"),
    "other shape": lambda r: r["arrays"]["a"].update(shape=[4]),
    "negative shape": lambda r: r["arrays"]["a"].update(shape=[-3]),
    "checksum": lambda r: r["arrays"]["a"].update(crc32=None),
    "unknown keys": lambda r: r["arrays"]["a"].update(key="nonsense"),
    "keys of floats": lambda r: r["arrays"]["a"].update(key="threefry2x32"),
    "number of text": lambda r: r["numbers"][0].update(number="x"),
    "number of arrays": lambda r: r["numbers"][0].update(number={"complex": [[], 1]}),
    "number twice": lambda r: r["numbers"].append(r["numbers"][0]),
    "no number": lambda r: r["numbers"].append(r["arrays"]["a"]),
    "shared nothing": lambda r: r["shared"].append([1]),
    "no facts": lambda r: r.clear(),
}


@pytest.mark.parametrize("name", BAD_FACTS)
def test_facts_that_make_no_sense(tmp_path, name):
    nnx.save(tmp_path / "a", **small(), n=nnx.Variable(3))
    rewritten(tmp_path / "a", lambda record: None)
    read_all(tmp_path / "a")
    rewritten(tmp_path / "a", BAD_FACTS[name])
    with pytest.raises(CheckpointError, match=re.escape(str(tmp_path / "a"))):
        read_all(tmp_path / "a")


def test_sharing_that_goes_in_circles_ends(tmp_path):
    nnx.save(tmp_path / "a", **small())
    pairs = [[["x"], ["x", "x"]], [["y"], ["z"]], [["z"], ["y"]]]
    rewritten(tmp_path / "a", lambda record: record.update(shared=pairs))
    with pytest.raises(nnx.StructureError, match="missing: x"):
        nnx.restore(tmp_path / "a", x=nnx.Variable(1), y=nnx.Variable(1), a=None, b=None)


def test_format_of_the_future(tmp_path):
    nnx.save(tmp_path / "a", x=nnx.Variable(1))
    rewritten(tmp_path / "a", lambda record: record.update(format=9, weft="7.1"))
    message = (
        "a has format 9, written by Weft 7.1, and this Weft reads format 1: `pip install -U weft`"
    )
    with pytest.raises(CheckpointError, match=re.escape(message)):
        nnx.load(tmp_path / "a")


def test_format_of_the_past(tmp_path):
    (tmp_path / "a").write_bytes(b"WEFTCKPT" + bytes(100))
    with pytest.raises(
        CheckpointError, match=r"a is of a former format of Weft, .*`nnx.save\(file"
    ):
        nnx.load(tmp_path / "a")


def test_dtypes_of_others_that_are_not_known(tmp_path):
    header = b'{"a":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}}'
    (tmp_path / "a").write_bytes(len(header).to_bytes(8, "little") + header + b"\0")
    with pytest.raises(CheckpointError, match="'a' is of dtype F4; Weft reads BOOL, "):
        nnx.load(tmp_path / "a")


def test_too_much_for_one_file(tmp_path, monkeypatch):
    monkeypatch.setattr(tensor_file, "LIMIT_ARRAYS", 1)
    with pytest.raises(ValueError, match=r"2 arrays and \d+ bytes of facts are more than one file"):
        nnx.save(tmp_path / "a", **small())
    assert os.listdir(tmp_path) == []


# -- files of former versions


def golden():
    """What the golden file of format 1 was written from."""
    weight = nnx.Param(jnp.arange(6.0).reshape(2, 3) / 8)
    floats = {name: np.arange(4).astype(getattr(ml_dtypes, name)) for name in ("bfloat16", "int4")}
    return {
        "model": {
            "layers": [{"kernel": weight}, {"kernel": nnx.Param(jnp.ones((), jnp.float16))}],
            "tied": weight,
            "0": nnx.Variable(np.array([1 + 2j])),
            "a.b": nnx.Variable(jnp.zeros((0, 2), jnp.int8)),
        },
        "numbers": [nnx.Variable(x) for x in (True, 3, -(2**70), 0.1, 2 - 3j)],
        "rngs": nnx.Rngs(7, dropout=jax.random.key(3, impl="rbg")),
        "small": {name: nnx.Variable(x) for name, x in floats.items()},
        "weak": nnx.Variable(jnp.asarray(1.5)),
    }


def test_the_golden_file_of_format_1():
    objects = golden()
    wanted = dict(nnx.to_flat_state(nnx.state(golden())))
    for _, leaf in nnx.to_flat_state(nnx.state(objects)):
        value = leaf.get_raw_value()
        is_key = isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
        if isinstance(value, (jax.Array, np.ndarray)) and not is_key:
            zeros = np.zeros_like if isinstance(value, np.ndarray) else jnp.zeros_like
            leaf.set_raw_value(zeros(value))
    assert nnx.restore(GOLDEN, **objects) == {"epoch": 7, "rates": [0.1, 1e-300], "name": "é"}
    for path, leaf in nnx.to_flat_state(nnx.state(objects)):
        found, expected = leaf.get_raw_value(), wanted[path].get_raw_value()
        assert type(found) is type(expected)
        if hasattr(found, "dtype") and jnp.issubdtype(found.dtype, jax.dtypes.prng_key):
            found, expected = map(jax.random.key_data, (found, expected))
        np.testing.assert_array_equal(found, expected)
        assert getattr(found, "dtype", None) == getattr(expected, "dtype", None)
    assert objects["weak"].value.weak_type
    assert nnx.load(GOLDEN)["model.'0'"] == 1 + 2j


def test_a_header_that_is_written_in_another_way(tmp_path, monkeypatch):
    write = safetensors.serialize_file

    def with_spaces(arrays, file, metadata):
        write(arrays, file, metadata)
        data = Path(file).read_bytes()
        length = int.from_bytes(data[:8], "little")
        header = json.dumps(json.loads(data[8 : 8 + length])).encode()
        header += b" " * (-len(header) % 8)
        Path(file).write_bytes(len(header).to_bytes(8, "little") + header + data[8 + length :])

    monkeypatch.setattr(safetensors, "serialize_file", with_spaces)
    nnx.save(tmp_path / "a", **small())
    objects = small()
    objects["a"].value = jnp.zeros(3)
    nnx.restore(tmp_path / "a", **objects)
    assert (objects["a"][...] == jnp.arange(3.0)).all()


def test_equal_states_make_equal_files(tmp_path):
    for i in range(16):  # the package hands out texts in an order of chance
        nnx.save(tmp_path / str(i), meta={"epoch": 7}, **small())
    assert len({file.read_bytes() for file in tmp_path.iterdir()}) == 1
