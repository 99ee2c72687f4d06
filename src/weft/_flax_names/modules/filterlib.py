"""Filters, under the name that code of the NNX API imports them from."""

from weft._core.filters import All as All
from weft._core.filters import Any as Any
from weft._core.filters import Everything as Everything
from weft._core.filters import Filter as Filter
from weft._core.filters import FilterLiteral as FilterLiteral
from weft._core.filters import Not as Not
from weft._core.filters import Nothing as Nothing
from weft._core.filters import OfType as OfType
from weft._core.filters import PathContains as PathContains
from weft._core.filters import PathIn as PathIn
from weft._core.filters import Predicate as Predicate
from weft._core.filters import WithTag as WithTag
from weft._core.filters import filters_to_predicates as filters_to_predicates
from weft._core.filters import to_predicate as to_predicate
from weft._core.path import Key as Key
from weft._core.path import Path as PathParts  # noqa: F401
