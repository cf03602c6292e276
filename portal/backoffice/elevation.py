"""Elevated sessions: an operator's second factor opens the operators' area for a limited time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Final

from allauth.account.authentication import AUTHENTICATION_METHODS_SESSION_KEY
from django.conf import settings
from django.contrib.sessions.backends.base import SessionBase

from portal.backoffice.second_factor import last_proven
from quotas.credit.queries import count_waiting_orders
from quotas.welcome.queries import count_held_welcomes
from tenants.models import User

_ENDED: Final = "elevation_ended_at"


@dataclass
class OperatorSession:
    """What every operators' page knows of the session it is shown in; `request.operator`."""

    user: User
    elevated_until: datetime

    @cached_property
    def waiting(self) -> int:
        """How many decisions wait for an operator. Asks the database in the operator scope."""
        return count_waiting_orders() + count_held_welcomes()


def elevated_until(session: SessionBase, user: User, *, now: datetime) -> datetime | None:
    """Until when this session is elevated; None when it is not, or not any more.

    Pages and sockets ask this at every step, so an elevated session ends while it is in use.
    """
    proven_at = last_proven(session, user)
    ended_at = session.get(_ENDED)
    if proven_at is None or (ended_at and proven_at <= datetime.fromtimestamp(ended_at, UTC)):
        return None
    until = proven_at + timedelta(seconds=settings.TUNING["SLUICE_ELEVATED_S"])
    return until if now < until else None


def end_elevation(session: SessionBase, *, now: datetime) -> None:
    """What was proven before counts no more; a factor that is used again opens the area anew. Nor does it
    count for the account's own pages: there are recovery codes, and whoever adds a factor has one."""
    session[_ENDED] = now.timestamp()
    proofs = session.get(AUTHENTICATION_METHODS_SESSION_KEY, [])
    session[AUTHENTICATION_METHODS_SESSION_KEY] = [{**one, "reauthenticated": False} for one in proofs]
