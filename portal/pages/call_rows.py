"""Calls as rows of a table: what a state is called, and how it is marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.utils.translation import gettext as _

from portal.pages import words
from quotas.metering.queries import KeyLabel, RequestRow, Sureness
from quotas.models import AttemptOutcome, HoldState


@dataclass(frozen=True, slots=True)
class CallRow:
    """A call, its state in words, and the badge (ok, warn, bad, quiet) that it gets. provenance: how sure its
    counts are, in a word and in a sentence."""

    call: RequestRow
    key_name: str
    state: str
    badge: str
    provenance: str
    provenance_text: str

    @property
    def stands_out(self) -> bool:
        return self.call.provenance in (Sureness.ESTIMATED, Sureness.CORRECTED)


def call_rows(calls: Sequence[RequestRow]) -> list[CallRow]:
    return [
        CallRow(call, key_name(call.key), *_state(call), *provenance_words(call.provenance)) for call in calls
    ]


def key_name(key: KeyLabel) -> str:
    return _("Playground") if key.is_playground else key.name


def _state(call: RequestRow) -> tuple[str, str]:
    if call.hold_state == HoldState.PENDING:
        return str(words.HOLD_STATES[HoldState.PENDING]), "warn"
    if call.outcome is None:
        return str(words.HOLD_STATES[HoldState(call.hold_state)]), "quiet"
    outcome = AttemptOutcome(call.outcome)
    good, neutral = outcome in words.GOOD_OUTCOMES, outcome in words.NEUTRAL_OUTCOMES
    return str(words.OUTCOMES[outcome]), "ok" if good else "quiet" if neutral else "bad"


def provenance_words(provenance: str | None) -> tuple[str, str]:
    """How sure counts are, in a word and in a sentence; empty while there are none."""
    if not provenance:
        return "", ""
    word = Sureness(provenance)
    return str(words.SURENESSES[word]), str(words.SURENESS_TEXTS[word])
