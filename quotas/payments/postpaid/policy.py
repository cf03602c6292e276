"""When an installation draws up monthly invoices, reminds of them and suspends."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from portal.kit.money import NANOS_PER_UNIT

MAX_REMINDERS = 20
MAX_REMINDER_DAYS = 365


@dataclass(frozen=True, slots=True)
class PostpaidPolicy:
    """grace: how long after a month its invoice is drawn up at the earliest. lag: no transaction of the
    database lasts longer; what was posted within it waits for the next invoice. lowest_nanos: less than that
    is carried over. reminder_days: so many days after an invoice is due; ascending. suspend_after: it is
    due, and the organization is suspended."""

    grace: timedelta
    lag: timedelta
    lowest_nanos: int
    reminder_days: tuple[int, ...]
    suspend_after: timedelta


def postpaid_policy() -> PostpaidPolicy:
    """As the installation is configured. Errors: ImproperlyConfigured."""
    tuning = settings.TUNING
    return PostpaidPolicy(
        grace=timedelta(seconds=tuning["SLUICE_INVOICE_GRACE_S"]),
        lag=timedelta(seconds=tuning["SLUICE_INVOICE_LAG_S"]),
        lowest_nanos=tuning["SLUICE_INVOICE_LOWEST_UNITS"] * NANOS_PER_UNIT,
        reminder_days=parse_reminders(settings.INVOICE_REMINDER_DAYS),
        suspend_after=timedelta(days=tuning["SLUICE_INVOICE_SUSPEND_DAYS"]),
    )


def parse_reminders(entries: tuple[str, ...]) -> tuple[int, ...]:
    """Days, ascending. Errors: ImproperlyConfigured."""
    if not all(entry.isascii() and entry.isdecimal() and len(entry) <= 3 for entry in entries):
        raise ImproperlyConfigured("SLUICE_INVOICE_REMINDER_DAYS holds days such as 0,7,14")
    days = tuple(sorted({int(entry) for entry in entries}))
    if len(days) > MAX_REMINDERS or (days and days[-1] > MAX_REMINDER_DAYS):
        raise ImproperlyConfigured(
            f"SLUICE_INVOICE_REMINDER_DAYS holds more than {MAX_REMINDERS} days, or a day above "
            f"{MAX_REMINDER_DAYS}"
        )
    return days
