"""What people see of windows, how fast it is, and the command that prints it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from io import StringIO
from uuid import UUID

import pytest
from django.core.management import CommandError, call_command
from django.db import connections
from django.test.utils import CaptureQueriesContext

from models_catalog.models import ServingBackend
from portal.kit import metrics
from portal.kit.clock import utc_now
from portal.kit.ids import uuid7
from quotas.models import ControlWindow, SuspenseItem, WindowState
from quotas.reconciliation import measures
from quotas.reconciliation.reports import (
    backend_days,
    backend_totals,
    backend_windows,
    overrun_by_backend,
)
from quotas.reconciliation.windows.operations import reconcile_windows
from tenants.scope import role_scope
from tests.database import connected
from tests.factories import make_backend, silence_feeds


@pytest.fixture
def backend_id(database: None) -> Iterator[UUID]:
    """A backend with a day of windows; in the last 30 tokens are in suspense, in the one before -30."""
    silence_feeds()
    backend_id = make_backend(engine="vllm")
    now = utc_now()
    write_windows(backend_id, until=now, count=288, suspense=(30, -30))
    yield backend_id
    drop_windows([backend_id])


def drop_windows(backend_ids: list[UUID]) -> None:
    with connected("owner") as connection:
        connection.execute(
            "DELETE FROM quotas_controlwindow WHERE state <> 'CLOSED' AND backend_id = ANY (%s)",
            (backend_ids,),
        )


def write_windows(backend_id: UUID, *, until: datetime, count: int, suspense: tuple[int, ...] = ()) -> None:
    rows = []
    for number in range(count):
        ends_at = until - timedelta(minutes=5 * number)
        beyond = suspense[number] if number < len(suspense) else 0
        rows.append(
            ControlWindow(
                id=uuid7(),
                backend_id=backend_id,
                incarnation=1,
                from_at=ends_at - timedelta(minutes=5),
                to_at=ends_at,
                state=WindowState.PROVISIONAL,
                attempts=10,
                matched_attempts=8,
                counter_prompt_tokens=1_000 + beyond,
                counter_completion_tokens=200,
                matched_prompt_tokens=900,
                matched_completion_tokens=150,
                explained_prompt_tokens=100,
                explained_completion_tokens=50,
                suspense_prompt_tokens=beyond,
                suspense_completion_tokens=0,
                causes=[{"kind": "CLIENT_GONE", "attempts": 2, "prompt": 100, "completion": 50}],
                computed_at=until,
            )
        )
    with role_scope("dataplane"):
        ControlWindow.objects.bulk_create(rows, batch_size=5_000)


def test_days_and_windows_add_up(backend_id: UUID) -> None:
    now = utc_now()
    today = now.astimezone(UTC).date()
    with role_scope("operator"):
        days = [
            day
            for day in backend_days(since=today - timedelta(days=1), until=today + timedelta(days=1))
            if day.backend_id == backend_id
        ]
        windows = backend_windows(backend_id=backend_id, day=today)
        (totals,) = [
            one
            for one in backend_totals(since=now - timedelta(days=2), until=now)
            if one.backend_id == backend_id
        ]
    assert sum(day.windows for day in days) == 288
    assert days[0].day == today
    assert days[0].windows == len(windows)
    assert [window.suspense_prompt_tokens for window in windows[:2]] == [30, -30][: len(windows)]
    assert sum(day.counter_tokens for day in days) == 288 * 1_200 == totals.counter_tokens
    # What is above 0 in one window and below in another is unexplained in both.
    assert (totals.suspense_tokens, totals.unexplained_tokens) == (0, 60)
    assert totals.unexplained_share == pytest.approx(60 / (288 * 1_200))
    assert [(cause.kind, cause.prompt_tokens) for cause in totals.causes] == [("CLIENT_GONE", 288 * 100)]


def test_pages_read_windows_whatever_the_traffic_was(backend_id: UUID) -> None:
    """The calls behind the windows are not read, and more backends are no more questions."""
    now = utc_now()
    today = now.astimezone(UTC).date()
    reads: list[Callable[[], object]] = [
        lambda: backend_days(since=today - timedelta(days=30), until=today + timedelta(days=1)),
        lambda: backend_windows(backend_id=backend_id, day=today),
        lambda: overrun_by_backend(since=now - timedelta(days=30), until=now),
    ]
    with role_scope("operator"):
        for read in reads:
            with CaptureQueriesContext(connections["operator"]) as asked:
                read()
            assert len(asked) <= 3
            assert not [one for one in asked.captured_queries if "quotas_attempt" in one["sql"]]
            assert not [one for one in asked.captured_queries if "quotas_feedrecord" in one["sql"]]


def test_the_command_prints_totals_and_fails_when_too_much_is_unexplained(backend_id: UUID) -> None:
    with role_scope("operator"):
        code = ServingBackend.objects.get(id=backend_id).code
    printed = StringIO()
    call_command("reconcile", backend=code, hours=48, stdout=printed)
    lines = printed.getvalue().splitlines()
    assert "windows computed" in lines[0]
    (row,) = [line for line in lines if line.startswith(code)]
    assert row.split()[1:5] == ["345,600", "302,400", "43,200", "0"]
    with pytest.raises(CommandError, match="ppm unexplained"):
        # In the last hour it is 60 of 13,200.
        call_command("reconcile", backend=code, hours=1, stdout=StringIO())
    with pytest.raises(CommandError, match="no backend"):
        call_command("reconcile", backend="nobody", stdout=StringIO())
    with pytest.raises(CommandError, match="zone"):
        call_command("reconcile", until="2026-11-28T12:00", stdout=StringIO())


def test_metrics_say_what_is_unexplained(backend_id: UUID) -> None:
    with role_scope("operator"):
        code = ServingBackend.objects.get(id=backend_id).code
    measures._read()
    body = metrics.render()[0].decode()
    assert f'sluice_unexplained_tokens{{backend="{code}"}} 60.0' in body
    assert f'sluice_control_tokens{{backend="{code}",part="matched"}}' in body
    assert "sluice_corrections_waiting" in body


def test_a_run_closes_what_is_over(backend_id: UUID) -> None:
    """What stood on samples that are gone stays as it was computed."""
    for _ in range(2):
        reconcile_windows(now=utc_now())
    with role_scope("operator"):
        windows = ControlWindow.objects.filter(backend_id=backend_id)
        assert windows.filter(state=WindowState.CLOSED).count() == 287
        assert windows.filter(state=WindowState.CLOSED, suspense_prompt_tokens=-30).count() == 1
        assert [item.prompt_tokens for item in SuspenseItem.objects.filter(backend_id=backend_id)] == [-30]
