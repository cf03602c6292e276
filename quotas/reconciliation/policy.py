"""What is corrected without anybody being asked, as this installation is set up."""

from __future__ import annotations

from dataclasses import dataclass

from django.conf import settings

from portal.kit.money import NANOS_PER_UNIT


@dataclass(frozen=True, slots=True)
class CorrectionPolicy:
    """limit_nanos: of one correction, either way. day_nanos: of what all of an organization's of a day (UTC)
    come to, either way. days: how far back a correction may cost an organization more."""

    limit_nanos: int
    day_nanos: int
    days: int


def correction_policy() -> CorrectionPolicy:
    tuning = settings.TUNING
    return CorrectionPolicy(
        limit_nanos=tuning["SLUICE_CORRECTION_LIMIT_UNITS"] * NANOS_PER_UNIT,
        day_nanos=tuning["SLUICE_CORRECTION_DAY_UNITS"] * NANOS_PER_UNIT,
        days=tuning["SLUICE_CORRECTION_DAYS"],
    )
