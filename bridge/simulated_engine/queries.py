"""Filtering, sorting and paging of the REST API's lists.  Reads; changes nothing."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from bridge.simulated_engine.body import Body
from bridge.simulated_engine.clock import date_ms
from bridge.simulated_engine.errors import RestError, invalid_request, not_valid
from bridge.simulated_engine.filters import Listing, Test

Row = TypeVar("Row")


def from_query_string(parameters: Mapping[str, str], listing: Listing) -> Body:
    """The members that a POST of the same query would have; unknown parameters are ignored."""
    members: dict[str, Any] = {}
    for name in parameters.keys() & listing.filters.keys():
        members[name] = _converted(name, parameters[name], listing.filters[name].kind)
    sort_by, order = parameters.get("sortBy"), parameters.get("sortOrder")
    for name, value, known in (
        ("sortBy", sort_by, listing.sorting),
        ("sortOrder", order, ("asc", "desc")),
    ):
        if value is not None and value not in known:
            raise invalid_request(f"Cannot set query parameter '{name}' to value '{value}'")
    if (sort_by is None) != (order is None):
        raise invalid_request(
            "Only a single sorting parameter specified. sortBy and sortOrder required"
        )
    if sort_by is not None:
        members["sorting"] = [{"sortBy": sort_by, "sortOrder": order}]
    return Body(members)


def select(rows: Iterable[Row], listing: Listing, query: Body, now_ms: int) -> list[Row]:
    """The rows that pass every filter named in the query; unknown names are ignored."""
    tests: list[tuple[Test, Any]] = []
    for name, wanted in listing.filters.items():
        value = _wanted(wanted.kind, name, query)
        if value is not None:
            tests.append((wanted.passes, value))
    return [row for row in rows if all(passes(row, value, now_ms) for passes, value in tests)]


def sort(rows: list[Row], listing: Listing, query: Body) -> list[Row]:
    """Sorted by the entries of `sorting`, the first one counting most."""
    for entry in reversed(query.bodies("sorting")):
        sort_by, order = entry.text("sortBy"), entry.text("sortOrder")
        if sort_by is None or sort_by not in listing.sorting:
            raise not_valid(
                "You should call any of the orderBy methods first before specifying a "
                "direction: currentOrderingProperty is null"
            )
        if order not in {"asc", "desc"}:
            raise not_valid(
                "Invalid query: call asc() or desc() after using orderByXX(): direction is null"
            )
        rows = sorted(rows, key=listing.sorting[sort_by], reverse=order == "desc")
    return rows


def page(rows: list[Row], parameters: Mapping[str, str]) -> list[Row]:
    """The part named by `firstResult` and `maxResults` of the query string."""
    bounds: dict[str, int | None] = {}
    for name in ("firstResult", "maxResults"):
        text = parameters.get(name)
        if text is not None and not text.lstrip("-").isdigit():
            raise RestError(404, "QueryParamException", "HTTP 404 Not Found")
        bounds[name] = None if text is None else int(text)
    first, count = bounds["firstResult"] or 0, bounds["maxResults"]
    if first < 0:
        return []
    return rows[first:] if count is None else rows[first : first + count]


def _converted(name: str, text: str, kind: str) -> Any:
    problem = f"Cannot set query parameter '{name}' to value '{text}'"
    if kind == "flag" and text not in {"true", "false"}:
        raise invalid_request(
            f"{problem}: Cannot convert value {text} to java type java.lang.Boolean"
        )
    if kind == "whole" and not text.lstrip("-").isdigit():
        raise invalid_request(f"{problem}: Cannot convert value {text} to java type java.lang.Long")
    if kind == "date" and _moment(text) is None:
        told = f'Cannot convert value "{text}" to java type java.util.Date'
        raise invalid_request(f"{problem}: {told}")
    if kind == "texts":
        return text.split(",")
    if kind == "variables":
        return [_condition(problem, part) for part in text.split(",")]
    return text


def _condition(problem: str, text: str) -> dict[str, str]:
    parts = text.split("_", 2)
    if len(parts) != 3:
        told = "variable query parameter has to have format KEY_OPERATOR_VALUE."
        raise invalid_request(f"{problem}: {told}")
    return dict(zip(("name", "operator", "value"), parts, strict=True))


def _wanted(kind: str, name: str, query: Body) -> Any:
    if query.members.get(name) is None:
        return None
    if kind == "flag":
        return query.flag(name) or None
    if kind == "texts":
        return query.texts(name) or None
    if kind == "whole":
        return query.optional_whole(name)
    if kind == "variables":
        return query.bodies(name) or None
    if kind == "date":
        moment = _moment(query.text(name) or "")
        if moment is None:
            raise invalid_request("")
        return moment
    return query.text(name)


def _moment(text: str) -> int | None:
    try:
        return date_ms(text)
    except ValueError:
        return None
