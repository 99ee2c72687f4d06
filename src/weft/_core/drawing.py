"""Drawings: what treescope shows of objects, in colour and foldable."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def render(value: Any, path: str | None, subtree_renderer: Any) -> Any:
    """Returns what treescope shows for an object or a Variable; their `__treescope_repr__`."""
    _, *parts = value.__nnx_repr__()
    attributes = {
        part.key or part.path_key or part.start.removesuffix(": ") or str(i): part.value
        for i, part in enumerate(parts)
    }
    return render_object_constructor(type(value), attributes, path, subtree_renderer)


def render_object_constructor(
    object_type: type,
    attributes: Mapping[str, Any],
    path: str | None,
    subtree_renderer: Any,
    roundtrippable: bool = False,
    color: str | None = None,
    first_line_annotation: Any = None,
) -> Any:
    """Returns what treescope shows for an object that is made of named attributes.

    Args:
      object_type: the object's class.
      attributes: names and values.
      path: where it is shown.
      subtree_renderer: shows the values.
      roundtrippable: whether the class could be called with these attributes.
      color: background colour, as in CSS.
      first_line_annotation: what to show behind the first line; a part made by treescope.

    Example:
      >>> import treescope
      >>> import weft as nnx
      >>> class Pair:
      ...     def __treescope_repr__(self, path, subtree_renderer):
      ...         return nnx.visualization.render_object_constructor(
      ...             Pair, {"a": 1, "b": 2}, path, subtree_renderer
      ...         )
      >>> print(treescope.render_to_text(Pair()))
      Pair(a=1, b=2)
    """
    from treescope import rendering_parts as parts

    def only_in_roundtrip_mode(text: str) -> Any:
        return "" if roundtrippable else parts.roundtrip_condition(roundtrip=parts.text(text))

    children = [
        parts.siblings_with_annotations(
            f"{name}=", subtree_renderer(value, path=None if path is None else f"{path}.{name}")
        )
        for name, value in attributes.items()
    ]
    return parts.build_foldable_tree_node_from_children(
        prefix=parts.siblings(
            only_in_roundtrip_mode("<"), parts.maybe_qualified_type_name(object_type), "("
        ),
        children=children,
        suffix=parts.siblings(")", only_in_roundtrip_mode(">")),
        comma_separated=True,
        path=path,
        background_color=color,
        first_line_annotation=first_line_annotation,
    )
