"""Who calls: the management key of the Authorization header."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from allauth.mfa.models import Authenticator
from django.conf import settings
from rest_framework.authentication import BaseAuthentication
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from portal.api import problems
from portal.api.problems import Problem
from portal.kit.clock import utc_now
from portal.kit.secrets import SecretStore
from tenants import management_queries
from tenants.management_queries import ManagementCaller
from tenants.scope import role_scope

CHALLENGE: Final = 'Bearer realm="Sluice management API"'
_MAX_TOKEN: Final = 200
# Recovery codes stand in for a factor that got lost; they are none.
_STRONG: Final = (Authenticator.Type.TOTP, Authenticator.Type.WEBAUTHN)

_REFUSALS: Final = {
    management_queries.ApiKeyInstead: problems.API_KEY_INSTEAD,
    management_queries.ManagementKeyRevoked: problems.KEY_REVOKED,
    management_queries.ManagementKeyExpired: problems.KEY_EXPIRED,
    management_queries.MakerGone: problems.MAKER_GONE,
    management_queries.UnknownManagementKey: problems.UNKNOWN_KEY,
}


@dataclass(frozen=True, slots=True)
class KeyHolder:
    """What the framework calls a user: a key, and in it the person in whose name it acts."""

    caller: ManagementCaller
    is_authenticated: bool = True


class ManagementKeyAuthentication(BaseAuthentication):
    """`Authorization: Bearer slm_…`. Sessions open nothing here, so there is nothing to forge."""

    def authenticate(self, request: Request) -> tuple[KeyHolder, ManagementCaller] | None:
        """Errors: Problem 401."""
        scheme, _, token = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
        if not scheme:
            return None
        if scheme.lower() != "bearer" or len(token) > _MAX_TOKEN:
            raise _refusal(problems.UNKNOWN_KEY, "send it as 'Authorization: Bearer slm_…'")
        with role_scope("auth"):
            try:
                caller = management_queries.identify_management_key(
                    token=token.strip(), secrets=secret_store(), now=utc_now()
                )
            except management_queries.KeyRefused as error:
                raise _refusal(_REFUSALS[type(error)], str(error)) from None
            if caller.is_operator and not _has_second_factor(caller):
                raise _refusal(problems.MAKER_GONE, "the operator who made it has no second factor any more")
        return KeyHolder(caller), caller

    def authenticate_header(self, request: Request) -> str:
        return CHALLENGE


class Nobody(BasePermission):
    """For endpoints that do not say whom they serve."""

    def has_permission(self, request: Request, view: Any) -> bool:
        return False


def secret_store() -> SecretStore:
    assert settings.SECRET_STORE is not None, "the web process has a secret store"
    return settings.SECRET_STORE


def _refusal(kind: problems.Kind, detail: str) -> Problem:
    return Problem(kind, f"{detail[:1].upper()}{detail[1:]}.", headers={"WWW-Authenticate": CHALLENGE})


def _has_second_factor(caller: ManagementCaller) -> bool:
    return bool(Authenticator.objects.filter(user_id=caller.user_id, type__in=_STRONG).exists())
