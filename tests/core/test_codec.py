"""Static values as text and back."""

import dataclasses
import enum
import functools
import gc
import json
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import weft as nnx
from weft._core.codec import from_text, to_text
from weft._core.static import Static


class Color(enum.Enum):
    RED = 1


class Pair(NamedTuple):
    left: object
    right: object


@dataclasses.dataclass(frozen=True)
class Config:
    sizes: tuple[int, ...]
    inner: object = None


def activation(x):
    return x


VALUES = [
    None,
    True,
    1,
    10**30,
    "text",
    0.1,
    -0.0,
    math.inf,
    1 + 2j,
    b"\x00\xff",
    (1, (2.0, "x"), ()),
    [1, [True]],
    {"a": 1, 2: (3,), (4, 5): None},
    {1, "a", (2, 3)},
    frozenset({1.5}),
    ...,
    slice(1, None, 2),
    jax.P("data", None, ("a", "b")),
    np.dtype("float32"),
    jnp.dtype("bfloat16"),
    jnp.float32,
    np.float32(1.5),
    ml_dtypes.bfloat16(2.0),
    np.arange(6).reshape(2, 3),
    np.zeros((0, 2), np.int8),
    Color.RED,
    jax.lax.Precision.HIGHEST,
    Pair(1, Pair("x", None)),
    Config((1, 2), Config(())),
    activation,
    jax.nn.relu,
    jnp.tanh,
    nnx.Linear,
    int,
    functools.partial(activation, 1, x=2.0),
    nnx.Any(nnx.Param, nnx.All("drop", nnx.Not(nnx.PathContains("a", exact=False)))),
    nnx.filterlib.PathIn(("a", 0), ("b",)),
    nnx.Everything(),
    nnx.StateAxes({nnx.Param: 0, "drop": None, ...: nnx.Carry}),
]


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_there_and_back(value):
    found = from_text(to_text(value))
    assert type(found) is type(value)
    assert Static(found) == Static(value)


def test_nan():
    assert math.isnan(from_text(to_text(math.nan)))


def test_names_are_public_where_there_is_one():
    assert to_text(jax.nn.relu) == '["name","jax.nn","relu"]'
    assert to_text(nnx.Param) == '["name","weft","Param"]'
    assert to_text(jnp.sin) == '["name","jax.numpy","sin"]'
    assert to_text(activation) == f'["name","{__name__}","activation"]'


def test_what_has_no_name_is_refused_with_its_path():
    class Odd:
        def __repr__(self):
            return "an odd one"

    with pytest.raises(nnx.StructureError, match=r"Net\.config\.f is <function .*no name"):
        to_text({"config": {"f": lambda x: x}}, ("Net",))
    with pytest.raises(nnx.StructureError, match=r"Net\[1\] is an odd one, .* module, or"):
        to_text([1, Odd()], ("Net",))
    with pytest.raises(nnx.StructureError, match=r"array\(\[None\], dtype=object\), which has no"):
        to_text(np.array([None]))
    changed = Config((1,))
    object.__setattr__(changed, "more", 1)  # which would be lost
    with pytest.raises(nnx.StructureError, match="Config"):
        to_text(changed)


def test_reading_imports_nothing_of_others():
    with pytest.raises(nnx.StructureError, match=r"needs this\.s: import this before reading"):
        from_text('["name","this","s"]')
    with pytest.raises(nnx.StructureError, match=r"needs weft\.Nothing\.at\.all: import"):
        from_text('["name","weft","Nothing.at.all"]')
    with pytest.raises(nnx.StructureError, match=r"kind 'new': a newer Weft wrote it"):
        from_text('["new",1]')


@pytest.mark.parametrize(
    "text",
    [
        '["made",["builtins","print"],["text"]]',
        '["made",["functools","partial"],["text"]]',
        '["fields",["tempfile","_TemporaryFileCloser"],[["close_called",true],["name","x"]]]',
        f'["fields",["{__name__}","Config"],[["sizes",1],["other",2]]]',  # which has no such field
        f'["fields",["{__name__}","Color"],[]]',
        f'["enum","{__name__}","Config","sizes"]',
        '["enum","os","environ","PATH"]',
    ],
)
def test_reading_makes_nothing_of_other_kinds(text):
    with pytest.raises(nnx.StructureError, match=r"^[\w.]+ is not made from what"):
        from_text(text)


def test_reading_deletes_no_files(tmp_path):
    file = tmp_path / "kept"
    file.touch()
    closer = '["fields",["tempfile","_TemporaryFileCloser"],[["close_called",true]]]'
    fields = f'[["file",{closer}],["delete",true],["name",{json.dumps(str(file))}]]'
    with pytest.raises(nnx.StructureError, match="not made"):
        from_text(f'["fields",["tempfile","_TemporaryFileCloser"],{fields}]')
    gc.collect()  # which ends what was made
    assert file.exists()
