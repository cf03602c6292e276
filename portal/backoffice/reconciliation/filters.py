"""What the addresses of these lists say. What cannot be read counts as not given: an old bookmark shows more,
never an error."""

from __future__ import annotations

from typing import Final

from django.http import QueryDict

from portal.backoffice.payments.filters import choice, day_of, plain
from portal.pages.access import optional_id
from quotas.models import (
    OPEN_DISCREPANCY_STATES,
    DiscrepancyKind,
    DiscrepancyState,
    SuspenseKind,
    SuspenseState,
)
from quotas.reconciliation.review.discrepancies import DiscrepancyFilter
from quotas.reconciliation.review.suspense import SuspenseFilter

OPEN: Final = "open"
ALL: Final = "all"
DISCREPANCY_NAMES: Final = ("state", "kind", "backend", "organization", "day", "late")
SUSPENSE_NAMES: Final = ("state", "kind", "backend")


def discrepancy_filter(query: QueryDict) -> DiscrepancyFilter:
    """Without a state, what somebody has to look at."""
    state = query.get("state", OPEN) or OPEN
    one = choice(DiscrepancyState, state)
    states = (one,) if one else () if state == ALL else tuple(OPEN_DISCREPANCY_STATES)
    return DiscrepancyFilter(
        states=states,
        kind=choice(DiscrepancyKind, query.get("kind", "")),
        backend=plain(query.get("backend", "")),
        tenant_id=optional_id("organization", query.get("organization", "")),
        day=day_of(query.get("day", "")),
        is_late=query.get("late") == "1",
    )


def suspense_filter(query: QueryDict) -> SuspenseFilter:
    """Without a state, what is open."""
    state = query.get("state", SuspenseState.OPEN) or SuspenseState.OPEN
    return SuspenseFilter(
        state=None if state == ALL else choice(SuspenseState, state) or SuspenseState.OPEN,
        kind=choice(SuspenseKind, query.get("kind", "")),
        backend=plain(query.get("backend", "")),
    )


def given(query: QueryDict, names: tuple[str, ...]) -> dict[str, str]:
    """The filters as they were typed, for the form."""
    return {name: query.get(name, "")[:255] for name in names}
