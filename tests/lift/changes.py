"""Every way to change a graph, one change each."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

import weft as nnx
from tests.lift.zoo import Leaf, OtherLeaf, Zoo, refresh


def _changed(path: str, do: Callable[[Any], Any]) -> Callable[[Zoo], Any]:
    def run(root: Zoo) -> None:
        x: Any = root
        for name in path.split("."):
            x = x[int(name)] if name.isdecimal() else getattr(x, name) if name else x
        do(x)

    return run


def _set(name: str, value: Any) -> Callable[[Any], None]:
    return lambda x: setattr(x, name, value)


CHANGES: dict[str, Callable[[Zoo], Any]] = {
    "static attribute": _changed("", _set("size", 4)),
    "new attribute": _changed("", _set("extra", 1)),
    "deleted attribute": _changed("", lambda x: delattr(x, "size")),
    "another object": _changed("", lambda x: setattr(x, "pair", Leaf())),
    "another array": _changed("", _set("array", jnp.full(2, 5.0))),
    "array of another shape": _changed("", _set("array", jnp.ones(3))),
    "array marked static": _changed("", _set("fixed", jnp.arange(2) + 1)),
    "array to number": _changed("", _set("array", 1)),
    "numpy array in place": _changed("numpy", lambda x: x.__setitem__(0, 5)),
    "static numpy array in place": _changed("constants", lambda x: x.__setitem__(0, 5)),
    "vars": lambda root: vars(root).__setitem__("size", 9),
    "vars of a Module below": lambda root: vars(root.layers[0]).__setitem__("scale", 9),
    "vars of a list of Modules": lambda root: vars(root.list).__setitem__("note", 9),
    "vars of a Module after a mixin": lambda root: vars(root.described).__setitem__("scale", 9),
    "setattr of the user": _changed("guarded", _set("scale", 9)),
    "setattr of the user, a Variable": _changed(
        "guarded", lambda x: setattr(x, "weight", nnx.Param(jnp.ones(3)))
    ),
    "object.__setattr__ past one": _changed("guarded", lambda x: object.__setattr__(x, "scale", 9)),
    "class past setattr": _changed(
        "layers.0", lambda x: object.__setattr__(x, "__class__", OtherLeaf)
    ),
    "cached property": lambda root: root.__dict__.update(cached=3),
    "list append": _changed("layers", lambda x: x.append(Leaf())),
    "list replace": _changed("layers", lambda x: refresh(x, "", None)),
    "list reverse": _changed("layers", lambda x: x.reverse()),
    "list of numbers": _changed("plain", lambda x: x["sizes"].append(3)),
    "dict in a tuple": _changed("plain", lambda x: x["deep"][0].update(k=2)),
    "dict rename": _changed("table", lambda x: x.update(c=x.pop("a"))),
    "dict order": _changed("table", lambda x: x.update(a=x.pop("a"))),
    "default factory": _changed("default", _set("default_factory", dict)),
    "set": _changed("names", lambda x: x.add("w")),
    "list in a NamedTuple": _changed("pair.first", lambda x: x.append(Leaf())),
    "dict in a NamedTuple": _changed("pair.second", lambda x: x.update(y=Leaf())),
    "marked data": _changed("marked", lambda x: x["deep"]["k"].append(jnp.ones(2))),
    "List": _changed("list", lambda x: x.append(Leaf())),
    "List slice": _changed("list", lambda x: x.__setitem__(slice(None), [Leaf(), Leaf()])),
    "Dict": _changed("dict", lambda x: x.update(b=Leaf())),
    "Dict attribute": _changed("dict", _set("a", 3)),
    "config": _changed("config", _set("rate", 0.2)),
    "list in a config": _changed("config", lambda x: x.sizes.append(3)),
    "config in a frozen config": _changed("frozen.inner", _set("rate", 0.2)),
    "attributes of a config replaced": _changed(
        "config", lambda x: setattr(x, "__dict__", {"rate": 5.0, "sizes": []})
    ),
    "hashable config": _changed("hashed", _set("rate", 0.2)),
    "loose config": _changed("loose", _set("depth", 2)),
    "function": _changed("", lambda root: setattr(root, "function", other_function)),
    "hook": _changed("weight", lambda x: x.set_metadata(hook=other_function)),
    "object": _changed("opaque", _set("depth", 2)),
    "object in an object": _changed("opaque.inner", lambda x: x.sizes.append(2)),
    "name space": _changed("space", _set("rate", 2)),
    "slots": _changed("slotted", _set("depth", 2)),
    "inherited slots": _changed("slotted", lambda x: x.sizes.append(2)),
    "deque": _changed("recent", lambda x: x.append(3)),
    "counter": _changed("counts", lambda x: x.update("b")),
    "keywords of a partial": _changed("partial", lambda x: x.keywords["exponents"].append(2)),
    "object of a method": _changed("layers.0", _set("scale", 9)),
    "foreign pytree": _changed("foreign", _set("value", jnp.ones(2))),
    "label of a foreign pytree": _changed("foreign", _set("tag", "other")),
    "State": lambda root: root.state.__setitem__("d", nnx.Param(jnp.ones(1))),
    "view of a State": lambda root: root.state["a"].__setitem__("d", nnx.Param(jnp.ones(1))),
    "mapping of a State": lambda root: root.state.raw_mapping["a"].update(d=jnp.ones(1)),
    "pure dict into a State": lambda root: nnx.replace_by_pure_dict(
        root.state, {"c": jnp.ones(2)}, lambda old, value: nnx.Param(value)
    ),
    "metadata": _changed("weight", lambda x: x.set_metadata(axes=["b"])),
    "metadata in place": _changed("weight", lambda x: x.axes.append("b")),
    "deleted metadata": _changed("weight", lambda x: x.del_metadata("axes")),
    "value becomes a tree": _changed("weight", lambda x: x.set_raw_value({"a": jnp.ones(2)})),
    "value becomes None": _changed("weight", lambda x: x.set_raw_value(None)),
    "tree becomes an array": _changed("tree", lambda x: x.set_raw_value(jnp.ones(2))),
    "tree in place": _changed("tree", lambda x: x.get_raw_value().update(c=jnp.ones(2))),
    "leaf of a tree in place": _changed("tree", lambda x: x.get_raw_value().update(a=jnp.ones(3))),
    "train": lambda root: (_set("deterministic", False)(root), root.eval()),
    "set_attributes": lambda root: root.set_attributes(size=8),
    "update": lambda root: nnx.update(root, {"added": nnx.Intermediate(jnp.ones(1))}),
    "pop": lambda root: nnx.pop(root.dict, nnx.Param),
    "class": _changed("layers.0", _set("__class__", OtherLeaf)),
    "shared": lambda root: setattr(root, "again", root.layers[1]),
    "no longer shared": lambda root: setattr(root, "method", None),
    "cycle": lambda root: root.layers.append(root),
    "other thread": lambda root: in_thread(lambda: setattr(root, "size", 11)),
}


def other_function(x: Any) -> Any:
    return x


def in_thread(do: Callable[[], Any]) -> None:
    thread = threading.Thread(target=do)
    thread.start()
    thread.join()
