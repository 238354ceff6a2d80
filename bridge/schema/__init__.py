"""The contract with workers, as documents that machines read: AsyncAPI 3 and JSON Schema.

Made from the models that the bridge reads and writes by, for the topics of these settings.
Connects to nothing and shows no credentials.
"""

from bridge.schema.asyncapi import asyncapi
from bridge.schema.bundle import json_schema

__all__ = ["asyncapi", "json_schema"]
