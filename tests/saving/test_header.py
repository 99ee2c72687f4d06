"""Headers made with bad intent are errors, before anything of the size they claim is allocated."""

import json
import re
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
import safetensors.numpy

import weft as nnx
from weft._core.errors import CheckpointError
from weft._saving import header
from weft._saving.header import Header, is_tensor_file


def tensor(begin, end, shape=(2,), dtype="F32", **more):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end], **more}


ONE = b'{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'
ATTACKS = {  # header, bytes of data, what the message says
    "gap": ({"a": tensor(0, 8), "b": tensor(12, 20)}, 20, "'b' is at 12, and should be at 8"),
    "hole at the start": ({"a": tensor(8, 16)}, 16, "'a' is at 8, and should be at 0"),
    "overlap": ({"a": tensor(0, 8), "b": tensor(4, 12)}, 12, "'b' is at 4, and should be at 8"),
    "twice the same": ({"a": tensor(0, 8), "b": tensor(0, 8)}, 8, "'b' is at 0, and should be at"),
    "negative place": ({"a": tensor(-8, 0)}, 8, "'a' has the shape [2] at -8 to 0"),
    "backwards": ({"a": tensor(8, 0)}, 8, "and has -8 bytes"),
    "negative shape": ({"a": tensor(0, 8, [-2])}, 8, "'a' has the shape [-2]"),
    "two negatives": ({"a": tensor(0, 8, [-2, -1])}, 8, "'a' has the shape [-2, -1]"),
    "overflow": ({"a": tensor(0, 8, [2**62, 8])}, 8, "and has 8 bytes"),
    "overflow to zero": ({"a": tensor(0, 0, [2**63, 2])}, 0, "and has 0 bytes"),
    "huge": ({"a": tensor(0, 2**50, [2**48])}, 8, "its arrays have 1125899906842624 bytes, and"),
    "float shape": ({"a": tensor(0, 8, [2.0])}, 8, "'a' has the shape [2.0]"),
    "bool shape": ({"a": tensor(0, 4, [True])}, 4, "'a' has the shape [True]"),
    "text shape": ({"a": tensor(0, 8, "2")}, 8, "'a' has the shape"),
    "many axes": ({"a": tensor(0, 8, [1] * 99 + [2])}, 8, "'a' has 100 axes"),
    "too short": ({"a": tensor(0, 8)}, 7, "its arrays have 8 bytes, and there are 7"),
    "too long": ({"a": tensor(0, 8)}, 9, "its arrays have 8 bytes, and there are 9"),
    "dtype": ({"a": tensor(0, 8, dtype="F33")}, 8, "KeyError('F33')"),
    "dtype of no text": ({"a": tensor(0, 8, dtype=[1])}, 8, "makes no sense"),
    "more": ({"a": tensor(0, 8, more=1)}, 8, "the header says more of 'a'"),
    "missing": ({"a": {"dtype": "F32", "shape": [2]}}, 8, "KeyError('data_offsets')"),
    "one place": ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [8]}}, 8, "ValueError"),
    "no mapping": ([1], 0, "makes no sense"),
    "number": (7777, 0, "makes no sense"),
    "no tensor": ({"a": 3}, 0, "makes no sense"),
    "metadata of numbers": ({"__metadata__": {"a": 1}}, 0, "its metadata are not texts"),
    "metadata of a list": ({"__metadata__": [1]}, 0, "makes no sense"),
    "no JSON": (b"{'a': 3}", 0, "makes no sense"),
    "text after it": (b"{} x", 0, "makes no sense"),
    "two names": (b'{"a":%s,"a":%s}' % (ONE, ONE), 8, "a name stands there twice"),
    "two escaped names": (b'{"a":%s,"\\u0061":%s}' % (ONE, ONE), 8, "a name stands there twice"),
    "two metadata": (b'{"__metadata__":{},"__metadata__":{}}', 0, "a name stands there twice"),
    "bad UTF-8": (b'{"a\xff":%s}' % ONE, 8, "UnicodeDecodeError"),
    "nested": (b'{"a":' * 100_000, 0, "makes no sense"),
    "long number": (b'{"a":%s}' % (b"9" * 100_000), 0, "makes no sense"),
}
REFUSED_BY_US_ALONE = {"two names", "two escaped names", "more"}


@pytest.fixture
def write(tmp_path) -> Callable:
    def write(head, data=0, length=None):
        head = head if isinstance(head, bytes) else json.dumps(head).encode()
        start = (len(head) if length is None else length).to_bytes(8, "little")
        (tmp_path / "a").write_bytes(start + head + bytes(data))
        return tmp_path / "a"

    return write


def refused(file, message):
    tracemalloc.start()
    with pytest.raises(CheckpointError, match=re.escape(message)) as caught:
        nnx.load(file)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert str(file) in str(caught.value) and "is damaged, or no safetensors" in str(caught.value)
    assert peak < 10 * file.stat().st_size + 2**22


@pytest.mark.parametrize("name", ATTACKS)
def test_headers_of_bad_intent(write, name):
    head, data, message = ATTACKS[name]
    file = write(head, data)
    refused(file, message)
    try:
        safetensors.numpy.load_file(file)
    except Exception:
        assert name not in REFUSED_BY_US_ALONE
    else:
        assert name in REFUSED_BY_US_ALONE


@pytest.mark.parametrize("length", [2**40, 2**63, 2**64 - 1, 100, 1, 0])
def test_lengths_of_bad_intent(write, length):
    refused(write({"a": tensor(0, 8)}, 8, length), " bytes, of which the header would be ")


@pytest.mark.parametrize("content", [b"", b"\x02", bytes(8), bytes(100), b"PK\x03\x04" * 50])
def test_no_header(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    refused(tmp_path / "a", f"{len(content)} bytes, of which the header would be")


def test_a_million_arrays(write):
    record = ",".join(
        [f'"{i}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}' for i in range(10**6)]
    )
    refused(write(f"{{{record}}}".encode()), "more than 100000 arrays")


def test_headers_that_are_too_long_for_the_format(write, monkeypatch):
    monkeypatch.setattr(header, "LIMIT_HEADER", 40)
    refused(write({"a": tensor(0, 8)}, 8), "of which the header would be")


def test_arrays_are_read_where_they_are(write):
    file = write({"b": tensor(0, 8), "empty": tensor(8, 8, [0, 3]), "a": tensor(8, 16, [1, 2])}, 16)
    opened = Header(file)
    assert opened.read("empty", copy=False).shape == (0, 3)
    for copy in (True, False):
        array = opened.read("a", copy=copy)
        assert array.flags.writeable == copy and (array == np.zeros((1, 2))).all()
    assert nnx.load(write({})).state() == nnx.State({})


def test_files_of_the_format_are_told_by_how_they_begin(write, tmp_path):
    assert is_tensor_file(write({"a": tensor(0, 8)}, 8)) and is_tensor_file(write({}))
    for content in (
        b"",
        bytes(8),
        b"PK\x03\x04" * 9,
        bytes([255] * 8) + b"{}",
        b"\x02" + bytes(20),
    ):
        (tmp_path / "a").write_bytes(content)
        assert not is_tensor_file(tmp_path / "a")
