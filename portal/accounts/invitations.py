"""The invitation that a visitor came with: its token waits in the session, encrypted, for the account."""

from dataclasses import dataclass
from typing import Any, Final

from django.conf import settings
from django.http import HttpRequest

from portal.kit.clock import utc_now
from portal.kit.secrets import SecretError
from tenants import queries
from tenants.queries import InvitationOffer
from tenants.scope import role_scope

SESSION_KEY: Final = "invitation"


@dataclass(frozen=True, slots=True)
class Remembered:
    """An open invitation and the token that proves that the visitor has its mail."""

    token: str
    invitation: InvitationOffer


def find(token: str) -> InvitationOffer | None:
    """The open invitation of a token; None when it was used, withdrawn, is too old or never was."""
    with role_scope("auth"):
        offer = queries.find_invitation(token=token, now=utc_now())
    return None if offer is None or offer.is_expired else offer


def remember(request: HttpRequest, token: str) -> None:
    request.session[SESSION_KEY] = _store().encrypt(token)


def forget(request: HttpRequest) -> None:
    request.session.pop(SESSION_KEY, None)


def remembered(request: HttpRequest) -> Remembered | None:
    """The invitation that this visitor came with, if it is still open."""
    encrypted = request.session.get(SESSION_KEY)
    if not encrypted:
        return None
    try:
        token = _store().decrypt(encrypted)
    except SecretError:
        return None
    invitation = find(token)
    return Remembered(token, invitation) if invitation else None


def _store() -> Any:
    assert settings.SECRET_STORE is not None, "processes that sign people in have a secret store"
    return settings.SECRET_STORE
