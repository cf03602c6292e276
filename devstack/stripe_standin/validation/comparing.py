"""Compares the two descriptions with each other: which parameters only one of them has."""

from __future__ import annotations

from typing import Any, get_args, get_origin

import typing_extensions

from devstack.stripe_standin.routing import ROUTES
from devstack.stripe_standin.validation.client_types import alternatives, fields, params_type
from devstack.stripe_standin.validation.specification import Schema, Specification

Names = set[str]
Differences = set[tuple[str, str]]


def compare(specification: Specification) -> tuple[Differences, Differences]:
    """(endpoint, parameter) pairs that only the client, and that only the description has.

    Of a part that one side lacks, the topmost name only; members of arrays are `[]`.
    """
    client_only: Differences = set()
    description_only: Differences = set()
    for route in ROUTES:
        kind = params_type(route.method, route.template)
        ours = _of_client(kind) if kind else set()
        theirs = _of_description(specification, specification.request(route.method, route.template))
        client_only |= {(route.name, name) for name in _topmost(ours - theirs)}
        description_only |= {(route.name, name) for name in _topmost(theirs - ours)}
    return client_only, description_only


def _topmost(names: Names) -> Names:
    return {name for name in names if not any(parent in names for parent in _parents(name))}


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts))]


def _of_client(kind: type, path: str = "") -> Names:
    found: Names = set()
    for name, hint in fields(kind).items():
        found.add(path + name)
        found |= _below_hint(hint, path + name)
    return found


def _below_hint(hint: Any, path: str) -> Names:
    found: Names = set()
    for choice in alternatives(hint):
        if typing_extensions.is_typeddict(choice):
            found |= _of_client(choice, f"{path}.")
        elif get_origin(choice) is list:
            found |= _below_hint(get_args(choice)[0], f"{path}.[]")
    return found


def _of_description(specification: Specification, schema: Schema, path: str = "") -> Names:
    schema = specification.resolve(schema)
    found: Names = set()
    for choice in schema.get("anyOf", ()):
        found |= _of_description(specification, choice, path)
    if schema.get("type") == "array":
        found |= _of_description(specification, schema["items"], f"{path}[].")
    for name, part in schema.get("properties", {}).items():
        found.add(path + name)
        found |= _of_description(specification, part, f"{path}{name}.")
    return found
