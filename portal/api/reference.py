"""The OpenAPI description as rows of a page: sections, operations, their fields, an example of each."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from portal.api.operations import METHODS
from portal.api.writes import HEADER

_MAX_DEPTH: Final = 5
# Written in one line, however often they come.
_OPAQUE: Final = {"MoneyAnswer": "money"}
_MONEY: Final = {"amount": "12.5", "currency": "USD", "nanos": "12500000000"}


@dataclass(frozen=True, slots=True)
class FieldRow:
    """One parameter, or one field of a body or an answer. name: with dots and [] for what lies deeper."""

    name: str
    type: str
    is_required: bool
    text: str
    place: str = ""


@dataclass(frozen=True, slots=True)
class OperationRow:
    """One method of one address."""

    id: str
    method: str
    path: str
    summary: str
    description: str
    scope: str
    permission: str
    status: str
    parameters: tuple[FieldRow, ...]
    body: tuple[FieldRow, ...]
    answer: tuple[FieldRow, ...]
    problems: tuple[str, ...]
    sample: str
    example: str

    @property
    def sample_id(self) -> str:
        return f"{self.id}-sample"

    @property
    def example_id(self) -> str:
        return f"{self.id}-answer"

    @property
    def example_label(self) -> str:
        return f"Answer {self.status}"


@dataclass(frozen=True, slots=True)
class Section:
    """Operations of one tag. anchor: its id on the page."""

    anchor: str
    name: str
    text: str
    operations: tuple[OperationRow, ...]


def sections_of(document: Mapping[str, Any]) -> tuple[Section, ...]:
    """The page's content, in the order of the tags and of the addresses."""
    reader = _Reader(document)
    return tuple(
        Section(
            anchor=tag["name"].replace(": ", "-").replace(" ", "-"),
            name=tag["name"],
            text=tag["description"],
            operations=tuple(reader.operations_of(tag["name"])),
        )
        for tag in document["tags"]
    )


class _Reader:
    """Follows references within one description."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self._schemas: Mapping[str, Any] = document["components"]["schemas"]
        self._server: str = document["servers"][0]["url"]

    def operations_of(self, tag: str) -> Iterator[OperationRow]:
        for path, methods in self._document["paths"].items():
            for method in METHODS:
                found = methods.get(method)
                if found is not None and tag in found["tags"]:
                    yield self._operation(path, method, found)

    def _operation(self, path: str, method: str, found: Mapping[str, Any]) -> OperationRow:
        status, done = next((code, answer) for code, answer in found["responses"].items() if code[0] == "2")
        body = _json_content(found.get("requestBody", {}))
        answer = _json_content(done)
        return OperationRow(
            id=found["operationId"],
            method=method.upper(),
            path=path,
            summary=found["summary"],
            description=found.get("description", ""),
            scope=found.get("x-scope") or "",
            permission=found.get("x-permission") or "",
            status=status,
            parameters=tuple(
                self._parameter(one) for one in found.get("parameters", ()) if one["name"] != HEADER
            ),
            body=tuple(self._fields(body.get("schema"))),
            answer=tuple(self._fields(answer.get("schema"))),
            problems=tuple(found.get("x-problems", ())),
            sample=self._sample(path, method, found, body),
            example=_pretty(self._example(answer)) if answer else "",
        )

    def _parameter(self, found: Mapping[str, Any]) -> FieldRow:
        return FieldRow(
            found["name"],
            self._type(found["schema"]),
            found.get("required", False),
            found.get("description", ""),
            found["in"],
        )

    def _fields(
        self, schema: Mapping[str, Any] | None, prefix: str = "", depth: int = 0
    ) -> Iterator[FieldRow]:
        resolved, name = self._resolve(schema or {})
        if name in _OPAQUE or depth > _MAX_DEPTH:
            return
        if resolved.get("type") == "array":
            yield from self._fields(resolved["items"], f"{prefix}[]", depth)
            return
        for field, inner in resolved.get("properties", {}).items():
            named = f"{prefix}.{field}" if prefix else field
            required = field in resolved.get("required", ())
            yield FieldRow(named, self._type(inner), required, self._text(inner))
            yield from self._fields(inner, named, depth + 1)

    def _text(self, schema: Mapping[str, Any]) -> str:
        return str(schema.get("description", ""))

    def _resolve(self, schema: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
        """What a schema stands for, without what only says that it may be null; and its name."""
        for together in ("allOf", "oneOf", "anyOf"):
            for one in schema.get(together, ()):
                if one.get("type") != "null" and one.get("enum") != [None]:
                    return self._resolve(one)
        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            return self._schemas[name], name
        return schema, ""

    def _type(self, schema: Mapping[str, Any]) -> str:
        resolved, name = self._resolve(schema)
        kinds = resolved.get("type", "object")
        kinds = kinds if isinstance(kinds, list) else [kinds]
        may_be_null = "null" in kinds or any(
            one.get("type") == "null" for one in (*schema.get("oneOf", ()), *schema.get("anyOf", ()))
        )
        plain = next((kind for kind in kinds if kind != "null"), "object")
        if name in _OPAQUE:
            text = _OPAQUE[name]
        elif "enum" in resolved:
            text = " | ".join(str(value) for value in resolved["enum"] if value is not None)
        elif plain == "array":
            text = f"{self._type(resolved['items'])}[]"
        elif resolved.get("format") == "date-time":
            text = "moment"
        else:
            text = str(plain)
        return f"{text} | null" if may_be_null else text

    def _sample(self, path: str, method: str, found: Mapping[str, Any], body: Mapping[str, Any]) -> str:
        """The call with curl; the key and the parts of the address are variables of the shell."""
        for parameter in found.get("parameters", ()):
            if parameter["in"] == "path":
                path = path.replace(f"{{{parameter['name']}}}", f"${parameter['name'].upper()}")
        lines = [
            f'curl -X {method.upper()} "{self._server}{path}" \\'
            if method != "get"
            else f'curl "{self._server}{path}" \\'
        ]
        lines.append('  -H "Authorization: Bearer $MANAGEMENT_KEY"')
        if method != "get":
            lines[-1] += " \\"
            lines.append(f'  -H "{HEADER}: $(uuidgen)"')
        if body:
            text = json.dumps(self._example(body), ensure_ascii=False)
            lines[-1] += " \\"
            lines.append('  -H "Content-Type: application/json" \\')
            lines.append(f"  -d {shlex.quote(text)}")
        return "\n".join(lines)

    def _example(self, content: Mapping[str, Any]) -> Any:
        for example in content.get("examples", {}).values():
            return example["value"]
        return self._made_up(content.get("schema", {}))

    def _made_up(self, schema: Mapping[str, Any], depth: int = 0) -> Any:
        """A value of the form that a schema asks for."""
        resolved, name = self._resolve(schema)
        if name == "MoneyAnswer":
            return _MONEY
        if "enum" in resolved:
            return resolved["enum"][0]
        kinds = resolved.get("type", "object")
        plain = kinds if isinstance(kinds, str) else next(kind for kind in kinds if kind != "null")
        match plain:
            case "array":
                return [self._made_up(resolved["items"], depth + 1)] if depth < _MAX_DEPTH else []
            case "integer" | "number":
                return resolved.get("default", resolved.get("minimum", 1))
            case "boolean":
                return False
            case "string" if resolved.get("format") == "date-time":
                return "2026-11-01T08:00:00Z"
            case "string":
                return "…"
            case _:
                inner = resolved.get("properties", {})
                return {field: self._made_up(one, depth + 1) for field, one in inner.items()}


def _json_content(found: Mapping[str, Any]) -> Mapping[str, Any]:
    content: Mapping[str, Any] = found.get("content", {}).get("application/json", {})
    return content


def _pretty(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)
