"""Whether a session was opened with a second factor, as allauth recorded it."""

from typing import Any, Final

from allauth.account.authentication import get_authentication_records
from allauth.mfa.models import Authenticator
from allauth.mfa.signals import authenticator_added
from django.dispatch import receiver
from django.http import HttpRequest

from tenants.models import User

# A factor that was set up in this very session has just been proven; asking for it again at once would
# only make its owner wait for the next code.
_ADDED_HERE: Final = "second_factor_added"
_STRONG: Final = (Authenticator.Type.TOTP, Authenticator.Type.WEBAUTHN)


def has_second_factor(user: User) -> bool:
    """Recovery codes alone are none: they stand in for a factor that got lost."""
    return bool(Authenticator.objects.filter(user_id=user.pk, type__in=_STRONG).exists())


def used_second_factor(request: HttpRequest, user: User) -> bool:
    """Whether one of the factors that this person has now was used in this session."""
    known = set(Authenticator.objects.filter(user_id=user.pk).values_list("id", flat=True))
    used = {
        record.get("id")
        for record in get_authentication_records(request, user)
        if record.get("method") == "mfa"
    }
    used.add(request.session.get(_ADDED_HERE))
    return bool(known & used)


@receiver(authenticator_added)
def _note_added(request: HttpRequest, authenticator: Authenticator, **_: Any) -> None:
    if authenticator.type in _STRONG:
        request.session[_ADDED_HERE] = authenticator.pk
