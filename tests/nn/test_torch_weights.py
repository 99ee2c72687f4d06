"""How layers say that their weights stand in PyTorch."""

import numpy as np
import pytest

import weft as nnx
from weft.nn import torch_weights


def array(*shape):
    return np.arange(np.prod(shape)).reshape(shape)


def test_into_takes_one_path_or_several():
    assert nnx.Into("kernel").targets == ("kernel",)
    assert nnx.Into(["q.kernel", "k.kernel"], sizes=[1, 2]).sizes == (1, 2)
    assert nnx.Into("kernel", axes=(1, 0)) == nnx.Into("kernel", axes=[1, 0])


def test_into_refuses_axes_beside_functions():
    with pytest.raises(ValueError, match="either `axes` and `sizes` or functions, found both"):
        nnx.Into("kernel", axes=(1, 0), load=np.transpose)


def test_into_refuses_what_makes_no_sense():
    for targets in (3, ("a", 3), None):
        with pytest.raises(TypeError, match="leads to a path or several, found"):
            nnx.Into(targets)
    for axes in ((0, 0), (0, 2), (1,)):
        with pytest.raises(ValueError, match=r"is no permutation: write `axes=\("):
            nnx.Into("kernel", axes=axes)
    with pytest.raises(ValueError, match="has `save` and no `load`: give the inverse"):
        nnx.Into("kernel", save=np.transpose)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_convolutions(rank):
    kernel = array(5, 4, *range(2, rank + 2))  # (out, in, *space)
    here = kernel.transpose(torch_weights.convolution(rank).axes)
    assert here.shape == (*range(2, rank + 2), 4, 5)
    flipped = torch_weights.flipped_convolution(rank)
    assert (flipped.save(flipped.load(kernel)) == kernel).all()
    assert flipped.load(kernel)[(0,) * rank][3, 2] == kernel[3, 2][(-1,) * rank]


def test_matrix():
    into = torch_weights.matrix((2, 3), (4, 5))
    weight = array(20, 6)
    assert into.load(weight).shape == (2, 3, 4, 5)
    assert into.load(weight)[1, 2, 3, 4] == weight[19, 5]
    assert (into.save(into.load(weight)) == weight).all()


def test_reshaped_and_added():
    slope = torch_weights.reshaped("negative_slope", (), (1,))
    assert slope.load(array(1)).shape == () and slope.save(array()).shape == (1,)
    bias = torch_weights.added("bias")
    assert bias.load(array(2), array(2)).tolist() == [0, 2]
    assert [x.tolist() for x in bias.save(array(2))] == [[0, 1], [0, 0]]


def test_of_part():
    table = {"weight": "kernel", ("a", "b"): torch_weights.added("bias"), "count": None}
    found = torch_weights.of_part("cell", table, "_l0")
    assert list(found) == ["weight_l0", ("a_l0", "b_l0"), "count_l0"]
    assert found["weight_l0"] == nnx.Into("cell.kernel") and found["count_l0"] is None
    assert found["a_l0", "b_l0"].targets == ("cell.bias",)
    assert found["a_l0", "b_l0"].load is np.add


def test_layers_with_a_choice():
    rngs = nnx.Rngs(0)
    attention = nnx.MultiHeadAttention(2, 8, in_kv_features=6, rngs=rngs)
    assert attention.torch_weights["k_proj_weight"] == "key.kernel"
    batched = nnx.LinearGeneral(2, 3, batch_axis={0: 4}, rngs=rngs)
    assert batched.torch_weights == {"weight": "kernel", "bias": "bias"}
    assert nnx.Sequential(nnx.relu).torch_weights == {"0": "layers[0]"}
