"""A server's filters as those of qdrant-edge."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import qdrant_edge as edge
from qdrant_client import models

from tercet.errors import UnsupportedOperationError


def edge_filter(given: models.Filter | None) -> edge.Filter | None:
    """Return the filter as a shard's.

    Raises:
        UnsupportedOperationError: a condition that is not translated: geography and counts of values.
    """
    return None if given is None else _filter(given)


def _filter(given: models.Filter) -> edge.Filter:
    at_least = given.min_should
    return edge.Filter(
        must=_conditions(given.must),
        should=_conditions(given.should),
        must_not=_conditions(given.must_not),
        min_should=edge.MinShould(_conditions(at_least.conditions), at_least.min_count) if at_least else None,
    )


def _conditions(given: Any) -> Any:
    if given is None:
        return None
    return [_condition(each) for each in (given if isinstance(given, list) else [given])]


def _condition(given: Any) -> Any:
    make = _CONDITIONS.get(type(given))
    if make is None:
        raise _untranslated(given)
    return make(given)


def _field(given: models.FieldCondition) -> edge.FieldCondition:
    if given.geo_bounding_box or given.geo_radius or given.geo_polygon or given.values_count:
        raise _untranslated(given)
    return edge.FieldCondition(
        key=given.key,
        match=_match(given.match),
        range=_range(given.range),
        is_empty=given.is_empty,
        is_null=given.is_null,
    )


def _match(given: Any) -> Any:
    if given is None:
        return None
    make = _MATCHES.get(type(given))
    if make is None:
        raise _untranslated(given)
    return make(given)


def _range(given: Any) -> Any:
    if given is None:
        return None
    bounds = {name: getattr(given, name) for name in ("gte", "gt", "lte", "lt")}
    if isinstance(given, models.DatetimeRange):
        return edge.RangeDateTime(**{name: value and value.isoformat() for name, value in bounds.items()})
    return edge.RangeFloat(**bounds)


def _untranslated(given: Any) -> UnsupportedOperationError:
    return UnsupportedOperationError(
        f"{type(given).__name__} {given!r} is not translated for qdrant-edge; write the shard's own filter for it"
    )


_CONDITIONS: Mapping[type, Callable[[Any], Any]] = {
    models.Filter: _filter,
    models.FieldCondition: _field,
    models.IsEmptyCondition: lambda given: edge.IsEmptyCondition(given.is_empty.key),
    models.IsNullCondition: lambda given: edge.IsNullCondition(given.is_null.key),
    models.HasIdCondition: lambda given: edge.HasIdCondition(set(given.has_id)),
    models.HasVectorCondition: lambda given: edge.HasVectorCondition(given.has_vector),
    models.NestedCondition: lambda given: edge.NestedCondition(given.nested.key, _filter(given.nested.filter)),
}

_MATCHES: Mapping[type, Callable[[Any], Any]] = {
    models.MatchValue: lambda given: edge.MatchValue(given.value),
    models.MatchText: lambda given: edge.MatchText(given.text),
    models.MatchAny: lambda given: edge.MatchAny(given.any),
    models.MatchExcept: lambda given: edge.MatchExcept(given.except_),
}
