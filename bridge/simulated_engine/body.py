"""Members of a JSON request with the engine's coercions.  Refuses what has the wrong JSON type."""

import json
from collections.abc import Mapping
from typing import Any

from bridge.simulated_engine.errors import invalid_request, null_pointer, null_value
from bridge.simulated_engine.values import Variable, java_text, read_variables


class Body:
    """A JSON object of a request; unknown members are ignored, as the engine does."""

    def __init__(self, members: Mapping[str, Any]) -> None:
        self.members = members

    @classmethod
    def parse(cls, text: bytes) -> "Body":
        """Read a request's body: no JSON object is a 400, nothing or `null` even a 500."""
        if text.strip() in {b"", b"null"}:
            raise null_pointer()
        try:
            members = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise invalid_request("") from error
        if not isinstance(members, dict):
            raise invalid_request("")
        return cls(members)

    def text(self, name: str) -> str | None:
        """A string; numbers and booleans become text."""
        value = self.members.get(name)
        if isinstance(value, dict | list):
            raise invalid_request("")
        return None if value is None else java_text(value)

    def required(self, name: str) -> str:
        """A string that must be there: its lack is the engine's 500 NullValueException."""
        value = self.text(name)
        if value is None:
            raise null_value(name)
        return value

    def optional_whole(self, name: str) -> int | None:
        """A whole number or a numeric string; None when absent."""
        value = self.members.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise invalid_request("")
        try:
            return int(value)
        except (ValueError, OverflowError) as error:
            raise invalid_request("") from error

    def whole(self, name: str) -> int:
        """A whole number, 0 when absent: the trap of primitive members in Java."""
        return self.optional_whole(name) or 0

    def flag(self, name: str) -> bool:
        """A boolean or its text; False when absent."""
        value = self.members.get(name)
        if value in {None, "", "false", "False", "FALSE", False}:
            return False
        if value in {"true", "True", "TRUE", True}:
            return True
        raise invalid_request("")

    def texts(self, name: str) -> tuple[str, ...] | None:
        """A list of strings; None when absent."""
        value = self.members.get(name)
        if value is None:
            return None
        if not isinstance(value, list):
            raise invalid_request("")
        return tuple(java_text(item) for item in value)

    def bodies(self, name: str) -> list["Body"]:
        """A list of objects; empty when absent."""
        value = self.members.get(name)
        if value is None:
            return []
        if isinstance(value, list) and None in value:
            raise null_pointer()
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise invalid_request("")
        return [Body(item) for item in value]

    def mapping(self, name: str) -> Mapping[str, Any] | None:
        """An object; None when absent."""
        value = self.members.get(name)
        if value is not None and not isinstance(value, dict):
            raise invalid_request("")
        return value

    def variables(self, name: str = "variables") -> dict[str, Variable]:
        """An object of variables, typed; empty when absent."""
        return read_variables(self.mapping(name))
