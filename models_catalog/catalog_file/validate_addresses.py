"""Under which names and at which endpoints a catalog file offers a model, how long, and what follows it."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from models_catalog.catalog_file.fields import Fields
from models_catalog.catalog_file.wanted import Reading, Reference
from models_catalog.engines import Endpoint
from models_catalog.models import CancelPolicy

ADDRESS_FIELDS: Final = (
    *("aliases", "endpoints", "cancel_policy"),
    *("deprecated_at", "sunset_at", "successor"),
)
# Fields of which nothing is a value.
CAN_BE_NOTHING: Final = frozenset({"deprecated_at", "sunset_at"})

MAX_ALIASES: Final = 64
_ALIAS: Final = "[A-Za-z0-9][A-Za-z0-9._:/-]*"
_ENDPOINTS: Final = tuple(endpoint.value for endpoint in Endpoint)


def read_addresses(fields: Fields, values: dict[str, object]) -> None:
    """Endpoints, the policy for calls that are cut, and how long the model is served."""
    if fields.has("endpoints"):
        found = fields.texts("endpoints", limit=len(Endpoint), high=32, pattern="[a-z.]+", form="a name")
        for name in found:
            if name not in _ENDPOINTS:
                fields.wrong("endpoints", f"must be of {', '.join(_ENDPOINTS)}")
        values["endpoints"] = found
    if fields.has("cancel_policy"):
        choices = tuple(policy.value.lower() for policy in CancelPolicy)
        policy = fields.choice("cancel_policy", choices)
        values["cancel_policy"] = policy.upper() if policy else None
    for name in ("deprecated_at", "sunset_at"):
        if fields.has(name):
            values[name] = None if fields.is_nothing(name) else fields.moment(name)
    deprecated, sunset = values.get("deprecated_at"), values.get("sunset_at")
    if sunset is not None and fields.is_nothing("deprecated_at"):
        fields.wrong("sunset_at", "needs deprecated_at")
    elif isinstance(deprecated, datetime) and isinstance(sunset, datetime) and sunset < deprecated:
        fields.wrong("sunset_at", "must not be before deprecated_at")


def read_aliases(fields: Fields, taken: set[str]) -> tuple[str, ...] | None:
    """The further names of a model; None when the file does not speak of them."""
    if not fields.has("aliases"):
        return None
    form = "letters, digits, dots, hyphens, colons, underscores and slashes"
    names = fields.texts("aliases", limit=MAX_ALIASES, high=120, pattern=_ALIAS, form=form)
    for name in names:
        if name in taken:
            fields.wrong("aliases", f"{name} leads to another model already")
        taken.add(name)
    return tuple(names)


def read_successor(fields: Fields, slug: str | None, reading: Reading) -> str | None:
    """The slug of the model that follows; empty for none, None when the file does not speak of it."""
    if not fields.has("successor"):
        return None
    if fields.is_nothing("successor"):
        return ""
    successor = fields.text("successor", high=120)
    if successor is not None:
        reading.references.append(Reference("model", successor, fields.at("successor")))
        if successor == slug:
            fields.wrong("successor", "must be another model")
    return successor
