"""What is asked of Orbax: only what it can do."""

import jax.numpy as jnp
import pytest

import weft as nnx
from weft import train
from weft.train import Checkpoints


@pytest.mark.parametrize("name", ["[1]", "lr=[0.1,0.2]", "a*", "?", "back\\slash"])
def test_a_folder_that_is_a_pattern_is_refused(tmp_path, name):
    for make in (Checkpoints, lambda folder: train.Run(folder, state={}, data=[1])):
        with pytest.raises(ValueError, match=r"cannot have checkpoints: Orbax, .* for a pattern;"):
            make(tmp_path / name)


@pytest.mark.parametrize("name", ["a b", "x" * 100, "ä", "100%", "{a}", "a'b", "#$&;~!", "a:b"])
def test_any_other_name_of_a_folder_will_do(tmp_path, name):
    with Checkpoints(tmp_path / name) as checkpoints:
        checkpoints.save(1, x=nnx.Param(jnp.ones(2)))
        restored = nnx.Param(jnp.zeros(2))
        checkpoints.restore(x=restored)
    assert (restored == 1).all()
