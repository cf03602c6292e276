"""What operators enter about the fleet, and what can be wrong with it."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import UUID

from models_catalog.models import Engine
from models_catalog.models.costs import (
    MAX_ACCELERATORS,
    MAX_CAPACITY_TOKENS_PER_S,
    MAX_NANOS_PER_ACCELERATOR_HOUR,
    MAX_NANOS_PER_KWH,
    MAX_POWER_WATTS,
    MAX_PUE_THOUSANDTHS,
    MAX_WEIGHT_THOUSANDTHS,
    MIN_PUE_THOUSANDTHS,
    WHOLE_PPM,
)
from models_catalog.models.fleet import MAX_CAPABILITIES, MAX_CONFIGURATION_LENGTH

MAX_CODE_LENGTH: Final = 64
MAX_CONCURRENCY: Final = 1_000_000
MAX_CREDENTIAL_LENGTH: Final = 2000
MAX_CONTEXT_TOKENS: Final = 20_000_000

CAPABILITY: Final = re.compile(r"[a-z0-9_]{1,32}")
_CODE: Final = re.compile(r"[A-Za-z0-9_-]+")
_CURRENCY: Final = re.compile(r"[A-Z]{3}")
# Visible ASCII: a credential travels in a header.
_CREDENTIAL: Final = re.compile(r"[!-~]*")
_URL: Final = re.compile(r"(?:http|https)://[A-Za-z0-9._~:/\[\]%!$&'()*+,;=-]+")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


class InvalidEntry(ValueError):
    """What was entered cannot be stored. `field` names the field; the message says why and omits what."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(f"{field} {why}")
        self.field = field
        self.why = why


class CredentialNeeded(InvalidEntry):
    """The stored credential was about to go to another server than the one that it was given for."""

    def __init__(self) -> None:
        super().__init__("credential", "must be given anew with an address on another server")


class UrlFault(StrEnum):
    """Why an address is no base URL of a backend."""

    TOO_LONG = "must have at most 500 characters"
    INVALID = "must be a valid address"
    SCHEME = "must be an http:// or https:// address"
    CREDENTIALS = "must not hold credentials"
    QUERY = "must have no query and no fragment"
    VERSION = "must be written without /v1"


def fault_of_url(text: str) -> UrlFault | None:
    """What is wrong with a base URL, written without a trailing slash; None when nothing is."""
    if len(text) > 500:
        return UrlFault.TOO_LONG
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        return UrlFault.INVALID
    if parts.scheme not in {"http", "https"} or not host or port == 0:
        return UrlFault.SCHEME
    if "@" in parts.netloc:
        return UrlFault.CREDENTIALS
    if "?" in text or "#" in text:
        return UrlFault.QUERY
    if _URL.fullmatch(text) is None:
        return UrlFault.INVALID
    return UrlFault.VERSION if parts.path.lower().endswith("/v1") else None


def server_of_url(text: str) -> tuple[str, str | None, int]:
    """Scheme, host and port of a base URL: who gets what is sent there."""
    parts = urlsplit(text)
    return parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


@dataclass(frozen=True, slots=True)
class PoolEntry:
    """A pool; its code stays what it was when the pool was made."""

    code: str
    name: str
    accelerator_kind: str
    region: str

    def check(self) -> None:
        """Errors: InvalidEntry."""
        _check_code(self.code)
        _check_text("name", self.name, 1, 120)
        _check_text("accelerator_kind", self.accelerator_kind, 1, 64)
        _check_text("region", self.region, 1, 64)


@dataclass(frozen=True, slots=True)
class BackendEntry:
    """A backend but for its credential; its code and its pool stay what they were when it was made.

    base_url: without /v1. max_concurrency: calls at a time that it serves well.
    """

    pool_id: UUID
    code: str
    engine: str
    engine_version: str
    base_url: str
    max_concurrency: int
    configuration: str = ""

    def check(self) -> None:
        """Errors: InvalidEntry."""
        _check_code(self.code)
        if self.engine not in Engine.values:
            raise InvalidEntry("engine", f"must be one of {', '.join(Engine.values)}")
        _check_text("engine_version", self.engine_version, 0, 64)
        fault = fault_of_url(self.base_url)
        if fault is not None:
            raise InvalidEntry("base_url", fault.value)
        _check_number("max_concurrency", self.max_concurrency, 1, MAX_CONCURRENCY)
        _check_text("configuration", self.configuration, 0, MAX_CONFIGURATION_LENGTH, lines=True)


@dataclass(frozen=True, slots=True)
class DeploymentEntry:
    """A model on a backend, and the name that the backend knows it by; only that name can change."""

    backend_id: UUID
    model_id: UUID
    upstream_model: str

    def check(self) -> None:
        """Errors: InvalidEntry."""
        _check_text("upstream_model", self.upstream_model, 1, 200)


@dataclass(frozen=True, slots=True)
class AbilitiesEntry:
    """What a deployment can do where that is less than the model: see Deployment. None is as much."""

    context_tokens: int | None
    capabilities: tuple[str, ...] | None
    quantisation: str

    def check(self) -> None:
        """Errors: InvalidEntry."""
        if self.context_tokens is not None:
            _check_number("context_tokens", self.context_tokens, 1, MAX_CONTEXT_TOKENS)
        for capability in self.capabilities or ():
            if CAPABILITY.fullmatch(capability) is None:
                raise InvalidEntry("capabilities", "must be small letters, digits and underscores")
        if len(self.capabilities or ()) > MAX_CAPABILITIES:
            raise InvalidEntry("capabilities", f"must be at most {MAX_CAPABILITIES}")
        _check_text("quantisation", self.quantisation, 0, 64)


@dataclass(frozen=True, slots=True)
class CostEntry:
    """What a pool costs: see PoolCostVersion."""

    currency: str
    accelerators: int
    depreciation_nanos_per_accelerator_hour: int
    other_nanos_per_accelerator_hour: int
    power_watts: int
    pue_thousandths: int
    energy_nanos_per_kwh: int
    owner: str = ""
    region: str = ""

    def check(self) -> None:
        """Errors: InvalidEntry."""
        if _CURRENCY.fullmatch(self.currency) is None:
            raise InvalidEntry("currency", "must be a code of three capital letters")
        bounds = {
            "accelerators": (1, MAX_ACCELERATORS),
            "depreciation_nanos_per_accelerator_hour": (0, MAX_NANOS_PER_ACCELERATOR_HOUR),
            "other_nanos_per_accelerator_hour": (0, MAX_NANOS_PER_ACCELERATOR_HOUR),
            "power_watts": (0, MAX_POWER_WATTS),
            "pue_thousandths": (MIN_PUE_THOUSANDTHS, MAX_PUE_THOUSANDTHS),
            "energy_nanos_per_kwh": (0, MAX_NANOS_PER_KWH),
        }
        for field, (low, high) in bounds.items():
            _check_number(field, getattr(self, field), low, high)
        _check_text("owner", self.owner, 0, 120)
        _check_text("region", self.region, 0, 64)


@dataclass(frozen=True, slots=True)
class CapacityEntry:
    """What a deployment has of its pool and can carry: see CapacityVersion."""

    reserved_ppm: int
    input_weight: int
    cached_weight: int
    output_weight: int
    capacity_tokens_per_s: int

    def check(self) -> None:
        """Errors: InvalidEntry."""
        _check_number("reserved_ppm", self.reserved_ppm, 0, WHOLE_PPM)
        _check_number("input_weight", self.input_weight, 0, MAX_WEIGHT_THOUSANDTHS)
        _check_number("cached_weight", self.cached_weight, 0, MAX_WEIGHT_THOUSANDTHS)
        _check_number("output_weight", self.output_weight, 1, MAX_WEIGHT_THOUSANDTHS)
        _check_number("capacity_tokens_per_s", self.capacity_tokens_per_s, 1, MAX_CAPACITY_TOKENS_PER_S)


def check_credential(credential: str) -> None:
    """What a backend wants as its bearer token; empty for none. Errors: InvalidEntry, which omits it."""
    if len(credential) > MAX_CREDENTIAL_LENGTH or _CREDENTIAL.fullmatch(credential) is None:
        raise InvalidEntry(
            "credential", f"must be at most {MAX_CREDENTIAL_LENGTH} visible ASCII characters without spaces"
        )


def values_of(
    entry: PoolEntry | BackendEntry | DeploymentEntry | AbilitiesEntry | CostEntry | CapacityEntry,
) -> dict[str, Any]:
    """The fields of an entry, which are those of its row."""
    return {field.name: getattr(entry, field.name) for field in fields(entry)}


def _check_code(code: str) -> None:
    if len(code) > MAX_CODE_LENGTH or _CODE.fullmatch(code) is None:
        raise InvalidEntry("code", f"must be 1 to {MAX_CODE_LENGTH} letters, digits, hyphens and underscores")


def _check_text(field: str, text: str, low: int, high: int, *, lines: bool = False) -> None:
    if not low <= len(text) <= high or len(text.strip()) < low:
        raise InvalidEntry(field, f"must have {low} to {high} characters")
    if _CONTROL.search(text) or (not lines and "\n" in text):
        raise InvalidEntry(field, "must hold no control characters")


def _check_number(field: str, number: int, low: int, high: int) -> None:
    if not low <= number <= high:
        raise InvalidEntry(field, f"must be from {low} to {high}")
