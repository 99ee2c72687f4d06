"""Filters, under the name that code of the NNX API imports them from."""

from weft._filters import All as All
from weft._filters import Any as Any
from weft._filters import Everything as Everything
from weft._filters import Filter as Filter
from weft._filters import FilterLiteral as FilterLiteral
from weft._filters import Not as Not
from weft._filters import Nothing as Nothing
from weft._filters import OfType as OfType
from weft._filters import PathContains as PathContains
from weft._filters import PathIn as PathIn
from weft._filters import Predicate as Predicate
from weft._filters import WithTag as WithTag
from weft._filters import filters_to_predicates as filters_to_predicates
from weft._filters import to_predicate as to_predicate
from weft._path import Key as Key
from weft._path import Path as PathParts  # noqa: F401
