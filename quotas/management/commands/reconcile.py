"""`manage.py reconcile`: set right what is due, close what is complete, and print who accounts for what."""

from argparse import ArgumentParser
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError
from django.utils.dateparse import parse_datetime
from django.utils.timezone import is_naive

from models_catalog.models import ServingBackend
from portal.kit.clock import utc_now
from quotas.reconciliation.reports import BackendTotals, FeedWatermark, backend_totals, watermarks
from quotas.reconciliation.run import reconcile
from quotas.reconciliation.windows.policy import window_policy
from tenants.scope import role_scope

COLUMNS = ("counter", "matched", "explained", "suspense")


class Command(BaseCommand):
    help = (
        "Judges early records anew, posts due corrections, computes and closes control windows, and prints "
        "the totals. Feeds are read by `ingest_feed` and by the workers. Exits 1 when more is unexplained on "
        "a backend than SLUICE_UNEXPLAINED_ALERT_PPM."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--until", metavar="T", help="No window that ends later: 2026-11-28T12:00Z.")
        parser.add_argument("--backend", metavar="NAME", help="Windows of this backend only.")
        parser.add_argument("--hours", type=int, default=24, help="Print the totals of so long; 24.")

    def handle(self, *args: Any, **options: Any) -> None:
        now = utc_now()
        until = min(_moment(options["until"]), now) if options["until"] else now
        backend_id = _backend_id(options["backend"]) if options["backend"] else None
        report = reconcile(now=now, until=until, backend_id=backend_id)
        self.stdout.write(
            f"{report.judged} records judged anew, {report.corrections.corrected} calls corrected, "
            f"{report.corrections.waiting} waiting, {report.windows.computed} windows computed, "
            f"{report.windows.closed} closed"
        )
        with role_scope("operator"):
            totals = backend_totals(since=until - timedelta(hours=options["hours"]), until=until)
            marks = watermarks(now=now)
        if backend_id:
            totals = [one for one in totals if one.backend_id == backend_id]
            marks = [one for one in marks if one.backend_id == backend_id]
        self._print(totals, marks)
        alert_ppm = window_policy().alert_ppm
        too_much = [one.backend_code for one in totals if one.is_too_much(alert_ppm)]
        if too_much:
            raise CommandError(f"more than {alert_ppm} ppm unexplained: {', '.join(too_much)}")

    def _print(self, totals: list[BackendTotals], marks: list[FeedWatermark]) -> None:
        head = "".join(f"{name:>14}" for name in COLUMNS)
        self.stdout.write(f"\n{'backend':<24}{head}{'unexplained':>16}{'windows':>10}{'closed':>8}")
        for one in totals:
            parts = (one.counter_tokens, one.matched_tokens, one.explained_tokens, one.suspense_tokens)
            numbers = "".join(f"{tokens:>14,}" for tokens in parts)
            self.stdout.write(
                f"{one.backend_code:<24}{numbers}{one.unexplained_share:>15.4%} {one.windows:>9}"
                f"{one.closed_windows:>8}"
            )
            for cause in one.causes:
                self.stdout.write(
                    f"  {cause.kind:<22}{cause.attempts:>10,} attempts"
                    f"{cause.prompt_tokens:>+14,} prompt{cause.completion_tokens:>+14,} completion"
                )
        self.stdout.write("")
        for mark in marks:
            word = "OVERDUE" if mark.is_overdue else "waited for" if mark.is_blocking else "current"
            self.stdout.write(
                f"feed {mark.feed_code:<24} of {mark.backend_code:<24} complete to "
                f"{mark.complete_to:%Y-%m-%dT%H:%M:%SZ} {word} {mark.error}".rstrip()
            )


def _moment(text: str) -> datetime:
    try:
        moment = parse_datetime(text)
    except ValueError:
        moment = None
    if moment is None or is_naive(moment):
        raise CommandError("--until takes a moment with its zone, such as 2026-11-28T12:00Z.")
    return moment


def _backend_id(code: str) -> UUID:
    with role_scope("operator"):
        backend = ServingBackend.objects.filter(code=code).first()
    if backend is None:
        raise CommandError(f"There is no backend {code!r}.")
    return backend.id
