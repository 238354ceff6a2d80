"""The published contract as its readers use it: a JSON Schema validator for each message.

`problems` are the words of the validator; none means that the message keeps the contract.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonschema import Draft7Validator, Draft202012Validator

PUBLIC_SCHEMA = Path(__file__).parent / "asyncapi" / "schema-3.0.0.json"
Document = dict[str, Any]


@dataclass(frozen=True)
class Contract:
    """What `external-task-bridge schema` printed, in both formats."""

    asyncapi: Document
    bundle: Document

    def problems(
        self, message: str, body: Any, *, headers: Any = None, properties: Any = None
    ) -> list[str]:
        """What is wrong with a message, by both documents.  `message` is `<topic>.<kind>`; headers
        and properties are looked at where they are given.
        """
        about = self.asyncapi["components"]["messages"][message]
        found = self._by_asyncapi(about["payload"], body)
        assert bool(found) == bool(self.body_problems(about["payload"], body)), "they differ"
        if headers is not None:
            found += self._by_asyncapi(about["headers"], headers)
        if properties is not None:
            found += self._by_asyncapi(about["x-amqp-properties"], properties)
        return found

    def body_problems(self, payload: Document, body: Any) -> list[str]:
        """The same body by the JSON Schema bundle, which has the same definitions."""
        reference = payload.get("$ref", "").replace("#/components/schemas/", "#/$defs/")
        schema = {"$ref": reference, "$defs": self.bundle["$defs"]} if reference else payload
        return _told(Draft202012Validator(schema), body)

    def _by_asyncapi(self, part: Document, value: Any) -> list[str]:
        schema = {"allOf": [part], "components": self.asyncapi["components"]}
        return _told(Draft7Validator(schema), value)


def asyncapi_problems(document: Document) -> list[str]:
    """What AsyncAPI's own schema says against a document."""
    return _told(Draft7Validator(json.loads(PUBLIC_SCHEMA.read_bytes())), document)


def references(part: Any) -> Iterator[str]:
    """Every reference in a document, at any depth."""
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for value in part.values():
            yield from references(value)
    elif isinstance(part, list):
        for item in part:
            yield from references(item)


def resolve(document: Document, reference: str) -> Any:
    """What a reference within the document points to.  Raises KeyError where nothing is there."""
    found: Any = document
    for step in reference.removeprefix("#/").split("/"):
        found = found[step]
    return found


def _told(validator: Any, value: Any) -> list[str]:
    return [f"{error.json_path}: {error.message}"[:300] for error in validator.iter_errors(value)]
