"""Filters, under the name that code of the NNX API imports them from."""

from weft._core.filters import All as All, Any as Any, Everything as Everything, Filter as Filter
from weft._core.filters import FilterLiteral as FilterLiteral, Not as Not, Nothing as Nothing
from weft._core.filters import OfType as OfType, PathContains as PathContains, PathIn as PathIn
from weft._core.filters import Predicate as Predicate, WithTag as WithTag
from weft._core.filters import filters_to_predicates as filters_to_predicates
from weft._core.filters import to_predicate as to_predicate
from weft._core.path import Key as Key
from weft._core.path import Path as PathParts
