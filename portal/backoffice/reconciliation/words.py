"""What the states of reconciliation are called on operators' pages."""

from __future__ import annotations

from typing import Final

from django.utils.translation import gettext_lazy, pgettext_lazy

from models_catalog.models import UsageFeedFormat
from quotas.models import (
    CorrectionCause,
    DiscrepancyKind,
    DiscrepancyState,
    FeedFinish,
    FeedVerdict,
    QuarantineState,
    SuspenseKind,
    SuspenseState,
    WindowState,
)
from quotas.reconciliation.windows.metered import What

DISCREPANCY_KINDS: Final = {
    DiscrepancyKind.MISMATCHED: gettext_lazy("Counts differ"),
    DiscrepancyKind.LOST_SETTLEMENT: gettext_lazy("Settlement lost"),
    DiscrepancyKind.SURPLUS: gettext_lazy("Went on after the client"),
    DiscrepancyKind.GATEWAY_ONLY: gettext_lazy("No record came"),
    DiscrepancyKind.REPEATED: gettext_lazy("Two records disagree"),
}
DISCREPANCY_TEXTS: Final = {
    DiscrepancyKind.MISMATCHED: gettext_lazy(
        "The call ended whole, and the backend's record has other counts than the gateway."
    ),
    DiscrepancyKind.LOST_SETTLEMENT: gettext_lazy(
        "The gateway's last word never came; the backend's record says what the call used."
    ),
    DiscrepancyKind.SURPLUS: gettext_lazy(
        "The backend generated on after the client had left. What was delivered is billed; the rest is ours."
    ),
    DiscrepancyKind.GATEWAY_ONLY: gettext_lazy(
        "The backend's feed says nothing of this call. The gateway's word stands, unconfirmed."
    ),
    DiscrepancyKind.REPEATED: gettext_lazy(
        "Two records of the same attempt say different things; one of them counts."
    ),
}
# The tone of a badge, and the word in it.
DISCREPANCY_STATES: Final = {
    DiscrepancyState.OPEN: ("bad", pgettext_lazy("discrepancy", "Open")),
    DiscrepancyState.WAITING: ("warn", gettext_lazy("Waits for approval")),
    DiscrepancyState.CORRECTED: ("ok", gettext_lazy("Corrected")),
    DiscrepancyState.EXPLAINED: ("quiet", gettext_lazy("Explained")),
    DiscrepancyState.ACCEPTED: ("quiet", gettext_lazy("Accepted")),
    DiscrepancyState.WAIVED: ("quiet", gettext_lazy("Waived")),
}
VERDICTS: Final = {
    FeedVerdict.MATCHED: ("ok", gettext_lazy("Matched")),
    FeedVerdict.MISMATCHED: ("bad", gettext_lazy("Differs")),
    FeedVerdict.EARLY: ("warn", gettext_lazy("Came before the settlement")),
    FeedVerdict.REPEATED: ("warn", pgettext_lazy("record", "Another record counts")),
    FeedVerdict.FOREIGN: ("warn", gettext_lazy("Of no attempt of ours")),
}
FINISHES: Final = {
    FeedFinish.STOP: gettext_lazy("Stopped by itself"),
    FeedFinish.LENGTH: gettext_lazy("Reached its cap"),
    FeedFinish.ABORT: gettext_lazy("Aborted"),
    FeedFinish.ERROR: gettext_lazy("Failed"),
    FeedFinish.UNKNOWN: gettext_lazy("Not told"),
}
WINDOW_STATES: Final = {
    WindowState.OPEN: ("quiet", pgettext_lazy("window", "Open")),
    WindowState.PROVISIONAL: ("warn", gettext_lazy("Provisional")),
    WindowState.CLOSED: ("ok", pgettext_lazy("window", "Closed")),
}
SUSPENSE_KINDS: Final = {
    SuspenseKind.RECORD: gettext_lazy("Record of no attempt of ours"),
    SuspenseKind.COUNTER: gettext_lazy("Counted, and nobody's"),
}
SUSPENSE_STATES: Final = {
    SuspenseState.OPEN: ("bad", pgettext_lazy("suspense", "Open")),
    SuspenseState.EXPLAINED: ("quiet", gettext_lazy("Explained")),
    SuspenseState.WRITTEN_OFF: ("quiet", gettext_lazy("Written off")),
}
LINE_STATES: Final = {
    QuarantineState.OPEN: ("bad", pgettext_lazy("line", "Open")),
    QuarantineState.READ: ("ok", gettext_lazy("Read after all")),
    QuarantineState.DISMISSED: ("quiet", gettext_lazy("Dismissed")),
}
FEED_FORMATS: Final = {
    UsageFeedFormat.SGLANG_LOG: gettext_lazy("SGLang request log"),
    UsageFeedFormat.SGLANG_EXPORT: gettext_lazy("SGLang metrics export"),
    UsageFeedFormat.VLLM_OTLP: gettext_lazy("vLLM spans (OTLP)"),
    UsageFeedFormat.VLLM_MIDDLEWARE: gettext_lazy("vLLM middleware"),
    UsageFeedFormat.CLOUDEVENTS: gettext_lazy("CloudEvents"),
    UsageFeedFormat.NDJSON: gettext_lazy("NDJSON"),
    UsageFeedFormat.CSV: gettext_lazy("CSV"),
}
CAUSES: Final = {
    CorrectionCause.COUNTS_DIFFER: gettext_lazy("Counts differ"),
    CorrectionCause.SETTLEMENT_LOST: gettext_lazy("Settlement lost"),
    CorrectionCause.BY_HAND: gettext_lazy("By hand"),
}
# What is matched needs no cause, and what reached no backend was counted by none.
WINDOW_CAUSES: Final = {
    What.IN_FLIGHT: gettext_lazy("In flight"),
    What.CLIENT_GONE: gettext_lazy("Client left"),
    What.CUT: gettext_lazy("Cut"),
    What.TIMEOUT: gettext_lazy("Too slow"),
    What.FAILED: gettext_lazy("Broken off"),
    What.LOST: gettext_lazy("Lost"),
    What.NO_FINAL_USAGE: gettext_lazy("No final usage"),
    What.CACHED_UNKNOWN: gettext_lazy("Cached unknown"),
    What.GATEWAY_ONLY: gettext_lazy("No record came"),
    What.MISMATCHED: gettext_lazy("Counts differ"),
    What.FOREIGN_RECORD: gettext_lazy("Of no attempt of ours"),
}
