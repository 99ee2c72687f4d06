"""A box of any attributes, and where its data is."""

from __future__ import annotations

from typing import Any

import jax

import weft as nnx


class Box(nnx.Pytree):
    def __init__(self, **attributes: Any):
        for name, value in attributes.items():
            setattr(self, name, value)


def leaf_paths(obj: Any) -> list[str]:
    return [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(obj)]
