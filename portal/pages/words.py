"""What the states of calls, records and transfers are called on pages."""

import re
from typing import Final

from django.utils.translation import gettext_lazy, pgettext, pgettext_lazy

from models_catalog.models import CancelPolicy
from portal.kit.ids import BASE32_LENGTH, PREFIXES
from quotas.models import AttemptOutcome, Basis, HoldState, Provenance, TransferKind, UsageSource

TRANSFER_KINDS: Final = {
    TransferKind.USAGE: pgettext_lazy("transaction", "Usage"),
    TransferKind.TOP_UP: gettext_lazy("Top-up"),
    TransferKind.GRANT: pgettext_lazy("transaction", "Granted credit"),
    TransferKind.ADJUSTMENT: gettext_lazy("Adjustment"),
}
OUTCOMES: Final = {
    AttemptOutcome.COMPLETED: gettext_lazy("Completed"),
    AttemptOutcome.CLIENT_GONE: gettext_lazy("Stopped by caller"),
    AttemptOutcome.BACKEND_REFUSED: gettext_lazy("Refused by the backend"),
    AttemptOutcome.BACKEND_FAILED: gettext_lazy("Backend failed"),
    AttemptOutcome.BACKEND_TIMEOUT: gettext_lazy("Backend timed out"),
    AttemptOutcome.UNREACHABLE: gettext_lazy("Backend not reached"),
    AttemptOutcome.STALE: gettext_lazy("Connection was closed"),
    AttemptOutcome.CUT: gettext_lazy("Cut by the service"),
    AttemptOutcome.LOST: gettext_lazy("Lost"),
}
GOOD_OUTCOMES: Final = frozenset({AttemptOutcome.COMPLETED})
NEUTRAL_OUTCOMES: Final = frozenset({AttemptOutcome.CLIENT_GONE, AttemptOutcome.BACKEND_REFUSED})
HOLD_STATES: Final = {
    HoldState.PENDING: gettext_lazy("Running"),
    HoldState.POSTED: gettext_lazy("Charged"),
    HoldState.VOIDED: gettext_lazy("Not charged"),
    HoldState.EXPIRED: gettext_lazy("Charged to the last checkpoint"),
}
PROVENANCES: Final = {
    Provenance.MEASURED: gettext_lazy("Measured"),
    Provenance.ESTIMATED: gettext_lazy("Estimated"),
}
BASES: Final = {
    Basis.FINAL_USAGE: gettext_lazy("the backend's final count"),
    Basis.CHECKPOINT: gettext_lazy("the backend's running count of what was delivered"),
    Basis.EVENTS: gettext_lazy("counted by us from what was delivered"),
    Basis.NOTHING: gettext_lazy("nothing was delivered"),
}
SOURCES: Final = {
    UsageSource.GATEWAY: gettext_lazy("the gateway"),
    UsageSource.SWEEPER: gettext_lazy("the sweeper, after the gateway was lost"),
    UsageSource.FEED: gettext_lazy("the backend's usage feed"),
}
CANCEL_POLICIES: Final = {
    CancelPolicy.DELIVERED: gettext_lazy("what was delivered"),
    CancelPolicy.INPUT: gettext_lazy("the input only"),
    CancelPolicy.NOTHING: gettext_lazy("nothing"),
}
TOKEN_CLASSES: Final = {
    "input": gettext_lazy("Input"),
    "cached_input": gettext_lazy("Cached input"),
    "image": gettext_lazy("Images"),
    "output": gettext_lazy("Output"),
    "reasoning": gettext_lazy("Reasoning"),
    "request": gettext_lazy("Request"),
}
# Whatever the ledger keeps as the reason of a transfer is English; these are the house's own.
STATEMENT_WORDS: Final = {
    "Welcome credit": pgettext_lazy("transaction", "Welcome credit"),
    "Granted credit": pgettext_lazy("transaction", "Granted credit"),
    "Goodwill credit": pgettext_lazy("transaction", "Goodwill credit"),
    "Granted credit taken back": pgettext_lazy("transaction", "Granted credit taken back"),
}
_ORDERED: Final = re.compile(rf"(.+) \(({PREFIXES['credit_order']}_[0-9a-z]{{{BASE32_LENGTH}}})\)")
ACCOUNTS: Final = {
    "TOPPED_UP": gettext_lazy("Paid credit"),
    "GRANTED": gettext_lazy("Granted credit"),
    "RECEIVABLE": gettext_lazy("Amount due"),
}


def statement_text(reason: str) -> str:
    """The reason of a transfer in the reader's language where it is the house's own, else as it is."""
    ordered = _ORDERED.fullmatch(reason)
    what = STATEMENT_WORDS.get(ordered[1] if ordered else reason)
    if what is None:
        return reason
    return (
        pgettext("transaction", "%(what)s (%(order)s)") % {"what": what, "order": ordered[2]}
        if ordered
        else str(what)
    )
