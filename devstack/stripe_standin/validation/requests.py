"""Requests against the OpenAPI description. Values of forms are text; types tell how it has to read."""

from __future__ import annotations

import re
from typing import Any

from devstack.stripe_standin.forms import Tree
from devstack.stripe_standin.routing import Route
from devstack.stripe_standin.validation.differences import CLIENT_ONLY, NEWER_VALUES
from devstack.stripe_standin.validation.specification import Schema, Specification

_NUMBERS = {"integer": r"-?\d+", "number": r"-?\d+(\.\d+)?"}


class RequestChecker:
    def __init__(self, specification: Specification) -> None:
        self._specification = specification

    def check(self, endpoint: Route, tree: Tree) -> list[str]:
        try:
            schema = self._specification.request(endpoint.method, endpoint.template)
        except LookupError:
            return [f"{endpoint.name} is not described"]
        return self._check(tree, schema, "", endpoint.name)

    def _check(self, value: Any, schema: Schema, path: str, name: str) -> list[str]:
        schema = self._specification.resolve(schema)
        if "anyOf" in schema:
            attempts = [self._check(value, part, path, name) for part in schema["anyOf"]]
            return min(attempts, key=len)
        if "enum" in schema and value not in schema["enum"]:
            if isinstance(value, str) and (name, path, value) in NEWER_VALUES:
                return []
            return [f"{path}: {value!r} is not one of {schema['enum']}"]
        kind = schema.get("type")
        if kind == "object":
            return self._check_object(value, schema, path, name)
        if kind == "array":
            return self._check_array(value, schema, path, name)
        return _check_text(value, schema, path)

    def _check_object(self, value: Any, schema: Schema, path: str, name: str) -> list[str]:
        if not isinstance(value, dict):
            return [f"{path}: an object is needed, not {value!r}"]
        problems = [
            f"{_below(path, key)} is missing" for key in schema.get("required", ()) if key not in value
        ]
        properties, more = schema.get("properties", {}), schema.get("additionalProperties", True)
        for key, part in value.items():
            below = _below(path, key)
            if key in properties:
                problems += self._check(part, properties[key], below, name)
            elif (name, _unnumbered(below)) in CLIENT_ONLY:
                continue
            elif isinstance(more, dict):
                problems += self._check(part, more, below, name)
            elif not more or properties:
                problems.append(f"{below} is unknown")
        return problems

    def _check_array(self, value: Any, schema: Schema, path: str, name: str) -> list[str]:
        if not isinstance(value, dict) or not all(key.isdigit() for key in value):
            return [f"{path}: an array is needed, not {value!r}"]
        problems = []
        for key, part in value.items():
            problems += self._check(part, schema["items"], _below(path, key), name)
        return problems


def _check_text(value: Any, schema: Schema, path: str) -> list[str]:
    kind = schema.get("type")
    if not isinstance(value, str):
        return [f"{path}: {kind} is needed, not {value!r}"]
    if kind in _NUMBERS and not re.fullmatch(_NUMBERS[kind], value):
        return [f"{path}: {value!r} is no {kind}"]
    if kind == "boolean" and value not in ("true", "false"):
        return [f"{path}: {value!r} is no boolean"]
    if len(value) > schema.get("maxLength", len(value)):
        return [f"{path}: {len(value)} characters are too many"]
    return []


def _below(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _unnumbered(path: str) -> str:
    """`line_items.0.price_data` as `line_items.[].price_data`."""
    return ".".join("[]" if part.isdigit() else part for part in path.split("."))
