"""The protocol of metrics: what a metric is, which keywords it takes, several of them together."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

import jax
import jax.numpy as jnp

from weft._core.filters import Filter
from weft._graph import GraphDef, State, split
from weft._module import Pytree
from weft._variable.variable import Variable, is_variable

A = TypeVar("A")


class MetricState(Variable[A]):
    """A sum that a metric keeps.

    Example:
      >>> import weft as nnx
      >>> type(nnx.metrics.Average().total).__name__
      'MetricState'
    """

    __slots__ = ()


@dataclasses.dataclass(frozen=True)
class Keywords:
    """Which keyword arguments the `update` of a metric takes."""

    required: frozenset[str]
    optional: frozenset[str] = frozenset()
    any: bool = False

    def check(self, name: str, given: Iterable[str]) -> None:
        """Raises TypeError for keywords that are not taken, or required and not given."""
        given, known = set(given), self.required | self.optional
        if not self.any and (unknown := sorted(given - known)):
            close = difflib.get_close_matches(unknown[0], known, 1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise TypeError(
                f"{name} got unexpected keyword arguments {unknown}: it takes {sorted(known)}{hint}"
            )
        if missing := sorted(self.required - given):
            raise TypeError(
                f"{name} needs the keyword argument {missing[0]!r}: write "
                f"`update({', '.join(f'{key}=...' for key in sorted(self.required))})`"
            )


class Metric(Pytree):
    """Base class of metrics; a subclass defines `__init__`, `reset`, `update` and `compute`.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> class Largest(nnx.Metric):
      ...     def __init__(self):
      ...         self.best = nnx.metrics.MetricState(jnp.array(0.0))
      ...     def reset(self):
      ...         self.best[...] = jnp.zeros_like(self.best[...])
      ...     def update(self, *, values):
      ...         self.best[...] = jnp.maximum(self.best[...], values.max())
      ...     def compute(self):
      ...         return self.best[...]
      >>> metric = Largest()
      >>> metric.update(values=jnp.array([1.0, 3.0]))
      >>> float(metric.compute())
      3.0
    """

    def __init__(self) -> None:
        raise NotImplementedError(f"{type(self).__name__} must define `__init__(self)`")

    def reset(self) -> None:
        """Zeroes the sums; their shapes stay, so that metrics made under `vmap` stay stacked."""
        raise NotImplementedError(f"{type(self).__name__} must define `reset(self)`")

    if TYPE_CHECKING:  # a subclass may take any arguments

        def update(self, *args: Any, **kwargs: Any) -> None: ...

    else:

        def update(self, **kwargs: Any) -> None:
            """Adds a batch."""
            raise NotImplementedError(f"{type(self).__name__} must define `update(self, **kwargs)`")

    def compute(self) -> Any:
        """Returns the figure."""
        raise NotImplementedError(f"{type(self).__name__} must define `compute(self)`")

    def merge(self, *others: Any) -> None:
        """Adds what other metrics of this class have gathered, on other devices for example.

        Args:
          *others: the metrics. One whose sums have leading axes more, as `nnx.vmap` and `nnx.pmap`
            make them, counts as all the metrics along these axes.

        Raises:
          TypeError: if one is of another class.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `merge(self, *others)`")

    def mergeable(self, others: Iterable[Any]) -> list[Any]:
        """Returns the others.

        Raises:
          TypeError: if one is of another class.
        """
        others = list(others)
        for other in others:
            if type(other) is not type(self):
                name = type(self).__name__
                raise TypeError(
                    f"{name}.merge takes metrics of its own class, found {other!r} of type "
                    f"{type(other).__name__}: write `metric.merge(another_{name.lower()})`"
                )
        return others

    @overload
    def split(self, filter: Filter = ..., /) -> tuple[GraphDef[Self], State]: ...
    @overload
    def split(self, *filters: Filter) -> tuple[GraphDef[Self], *tuple[State, ...]]: ...
    def split(self, *filters: Filter) -> Any:
        """Splits the metric as `nnx.split(metric, *filters)` does."""
        return split(self, *filters)

    def keywords(self) -> Keywords:
        """Returns which keyword arguments `update` takes; read off its signature."""
        named = {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}
        parameters = inspect.signature(self.update).parameters.values()
        required = {p.name for p in parameters if p.kind in named and p.default is p.empty}
        return Keywords(
            required=frozenset(required),
            optional=frozenset(p.name for p in parameters if p.kind in named) - required,
            any=any(p.kind is p.VAR_KEYWORD for p in parameters),
        )


class MultiMetric(Metric):
    """Several named metrics, updated together; each one is an attribute of its name.

    Args:
      **metrics: the metrics.

    Raises:
      TypeError: if one is no metric.
      ValueError: if a name is that of an attribute of this class, such as `reset`.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> metrics = nnx.MultiMetric(
      ...     accuracy=nnx.metrics.Accuracy(), loss=nnx.metrics.Average("loss")
      ... )
      >>> metrics.update(logits=jnp.array([[0.1, 0.9]]), labels=jnp.array([1]), loss=0.5)
      >>> {name: float(value) for name, value in metrics.compute().items()}
      {'accuracy': 1.0, 'loss': 0.5}
    """

    def __init__(self, **metrics: Metric):
        for name, metric in metrics.items():
            if hasattr(MultiMetric, name) or name == "_metric_names":
                raise ValueError(
                    f"a metric cannot be named {name!r}, which is an attribute of MultiMetric: "
                    f"choose another name, `nnx.MultiMetric({name}_metric=...)`"
                )
            if not isinstance(metric, Metric):
                raise TypeError(
                    f"MultiMetric takes metrics, found {name}={metric!r} of type "
                    f"{type(metric).__name__}: write `{name}=nnx.metrics.Average()`"
                )
            setattr(self, name, metric)
        self._metric_names = tuple(metrics)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Metric: ...

    def keywords(self) -> Keywords:
        taken = [metric.keywords() for metric in self._metrics().values()]
        required = frozenset().union(*(each.required for each in taken))
        optional = frozenset().union(*(each.optional for each in taken))
        return Keywords(required, optional - required, any(each.any for each in taken))

    def reset(self) -> None:
        """Resets all metrics."""
        for metric in self._metrics().values():
            metric.reset()

    def update(self, **updates: Any) -> None:
        """Adds a batch to all metrics; if one of them fails, none is changed.

        Args:
          **updates: the keyword arguments of all metrics, each handed to those that take it.
            `mask` may be one mask for all, or a dict of masks by name of metric.

        Raises:
          TypeError: for a keyword that no metric takes, or one that is missing.
          ValueError: if the dict of masks names no metric of this object.
        """
        metrics = self._metrics()
        masks = updates.get("mask")
        if isinstance(masks, Mapping):
            del updates["mask"]
            if unknown := sorted(masks.keys() - metrics.keys()):
                raise ValueError(
                    f"mask={{...}} names {unknown}, but the metrics are {sorted(metrics)}"
                )
        else:
            masks = {}
        self.keywords().check("MultiMetric.update", updates)

        written = [(variable, variable.get_raw_value()) for variable in _states(metrics)]
        try:
            for name, metric in metrics.items():
                takes = metric.keywords()
                known = takes.required | takes.optional
                own = {k: v for k, v in updates.items() if takes.any or k in known}
                if name in masks:
                    own["mask"] = masks[name]
                metric.update(**own)
        except BaseException:
            for variable, value in written:
                variable.set_raw_value(value)
            raise

    def merge(self, *others: Self) -> None:  # type: ignore[override]
        """Adds what the metrics of others have gathered, by name; see `Metric.merge`.

        Raises:
          TypeError: if one is of another class, or has metrics of other names or classes.
        """
        for other in self.mergeable(others):
            if self._metric_names != other._metric_names:
                raise TypeError(
                    f"MultiMetric.merge takes metrics of the same names {self._metric_names}, "
                    f"found {other._metric_names}"
                )
            for name, metric in self._metrics().items():
                metric.merge(getattr(other, name))

    def compute(self) -> dict[str, Any]:
        """Returns the figures by name of metric."""
        return {name: metric.compute() for name, metric in self._metrics().items()}

    def _metrics(self) -> dict[str, Metric]:
        return {name: getattr(self, name) for name in self._metric_names}


def zero(*variables: Variable) -> None:
    """Zeroes the sums in place; shapes stay, so metrics made under `vmap` stay stacked."""
    for variable in variables:
        variable.set_value(jnp.zeros_like(variable.get_value()))


def _states(metrics: Mapping[str, Metric]) -> list[Variable]:
    leaves = jax.tree.leaves(dict(metrics), is_leaf=is_variable)
    return [leaf for leaf in leaves if is_variable(leaf)]
