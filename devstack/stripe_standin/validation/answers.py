"""Answers against the schemas of the OpenAPI description: required fields, types, and nothing else."""

from __future__ import annotations

import re
from typing import Any

from devstack.stripe_standin.api import Answer
from devstack.stripe_standin.routing import Route
from devstack.stripe_standin.validation.differences import NEWER_FIELDS
from devstack.stripe_standin.validation.specification import Schema, Specification

_TYPES: dict[str, tuple[type, ...]] = {
    "integer": (int,),
    "number": (int, float),
    "string": (str,),
    "boolean": (bool,),
}


class AnswerChecker:
    def __init__(self, specification: Specification) -> None:
        self._specification = specification

    def check(self, endpoint: Route, answer: Answer) -> list[str]:
        try:
            schema = self._specification.answer(endpoint.method, endpoint.template, answer.status)
        except LookupError:
            return [f"{endpoint.name} is not described"]
        return self._check(answer.body, schema, "")

    def check_object(self, name: str, body: Any) -> list[str]:
        """An object on its own, such as the one in an event."""
        return self._check(body, {"$ref": f"#/components/schemas/{name}"}, name)

    def _check(self, value: Any, schema: Schema, path: str) -> list[str]:
        is_nullable = schema.get("nullable", False)
        schema = self._specification.resolve(schema)
        if value is None:
            return [] if is_nullable or schema.get("nullable") else [f"{path}: null is not possible"]
        if "anyOf" in schema:
            attempts = [self._check(value, part, path) for part in self._candidates(value, schema["anyOf"])]
            return min(attempts, key=len) if attempts else [f"{path}: fits nothing: {value!r:.80}"]
        kind = schema.get("type")
        if kind == "object":
            return self._check_object(value, schema, path)
        if kind == "array":
            if not isinstance(value, list):
                return [f"{path}: an array is needed, not {value!r:.80}"]
            return [
                problem
                for number, part in enumerate(value)
                for problem in self._check(part, schema["items"], f"{path}[{number}]")
            ]
        return _check_scalar(value, schema, path)

    def _candidates(self, value: Any, schemas: list[Schema]) -> list[Schema]:
        """Alternatives that `object` tells apart; all of them where it doesn't."""
        if not isinstance(value, dict):
            return schemas
        same = []
        for schema in schemas:
            named = self._specification.resolve(schema).get("properties", {}).get("object", {})
            if value.get("object") is None or value.get("object") in named.get("enum", ()):
                same.append(schema)
        return same or schemas

    def _check_object(self, value: Any, schema: Schema, path: str) -> list[str]:
        if not isinstance(value, dict):
            return [f"{path}: an object is needed, not {value!r:.80}"]
        problems = [f"{path}.{key} is missing" for key in schema.get("required", ()) if key not in value]
        properties, more = schema.get("properties"), schema.get("additionalProperties")
        for key, part in value.items():
            if properties and key in properties:
                problems += self._check(part, properties[key], f"{path}.{key}")
            elif (value.get("object"), key) in NEWER_FIELDS:
                continue
            elif isinstance(more, dict):
                problems += self._check(part, more, f"{path}.{key}")
            elif properties:
                problems.append(f"{path}.{key} is unknown")
        return problems


def _check_scalar(value: Any, schema: Schema, path: str) -> list[str]:
    kind = schema.get("type")
    if kind is None:
        return []
    allowed = _TYPES[kind]
    if not isinstance(value, allowed) or (isinstance(value, bool) and kind != "boolean"):
        return [f"{path}: {kind} is needed, not {value!r:.80}"]
    if "enum" in schema and value not in schema["enum"]:
        return [f"{path}: {value!r} is not one of {schema['enum']}"]
    if isinstance(value, str):
        if len(value) > schema.get("maxLength", len(value)):
            return [f"{path}: {len(value)} characters are too many"]
        if "pattern" in schema and not re.search(schema["pattern"], value):
            return [f"{path}: {value!r} does not fit {schema['pattern']}"]
    return []
