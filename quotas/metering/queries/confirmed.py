"""How sure the counts of a call are: the word that pages, files and both APIs show. It is written nowhere."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final
from uuid import UUID

from django.db import connections

from quotas.models import Provenance
from tenants.scope import current_scope, scope_alias

MAX_ASKED: Final = 1000


class Sureness(StrEnum):
    """MEASURED: the gateway metered it. CONFIRMED: and the backend's own record says the same. ESTIMATED:
    counted by us from what was delivered. CORRECTED: set right by a later witness."""

    MEASURED = "MEASURED"
    CONFIRMED = "CONFIRMED"
    ESTIMATED = "ESTIMATED"
    CORRECTED = "CORRECTED"


# Of these a second witness says no more than what is known already.
_CONFIRMABLE: Final = frozenset({Provenance.MEASURED})


def sureness(provenance: str, *, is_confirmed: bool) -> str:
    """The word for a usage record of this provenance."""
    return Sureness.CONFIRMED if is_confirmed and provenance in _CONFIRMABLE else provenance


def confirmed_requests(*, tenant_id: UUID, request_ids: Iterable[UUID]) -> frozenset[UUID]:
    """Those of an organization's requests of which the backends' records all agree with what was metered, in
    the scope that is open. At most MAX_ASKED are asked about."""
    asked = list(request_ids)
    if not asked:
        return frozenset()
    with connections[scope_alias()].cursor() as cursor:
        if is_own_scope():
            cursor.execute("SELECT * FROM quotas_confirmed(%s::uuid[])", (asked,))
        else:
            cursor.execute("SELECT * FROM quotas_confirmed_of(%s, %s::uuid[])", (tenant_id, asked))
        return frozenset(row[0] for row in cursor.fetchall())


def is_own_scope() -> bool:
    """Whether an organization asks for itself: it sees no records, only what a function says of them."""
    scope = current_scope()
    return scope is not None and scope.tenant_id is not None
