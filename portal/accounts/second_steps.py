"""What a second factor changes about the sessions that are there already."""

from typing import Any, Final
from uuid import UUID

from allauth.mfa.models import Authenticator
from allauth.mfa.signals import authenticator_added
from allauth.usersessions.internal.flows.sessions import end_other_sessions
from django.dispatch import receiver
from django.http import HttpRequest

from tenants.models import User

_FACTORS: Final = (Authenticator.Type.TOTP, Authenticator.Type.WEBAUTHN)


def has_factor(user_id: UUID) -> bool:
    """Whether this person has an app or a passkey; recovery codes alone protect nothing."""
    found: bool = Authenticator.objects.filter(user_id=user_id, type__in=_FACTORS).exists()
    return found


@receiver(authenticator_added, dispatch_uid="portal.accounts.end_sessions_without_factor")
def _end_sessions_without_factor(
    request: HttpRequest, user: User, authenticator: Authenticator, **_: Any
) -> None:
    """With the first factor, sessions that were opened by the password alone end: together with the password
    they could take the factor away again, and set up another."""
    others = Authenticator.objects.filter(user_id=user.pk, type__in=_FACTORS).exclude(pk=authenticator.pk)
    if authenticator.type in _FACTORS and not others.exists():
        end_other_sessions(request, user)
