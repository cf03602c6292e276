"""Requests against the parameter types of the installed client: the TypedDicts of `stripe.params`."""

from __future__ import annotations

import ast
import re
import types
from decimal import Decimal
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import typing_extensions
from stripe import RequestOptions

from devstack.stripe_standin.forms import Tree
from devstack.stripe_standin.routing import Route
from devstack.stripe_standin.validation.specification import plain

# The client's module of an endpoint, by the longest beginning of its path.
_SERVICES = {
    "/v1/account": "stripe._account_service",
    "/v1/balance_transactions": "stripe._balance_transaction_service",
    "/v1/billing_portal/sessions": "stripe.billing_portal._session_service",
    "/v1/charges": "stripe._charge_service",
    "/v1/checkout/sessions": "stripe.checkout._session_service",
    "/v1/checkout/sessions/{}/line_items": "stripe.checkout._session_line_item_service",
    "/v1/credit_notes": "stripe._credit_note_service",
    "/v1/customers": "stripe._customer_service",
    "/v1/customers/{}/payment_methods": "stripe._customer_payment_method_service",
    "/v1/customers/{}/tax_ids": "stripe._customer_tax_id_service",
    "/v1/disputes": "stripe._dispute_service",
    "/v1/events": "stripe._event_service",
    "/v1/invoice_payments": "stripe._invoice_payment_service",
    "/v1/invoiceitems": "stripe._invoice_item_service",
    "/v1/invoices": "stripe._invoice_service",
    "/v1/invoices/{}/lines": "stripe._invoice_line_item_service",
    "/v1/payment_intents": "stripe._payment_intent_service",
    "/v1/payment_methods": "stripe._payment_method_service",
    "/v1/payouts": "stripe._payout_service",
    "/v1/refunds": "stripe._refund_service",
    "/v1/setup_intents": "stripe._setup_intent_service",
    "/v1/tax/calculations": "stripe.tax._calculation_service",
    "/v1/webhook_endpoints": "stripe._webhook_endpoint_service",
}
_OPTIONS = frozenset(RequestOptions.__annotations__)


class ClientTypes:
    def check(self, endpoint: Route, tree: Tree) -> list[str]:
        """What the client's types would not have allowed."""
        try:
            kind = params_type(endpoint.method, endpoint.template)
        except LookupError:
            return [f"{endpoint.name} is not in the client"]
        if kind is None:
            return [f"{key} is unknown" for key in tree]
        return _check_dict(tree, kind, "")


def params_type(method: str, template: str) -> type | None:
    """The type of an endpoint's parameters; None when it takes none. LookupError when the client has none."""
    path = plain(template)
    module = max((prefix for prefix in _SERVICES if path.startswith(prefix)), key=len)
    return _methods(_SERVICES[module])[method, path]


@cache
def fields(kind: type) -> dict[str, Any]:
    """A TypedDict's fields with their types, without what goes into headers."""
    own = {name: hint for name, hint in kind.__annotations__.items() if name not in _OPTIONS}
    # A bare class: what is inherited is written in terms of another module.
    bare = type(kind.__name__, (), {"__annotations__": own})
    return typing_extensions.get_type_hints(bare, vars(import_module(kind.__module__)))


def alternatives(hint: Any) -> list[Any]:
    """The members of a union, or the type itself."""
    if get_origin(hint) in (Union, types.UnionType):
        return [part for member in get_args(hint) for part in alternatives(member)]
    return [hint]


def _check_dict(tree: Any, kind: type, path: str) -> list[str]:
    if not isinstance(tree, dict):
        return [f"{path}: {kind.__name__} is needed, not {tree!r}"]
    known = fields(kind)
    required: frozenset[str] = getattr(kind, "__required_keys__", frozenset())
    problems = [f"{path}{name} is missing" for name in sorted(required & known.keys() - tree.keys())]
    for name, value in tree.items():
        if name not in known:
            problems.append(f"{path}{name} is unknown")
        else:
            problems += _check(value, known[name], f"{path}{name}")
    return problems


def _check(value: Any, hint: Any, path: str) -> list[str]:
    choices = alternatives(hint)
    literals = {word for choice in choices if get_origin(choice) is Literal for word in get_args(choice)}
    if literals - {""}:
        # `Literal[…]|str` leaves the future open; what we send today has to be among the words.
        choices = [choice for choice in choices if choice is not str]
    return min((_check_one(value, choice, path) for choice in choices), key=len, default=[])


def _check_one(value: Any, hint: Any, path: str) -> list[str]:
    origin = get_origin(hint)
    if typing_extensions.is_typeddict(hint):
        return _check_dict(value, hint, f"{path}.")
    if origin is list:
        if not isinstance(value, dict) or not all(key.isdigit() for key in value):
            return [f"{path}: a list is needed, not {value!r}"]
        (member,) = get_args(hint)
        return [line for key, part in value.items() for line in _check(part, member, f"{path}.{key}")]
    if origin is dict:
        if not isinstance(value, dict):
            return [f"{path}: a mapping is needed, not {value!r}"]
        return [
            line for key, part in value.items() for line in _check(part, get_args(hint)[1], f"{path}.{key}")
        ]
    if origin is Literal:
        return [] if value in get_args(hint) else [f"{path}: {value!r} is not one of {get_args(hint)}"]
    pattern = _PATTERNS.get(hint)
    if pattern is None:
        return [f"{path}: {value!r} does not fit {hint}"]
    fits = isinstance(value, str) and re.fullmatch(pattern, value, re.DOTALL)
    return [] if fits else [f"{path}: {value!r} is no {hint.__name__}"]


_PATTERNS: dict[Any, str] = {
    str: r".*",
    int: r"-?\d+",
    float: r"-?\d+(\.\d+)?",
    Decimal: r"-?\d+(\.\d+)?",
    bool: r"true|false",
}


@cache
def _methods(module: str) -> dict[tuple[str, str], type | None]:
    """(HTTP method, plain path) → type of the parameters, as the source of a service says."""
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text())
    homes = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    found: dict[tuple[str, str], type | None] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            address = _address(node)
            if address is not None:
                name = _params_name(node)
                found[address] = None if name is None else getattr(import_module(homes[name]), name)
    return found


def _address(function: ast.FunctionDef) -> tuple[str, str] | None:
    """What a method of a service requests."""
    words = [
        node.value
        for node in ast.walk(function)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    verbs = [word for word in words if word in ("get", "post", "delete")]
    paths = [word for word in words if word.startswith("/v1/")]
    return (verbs[0].upper(), plain(paths[0])) if verbs and paths else None


def _params_name(function: ast.FunctionDef) -> str | None:
    for argument in function.args.args:
        if argument.arg == "params" and argument.annotation is not None:
            names = re.findall(r"\w+Params\b", ast.unparse(argument.annotation))
            return names[0] if names else None
    return None
