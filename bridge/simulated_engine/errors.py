"""Error answers of the REST API: a status, and a body of type, message and code.

Says which answer a refusal becomes; decides no refusal itself.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

COLUMN_SIZE = 10002


class RestError(Exception):
    """A refusal as the client sees it: `status`, and a JSON object of `type`, `message`, `code`."""

    def __init__(self, status: int, kind: str, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message
        self.code = code

    def body(self) -> dict[str, Any]:
        """The error body in the engine's own words."""
        return {"type": self.kind, "message": self.message, "code": self.code}


@contextmanager
def wrapped(refused: str, failed: str) -> Iterator[None]:
    """Put the refused (400) or failed (500) operation in front of a refusal's message.

    A failure because of a column's size keeps its type and code, as in the engine.
    """
    try:
        yield
    except RestError as error:
        if error.code == COLUMN_SIZE:
            raise
        if error.status < 500:
            raise invalid_request(f"{refused}: {error.message}") from error
        raise RestError(500, "RestException", f"{failed}: {error.message}", 0) from error


def not_found(message: str) -> RestError:
    """404 by an engine rule: the task is unknown, finished or cancelled."""
    return RestError(404, "RestException", message, 0)


def not_there(message: str, code: int | None = None) -> RestError:
    """404 by the REST layer, with the type it uses for most things that are not there."""
    return RestError(404, "InvalidRequestException", message, code)


def bad_user_request(message: str) -> RestError:
    """400 by an engine rule (owner of the lock, suspension, expired lock)."""
    return RestError(400, "RestException", message, 0)


def invalid_request(message: str) -> RestError:
    """400 by the REST layer (malformed JSON, a value that cannot be converted, a bad query)."""
    return RestError(400, "InvalidRequestException", message)


def not_valid(message: str) -> RestError:
    """400 by the query builder."""
    return RestError(400, "NotValidException", message, 0)


def null_value(name: str) -> RestError:
    """500: a required member is missing; the engine calls that a server error."""
    return RestError(500, "NullValueException", f"{name} is null", 0)


def null_pointer() -> RestError:
    """500 where the engine trips over a null that it did not expect."""
    return RestError(500, "NullPointerException", "Cannot invoke a method of null")


def engine_failure(message: str, kind: str = "ProcessEngineException", code: int = 0) -> RestError:
    """500 out of the engine itself."""
    return RestError(500, kind, message, code)
