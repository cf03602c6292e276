"""When a session was last opened with a second factor, as allauth recorded it."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, Final, cast

from allauth.account.authentication import get_authentication_records
from allauth.mfa.models import Authenticator
from allauth.mfa.signals import authenticator_added
from django.contrib.sessions.backends.base import SessionBase
from django.dispatch import receiver
from django.http import HttpRequest

from portal.kit.clock import utc_now
from tenants.models import User

# A factor that was set up in this very session has just been proven; asking for it again at once would
# only make its owner wait for the next code.
_ADDED_HERE: Final = "second_factor_added"
_STRONG: Final = (Authenticator.Type.TOTP, Authenticator.Type.WEBAUTHN)


def has_second_factor(user: User) -> bool:
    """Recovery codes alone are none: they stand in for a factor that got lost."""
    return bool(Authenticator.objects.filter(user_id=user.pk, type__in=_STRONG).exists())


def last_proven(session: SessionBase, user: User) -> datetime | None:
    """When one of the factors that this person has now was last used in this session."""
    request = cast(HttpRequest, SimpleNamespace(session=session))
    used = [
        (record.get("id"), record.get("at", 0))
        for record in get_authentication_records(request, user)
        if record.get("method") == "mfa"
    ]
    added = session.get(_ADDED_HERE)
    if isinstance(added, dict):
        used.append((added.get("id"), added.get("at", 0)))
    if not used:
        return None
    known = set(Authenticator.objects.filter(user_id=user.pk).values_list("id", flat=True))
    moments = [at for factor, at in used if factor in known]
    return datetime.fromtimestamp(max(moments), UTC) if moments else None


@receiver(authenticator_added)
def _note_added(request: HttpRequest, authenticator: Authenticator, **_: Any) -> None:
    if authenticator.type in _STRONG:
        request.session[_ADDED_HERE] = {"id": authenticator.pk, "at": utc_now().timestamp()}
