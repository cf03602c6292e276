"""Who may ask for what: the secret key everything, restricted keys what their scopes allow."""

from __future__ import annotations

import base64
import hmac

from devstack.stripe_standin.errors import ApiError
from devstack.stripe_standin.routing import ROUTES, Route
from devstack.stripe_standin.settings import KNOWN_VERSIONS
from devstack.stripe_standin.world import World, token


def all_scopes() -> list[str]:
    """Every scope that an endpoint asks for; a `_write` includes its `_read`."""
    return sorted({found.scope for found in ROUTES})


def make_restricted(world: World, scopes: list[str]) -> str:
    """A new restricted key. Raises ValueError for a scope that doesn't exist."""
    known = {scope.rsplit("_", 1)[0] + end for scope in all_scopes() for end in ("_read", "_write")}
    strange = sorted(set(scopes) - known)
    if strange:
        raise ValueError(f"no such scope: {', '.join(strange)}; there are {', '.join(sorted(known))}")
    key = "rk_test_" + token(32)
    world.store.remember("restricted_keys", {**world.store.recall("restricted_keys", {}), key: scopes})
    return key


def check_key(world: World, headers: dict[str, str], found: Route | None) -> None:
    """Raises ApiError 401 for a key that isn't known, 403 for one that may not do this."""
    key = _given_key(headers.get("authorization", ""))
    if not key:
        raise ApiError(
            401,
            "You did not provide an API key. You need to provide your API key in the Authorization header, "
            "using Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY').",
        )
    if not hmac.compare_digest(key.encode(), world.secret_key.encode()):
        scopes = world.store.recall("restricted_keys", {}).get(key)
        if scopes is None:
            raise ApiError(401, f"Invalid API Key provided: {_masked(key)}")
        _check_scope(world, key, scopes, found)
    account = headers.get("stripe-account")
    if account and account != world.account_id:
        raise ApiError(
            403,
            f"The provided key '{_masked(key)}' does not have access to account '{account}' (or that account "
            "does not exist). Application access may have been revoked.",
            code="account_invalid",
        )


def check_version(headers: dict[str, str]) -> None:
    """Without the header, the account's version counts, which is the newest that we know."""
    version = headers.get("stripe-version")
    if version is not None and version not in KNOWN_VERSIONS:
        raise ApiError(
            400,
            f"Invalid Stripe API version: {version}. This stand-in speaks "
            f"{', '.join(sorted(KNOWN_VERSIONS))}.",
        )


def _given_key(header: str) -> str:
    kind, _, value = header.partition(" ")
    if kind.lower() == "basic":
        try:
            return base64.b64decode(value).decode().partition(":")[0]
        except ValueError:
            return ""
    return value.strip() if kind.lower() == "bearer" else ""


def _check_scope(world: World, key: str, scopes: list[str], found: Route | None) -> None:
    if found is None or found.scope in scopes:
        return
    if found.scope.removesuffix("_read") + "_write" in scopes:
        return
    raise ApiError(
        403,
        f"The provided key '{_masked(key)}' does not have the required permissions for this endpoint on "
        f"account '{world.account_id}'. Having the 'rak_{found.scope}' permission would allow this request "
        "to continue.",
        code="more_permissions_required",
    )


def _masked(key: str) -> str:
    return f"{key[:8]}{'*' * max(0, len(key) - 12)}{key[-4:]}"
