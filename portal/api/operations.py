"""What each method of an address does: who may, what it takes and gives, and what can go wrong. Calls are
checked by it and the OpenAPI description is made of it, so the two cannot differ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Final, TypeVar, cast

from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import serializers

from portal.api import problems
from portal.api.fields import ID_PATTERN, Parameters
from portal.api.problems import Kind, Problem
from portal.kit.ids import PREFIXES
from tenants.models import ManagementScope
from tenants.permissions import Permission

METHODS: Final = ("get", "post", "put", "patch", "delete")
METHOD = TypeVar("METHOD", bound=Callable[..., Any])

SerializerClass = type[serializers.Serializer[Any]]

# Can happen to every call, and to every write.
COMMON: Final = (
    problems.INVALID,
    problems.NO_KEY,
    problems.FORBIDDEN,
    problems.NOT_ACCEPTABLE,
    problems.RATE,
    problems.INTERNAL,
    problems.UNAVAILABLE,
)
OF_WRITES: Final = (problems.KEY_REUSED, problems.IN_PROGRESS, problems.TOO_LARGE, problems.MEDIA)


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one address. action: how the audit log calls it; raises: errors of the domain and the
    problem that each is answered with."""

    id: str
    action: str
    scope: ManagementScope | None
    permission: Permission | None
    parameters: type[Parameters] | None
    body: SerializerClass | None
    raises: Mapping[type[Exception], Kind]
    body_example: Mapping[str, Any] | None = field(default=None)


def operation(
    *,
    id: str,
    summary: str,
    tag: str,
    action: str,
    answer: SerializerClass | None,
    scope: ManagementScope | None = None,
    permission: Permission | None = None,
    parameters: type[Parameters] | None = None,
    body: SerializerClass | None = None,
    status: int = 200,
    parts: Mapping[str, str] | None = None,
    raises: Mapping[type[Exception], Kind] | None = None,
    problems_of: Sequence[Kind] = (),
    body_example: Mapping[str, Any] | None = None,
    answer_example: Any = None,
) -> Callable[[METHOD], METHOD]:
    """Describe a method of an endpoint; its docstring is the description.

    parts: of the address, by name: the kind of id, or a pattern. The method gets a Call and these parts, and
    returns an Answer.
    """
    known = Operation(id, action, scope, permission, parameters, body, dict(raises or {}), body_example)

    def decorate(method: METHOD) -> METHOD:
        @wraps(method)
        def wrapped(self: Any, call: Any, *args: Any, **found: Any) -> Any:
            try:
                return method(self, call, *args, **found)
            except tuple(known.raises) as error:
                kind = next(kind for raised, kind in known.raises.items() if isinstance(error, raised))
                text = str(error).strip() or kind.title
                raise Problem(kind, f"{text[:1].upper()}{text[1:]}.") from error

        wrapped.operation = known  # type: ignore[attr-defined]
        is_write = method.__name__ in ("post", "put", "patch", "delete")
        kinds = [*COMMON, *(OF_WRITES if is_write else ()), *known.raises.values(), *problems_of]
        if body is not None:
            kinds.append(problems.BAD_JSON)
        if parts:
            kinds.append(problems.NOT_FOUND)
        described = extend_schema(
            operation_id=id,
            summary=summary,
            tags=[tag],
            description=_described(method, known),
            parameters=[*_described_parts(parts or {}), *([parameters] if parameters else [])],
            request=body,
            responses={status: OpenApiResponse(answer, description="Done." if is_write else "As asked for.")},
            examples=_examples(summary, body_example, answer_example, status),
            extensions={
                "x-problems": sorted({kind.code for kind in kinds}),
                "x-scope": scope.value if scope else None,
                "x-permission": permission.value if permission else None,
            },
        )
        return cast(METHOD, described(wrapped))

    return decorate


def _described(method: Callable[..., Any], known: Operation) -> str:
    text = " ".join((method.__doc__ or "").split())
    return f"{text} Needs the scope `{known.scope.value}`." if known.scope else text


def _described_parts(parts: Mapping[str, str]) -> list[OpenApiParameter]:
    found = []
    for name, kind in parts.items():
        if kind in PREFIXES:
            prefix = PREFIXES[kind]
            schema: dict[str, Any] = {"type": "string", "pattern": f"^{prefix}_{ID_PATTERN}$"}
            text = f"A `{prefix}_…` id."
        else:
            schema = {"type": "string", "pattern": kind, "maxLength": 120}
            text = "A part of the model's name, `vendor/name`."
        found.append(OpenApiParameter(name, schema, OpenApiParameter.PATH, required=True, description=text))
    return found


def _examples(summary: str, body: Mapping[str, Any] | None, answer: Any, status: int) -> list[OpenApiExample]:
    examples = []
    if body is not None:
        examples.append(OpenApiExample(summary, body, request_only=True))
    if answer is not None:
        examples.append(OpenApiExample(summary, answer, response_only=True, status_codes=[str(status)]))
    return examples
