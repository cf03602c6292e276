"""What the states of bank transfers are called on operators' pages: a badge's tone, and the word in it."""

from __future__ import annotations

from typing import Final

from django.utils.translation import gettext_lazy, pgettext_lazy

from quotas.models import ProfileState, ReceiptState

RECEIPT_STATES: Final = {
    ReceiptState.WAITING: ("warn", gettext_lazy("Waits for a second operator")),
    ReceiptState.APPROVED: ("ok", pgettext_lazy("receipt", "Credited")),
    ReceiptState.REFUSED: ("bad", pgettext_lazy("receipt", "Refused")),
    ReceiptState.WITHDRAWN: ("quiet", pgettext_lazy("receipt", "Withdrawn")),
}
PROFILE_STATES: Final = {
    ProfileState.UNVERIFIED: ("warn", pgettext_lazy("profile", "Not verified")),
    ProfileState.VERIFIED: ("ok", pgettext_lazy("profile", "Verified")),
    ProfileState.REFUSED: ("bad", pgettext_lazy("profile", "Refused")),
}
