"""An instance of a simple JSON schema, the same one each time.

Known: const, enum, type, properties, items, minItems, minLength, maxLength, minimum, anyOf, oneOf, allOf and
references inside the document. Whatever else a schema says is not looked at.
"""

from __future__ import annotations

import math
from typing import Any

Json = dict[str, Any]

MAX_DEPTH = 12
_PLAIN_STRING = "text"


def instance_of(schema: object, *, root: object = None, name: str = _PLAIN_STRING, depth: int = 0) -> Any:
    """The instance. Strings are named after the property that they fill; beyond MAX_DEPTH there is null."""
    if not isinstance(schema, dict) or depth > MAX_DEPTH:
        return None
    top = schema if root is None else root
    if isinstance(schema.get("$ref"), str):
        return instance_of(_resolve(schema["$ref"], top), root=top, name=name, depth=depth + 1)
    if "const" in schema:
        return schema["const"]
    if isinstance(schema.get("enum"), list) and schema["enum"]:
        return schema["enum"][0]
    for word in ("anyOf", "oneOf"):
        if isinstance(schema.get(word), list) and schema[word]:
            return instance_of(schema[word][0], root=top, name=name, depth=depth + 1)
    if isinstance(schema.get("allOf"), list):
        merged: Json = {}
        for part in schema["allOf"]:
            resolved = _resolve(part["$ref"], top) if isinstance(part, dict) and "$ref" in part else part
            merged |= resolved if isinstance(resolved, dict) else {}
        return instance_of(merged, root=top, name=name, depth=depth + 1)
    return _of_type(schema, top, name, depth)


def _of_type(schema: Json, root: object, name: str, depth: int) -> Any:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = kind[0] if kind else None
    match kind or ("object" if "properties" in schema else "string"):
        case "object":
            properties = schema.get("properties")
            return {
                key: instance_of(inner, root=root, name=key, depth=depth + 1)
                for key, inner in (properties if isinstance(properties, dict) else {}).items()
            }
        case "array":
            item = instance_of(schema.get("items", {}), root=root, name=name, depth=depth + 1)
            return [item] * min(max(1, _number(schema, "minItems", 1)), 100)
        case "integer" | "number":
            return _number(schema, "minimum", 1)
        case "boolean":
            return True
        case "null":
            return None
        case _:
            return _string(schema, name)


def _string(schema: Json, name: str) -> str:
    text = name.ljust(min(_number(schema, "minLength", 0), 10_000), "x")
    return text[: max(0, _number(schema, "maxLength", len(text)))]


def _number(schema: Json, field: str, default: int) -> int:
    value = schema.get(field)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return default
    return math.ceil(value)


def _resolve(reference: str, root: object) -> object:
    found = root
    for part in reference.removeprefix("#").split("/"):
        if part:
            found = found.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
    return found
