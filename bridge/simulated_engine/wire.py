"""Requests, responses and routes as the REST layer handles them.  Knows no path and no rule."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from bridge.simulated_engine import queries
from bridge.simulated_engine.body import Body
from bridge.simulated_engine.errors import RestError, invalid_request
from bridge.simulated_engine.filters import Listing
from bridge.simulated_engine.store import Store
from bridge.simulated_engine.values import Variable


@dataclass(frozen=True)
class Request:
    """A request as the routes see it; `names` are the variable parts of the path."""

    method: str
    path: str
    names: tuple[str, ...]
    query: Mapping[str, str]
    content_type: str
    content: bytes

    @property
    def body(self) -> Body:
        """The JSON body; an empty one counts as `{}` when it is announced as JSON."""
        if not self.content and self.content_type.startswith("application/json"):
            return Body({})
        return Body.parse(self.content)

    def filters(self, listing: Listing) -> Body:
        """The query's members: from the body of a POST, else from the query string."""
        if self.method == "POST":
            return self.body
        return queries.from_query_string(self.query, listing)


@dataclass(frozen=True)
class Response:
    """An answer; `content` None is an empty 204."""

    status: int = 204
    content: bytes | None = None
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Route:
    """One path: `verb` is its name in the call log and for faults."""

    verb: str
    methods: tuple[str, ...]
    path: re.Pattern[str]
    answer: Callable[[Request], Any]


def json_response(status: int, value: Any) -> Response:
    """A JSON answer."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return Response(status, text.encode("utf-8", "surrogatepass"))


def error_response(error: RestError) -> Response:
    """An error answer in the engine's form."""
    return json_response(error.status, error.body())


def route(verb: str, methods: str, path: str, answer: Callable[[Request], Any]) -> Route:
    """A route; `methods` are separated by blanks, groups of `path` become names."""
    return Route(verb, tuple(methods.split()), re.compile(path), answer)


def lists(
    store: Store,
    verb: str,
    path: str,
    rows: Callable[[], Iterable[Any]],
    listing: Listing,
    *,
    shown: Callable[[Any], dict[str, Any]] = lambda row: row.as_json(),
) -> Iterable[Route]:
    """A list and its count, by GET and POST; `shown` makes a row's JSON."""

    def chosen(request: Request) -> list[Any]:
        wanted = request.filters(listing)
        with store.lock:
            found = queries.select(rows(), listing, wanted, store.clock.now_ms())
            return queries.sort(found, listing, wanted)

    def listed(request: Request) -> list[dict[str, Any]]:
        return [shown(row) for row in queries.page(chosen(request), request.query)]

    yield route(f"{verb}Count", "GET POST", f"{path}/count", lambda r: {"count": len(chosen(r))})
    yield route(verb, "GET POST", path, listed)


def binary_response(name: str, variable: Variable) -> Response:
    """The content of a File or Bytes variable; any other type is a 400."""
    if variable.content is None:
        raise invalid_request(f"Value of variable with id {name} is not a binary value.")
    if variable.type == "Bytes":
        return Response(200, variable.content, "application/octet-stream")
    info = variable.value_info
    kind = info.get("mimeType") or "application/octet-stream"
    if info.get("encoding"):
        kind += f";charset={info['encoding']}"
    file_name = str(info["filename"])
    disposition = f"attachment; filename=\"{file_name}\"; filename*=UTF-8''{quote(file_name)}"
    return Response(200, variable.content, kind, {"Content-Disposition": disposition})
