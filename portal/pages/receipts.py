"""The receipt of one call, as templates/components/receipt.html shows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.utils.translation import gettext as _

from portal.pages import words
from portal.pages.call_rows import key_name, provenance_words
from quotas.metering.queries import Receipt


def receipt_context(found: Receipt) -> dict[str, Any]:
    """What explains one charge: tokens × price, the tries, and who witnessed it."""
    latest = found.revisions[-1] if found.revisions else None
    provenance, provenance_text = provenance_words(found.provenance)
    longest_ms = max((bar.offset_ms + (bar.duration_ms or 0) for bar in found.attempts), default=0) or 1
    return {
        "receipt": found,
        "latest": latest,
        "key_name": key_name(found.key),
        "lines": [(words.TOKEN_CLASSES[line.token_class], line) for line in latest.lines] if latest else [],
        "hold_state": _word(words.HOLD_STATES, found.hold.state),
        "cancel_policy": _word(words.CANCEL_POLICIES, found.cancel_policy),
        "provenance": provenance,
        "provenance_text": provenance_text,
        "corrected_because": correction_text(latest.cause) if latest else "",
        "basis": _word(words.BASES, latest.basis) if latest else "",
        "witnesses": [_word(words.SOURCES, source) for source in found.witnesses],
        "attempts": [
            {
                "bar": bar,
                "outcome": _word(words.OUTCOMES, bar.outcome) if bar.outcome else _("Running"),
                "x": _share(bar.offset_ms, longest_ms),
                "width": _share(max(bar.duration_ms or 0, longest_ms / 200), longest_ms),
                "wait": _share(bar.ttft_ms or 0, longest_ms),
            }
            for bar in found.attempts
        ],
        "revisions": [
            (revision, _word(words.SOURCES, revision.source), correction_text(revision.cause))
            for revision in found.revisions
        ],
        "transfers": [
            (
                revision.transfer,
                [(_word(words.ACCOUNTS, account), amount) for account, amount in revision.transfer.amounts],
            )
            for revision in found.revisions
            if revision.transfer
        ],
    }


def correction_text(cause: str | None) -> str:
    """Why a revision was made, in a sentence that goes on; empty for what is no correction."""
    return _word(words.CORRECTION_CAUSES, cause) if cause else ""


def _share(part: float, whole: int) -> str:
    """In hundredths, with a point whatever the language: a coordinate, not a number to read."""
    return f"{100 * part / whole:.2f}"


def _word(names: Mapping[Any, Any], value: str) -> str:
    """The word for a stored value; the value itself when there is none yet."""
    return str(names.get(value, value))
