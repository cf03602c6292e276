"""How control windows are cut, and how long one waits for whom."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from django.conf import settings


@dataclass(frozen=True, slots=True)
class WindowPolicy:
    """window_s: how long a window is, about. call_timeout: how long a call may take at the longest. max_wait:
    how long a feed that says nothing holds up windows and invoices. alert_ppm: an unexplained share of what
    a backend counted that is larger is one too many, in parts per million."""

    window_s: int
    call_timeout: timedelta
    max_wait: timedelta
    alert_ppm: int


def window_policy() -> WindowPolicy:
    """As the installation is set up."""
    tuning = settings.TUNING
    return WindowPolicy(
        window_s=tuning["SLUICE_WINDOW_S"],
        call_timeout=timedelta(seconds=tuning["SLUICE_CALL_TIMEOUT_S"]),
        max_wait=timedelta(seconds=tuning["SLUICE_WATERMARK_MAX_WAIT_S"]),
        alert_ppm=tuning["SLUICE_UNEXPLAINED_ALERT_PPM"],
    )
