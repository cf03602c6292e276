"""A bundle's way from a wish to a file, whatever happens to its worker, its message and the calls."""

from __future__ import annotations

import hashlib
import json
import zipfile
from datetime import datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import InternalError

from portal.kit.clock import utc_now
from portal.kit.ids import PREFIXES, partition_bound, public_id, uuid7
from quotas.bundles import making, operations, snapshot
from quotas.bundles.snapshot import Snapshot, open_snapshot
from quotas.bundles.tests.checker import problems_of
from quotas.bundles.tests.stage import DAY, ask, content_of, make_bundle, public_key, row_of, run, today
from quotas.models import BillBundle, BillBundlePart, BundleFailure, BundleState
from quotas.tests.doors import (
    Connection,
    admitted,
    checkpoint,
    checkpoint_row,
    end_lease,
    settle_one,
    sweep_row,
)
from quotas.tests.settable_clock import clocked_doors
from tenants.scope import role_scope, tenant_scope
from tests.database import connected, rows_of
from tests.factories import (
    ModelFixture,
    TenantFixture,
    admission_row,
    enable,
    make_model,
    make_price,
    make_tenant,
    settlement_row,
)

KEPT = timedelta(days=30)


def call(tenant: TenantFixture, model: ModelFixture, dataplane: Connection, prompt: int = 10) -> UUID:
    row = admitted(dataplane, admission_row(tenant, model))
    settle_one(dataplane, settlement_row(row, prompt_tokens=prompt))
    return row.request_id


def touch(bundle_id: UUID, ago: timedelta, **fields: Any) -> None:
    """As if it had last got further so long ago."""
    with role_scope("operator"):
        BillBundle.objects.filter(id=bundle_id).update(touched_at=utc_now() - ago, **fields)


def sweep(now: datetime | None = None) -> list[UUID]:
    with role_scope("operator"):
        return operations.sweep_bundles(now=now or utc_now(), kept=KEPT)


def id_of(moment: datetime) -> UUID:
    """An id as it would have been made then."""
    return UUID(int=partition_bound(moment).int | uuid7().int & (2**80 - 1))


def manifest_of(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        found: dict[str, Any] = json.loads(archive.read("manifest.json"))
    return found


# --- What is in it ---------------------------------------------------------------------------------


def test_it_shows_one_moment_whatever_is_written_meanwhile(
    tenant: TenantFixture,
    model: ModelFixture,
    dataplane: Connection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Calls are made and set right between any two pages of it; none of that is in it, or half in it."""
    for _ in range(7):
        call(tenant, model, dataplane)
    row = admitted(dataplane, admission_row(tenant, model))
    end_lease(row)
    settle_one(dataplane, sweep_row(row))
    monkeypatch.setattr(snapshot, "PAGE_ROWS", 3)
    read, reads = Snapshot._rows, []

    def rows_and_more(self: Snapshot, *parameters: Any) -> list[Any]:
        found = read(self, *parameters)
        reads.append(call(tenant, model, dataplane))
        if len(reads) == 2:
            settle_one(dataplane, settlement_row(row, prompt_tokens=50, completion_tokens=50))
        return found

    monkeypatch.setattr(Snapshot, "_rows", rows_and_more)
    path = make_bundle(tenant, tmp_path)
    monkeypatch.undo()
    assert len(reads) > 4
    assert problems_of(path, public_key()) == []
    told = manifest_of(path)["totals"]
    assert (told["lines"], told["calls"], told["charged_nanos"]) == (8, 7, 7 * 10_000)
    later = manifest_of(make_bundle(tenant, tmp_path))["totals"]
    assert later["charged_nanos"] == (7 + len(reads)) * 10_000 + 150_000


def test_nobody_elses_calls_are_in_it(
    tenant: TenantFixture, model: ModelFixture, dataplane: Connection, tmp_path: Path
) -> None:
    other = make_tenant()
    enable(other, model)
    mine, theirs = call(tenant, model, dataplane), call(other, model, dataplane)
    with zipfile.ZipFile(make_bundle(tenant, tmp_path)) as archive:
        text = b"".join(archive.read(name) for name in archive.namelist())
    assert public_id(PREFIXES["request"], mine).encode() in text
    assert public_id(PREFIXES["request"], theirs).encode() not in text
    with open_snapshot(tenant_id=tenant.id, from_at=today(), to_at=today() + DAY) as seen:
        assert seen.prices([make_price(model.id, tenant_id=other.id)]) == []
    with (
        pytest.raises(InternalError, match="read-only"),
        open_snapshot(tenant_id=tenant.id, from_at=today(), to_at=today() + DAY),
    ):
        BillBundlePart.objects.filter(tenant_id=tenant.id).delete()


def test_what_was_posted_about_earlier_calls_is_told_apart(database: None, tmp_path: Path) -> None:
    """A call of yesterday that is set right today: beside the total of today's bundle, in yesterday's."""
    model, tenant = make_model(prices=None), make_tenant()
    make_price(model.id, active_from=today() - 2 * DAY)
    enable(tenant, model)
    evening = today() - timedelta(hours=1)
    with clocked_doors() as doors:
        doors.set(evening)
        ours = admission_row(tenant, model, request_id=id_of(evening), attempt_id=id_of(evening))
        row = admitted(doors.connection, ours)
        checkpoint(doors.connection, checkpoint_row(row, 10, 1))
        doors.set(evening + timedelta(minutes=5))
        settle_one(doors.connection, sweep_row(row))
        doors.set(today() + timedelta(seconds=1))
        late = settle_one(doors.connection, settlement_row(row, prompt_tokens=10, completion_tokens=5))
        assert (late.revision, late.charged_nanos) == (2, 20_000)
        call(tenant, model, doors.connection)
    path = make_bundle(tenant, tmp_path, from_at=today())
    assert problems_of(path, public_key()) == []
    assert manifest_of(path)["totals"]["charged_nanos"] == 10_000
    assert manifest_of(path)["late_corrections"] == {
        "calls": 1,
        "corrections": 1,
        "cost_nanos": 8_000,
        "charged_nanos": 8_000,
    }
    path = make_bundle(tenant, tmp_path, from_at=today() - DAY, to_at=today())
    assert problems_of(path, public_key()) == []
    assert manifest_of(path)["totals"]["charged_nanos"] == 20_000
    assert manifest_of(path)["late_corrections"]["corrections"] == 0


def test_lines_that_do_not_add_up_are_not_signed(
    tenant: TenantFixture, model: ModelFixture, dataplane: Connection
) -> None:
    call(tenant, model, dataplane)
    change = "UPDATE quotas_usagerollup SET charged_nanos = charged_nanos {} 1 WHERE tenant_id = %s"
    with connected("owner") as owner:
        owner.execute(change.format("+"), (tenant.id,))
    bundle_id = ask(tenant)
    assert not run(bundle_id)
    with connected("owner") as owner:
        owner.execute(change.format("-"), (tenant.id,))
    assert (row_of(bundle_id).state, row_of(bundle_id).failure) == (BundleState.FAILED, BundleFailure.DIFFERS)
    assert content_of(tenant, bundle_id) == b""


def test_more_calls_than_a_bundle_holds(
    tenant: TenantFixture, model: ModelFixture, dataplane: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        call(tenant, model, dataplane)
    monkeypatch.setattr(making, "MAX_LINES", 2)
    bundle_id = ask(tenant)
    assert not run(bundle_id)
    assert row_of(bundle_id).failure == BundleFailure.TOO_LARGE


# --- Made once -------------------------------------------------------------------------------------


def test_whoever_comes_second_finds_it_made(tenant: TenantFixture) -> None:
    bundle_id = ask(tenant)
    assert ask(tenant) == bundle_id
    with pytest.raises(operations.BundleUnderWay):
        ask(tenant, from_at=today())
    assert run(bundle_id)
    first = content_of(tenant, bundle_id)
    assert not run(bundle_id)
    assert content_of(tenant, bundle_id) == first
    assert ask(tenant) != bundle_id


def test_ten_within_a_day(tenant: TenantFixture) -> None:
    for _ in range(operations.MAX_A_DAY):
        touch(
            ask(tenant), timedelta(0), state=BundleState.FAILED, failure="NOT_FINISHED", finished_at=utc_now()
        )
    with pytest.raises(operations.TooManyBundles):
        ask(tenant)
    with tenant_scope(tenant.id):
        assert BillBundle.objects.count() == operations.MAX_A_DAY
    assert ask(tenant, now=utc_now() + timedelta(days=1, minutes=1))


def test_it_is_not_taken_for_left_between_long_steps(tenant: TenantFixture, monkeypatch: Any) -> None:
    """Each step takes longer than anybody waits for a sign."""
    bundle_id = ask(tenant)
    steps: list[list[UUID]] = []

    def slowly(name: str, module: Any) -> None:
        real = getattr(module, name)

        def step(*given: Any, **named: Any) -> Any:
            # Whoever took so long has to say so before the next step begins.
            steps.append(sweep())
            touch(bundle_id, operations.STALLED + timedelta(seconds=5))
            return real(*given, **named)

        monkeypatch.setattr(module, name, step)

    slowly("certificate", operations)
    slowly("write_bundle", operations)
    slowly("_keep", operations)
    assert run(bundle_id)
    assert len(steps) == 3
    assert all(bundle_id not in stalled for stalled in steps)
    touched = row_of(bundle_id).touched_at
    assert utc_now() - touched < timedelta(minutes=1)


def test_who_is_slow_does_not_write_over_who_took_over(tenant: TenantFixture, monkeypatch: Any) -> None:
    """A worker is taken for dead, another one makes the bundle, and the first one comes back."""
    bundle_id = ask(tenant)
    hourly, taken = Snapshot.hourly_sums, list[bool]()

    def and_die(self: Snapshot) -> Any:
        if not taken:
            taken.append(True)
            touch(bundle_id, operations.STALLED * 2)
            with connected("operator") as operator:
                operator.execute("UPDATE quotas_billbundle SET run = run + 1 WHERE id = %s", (bundle_id,))
        return hourly(self)

    monkeypatch.setattr(Snapshot, "hourly_sums", and_die)
    assert not run(bundle_id)
    assert (row_of(bundle_id).state, row_of(bundle_id).run) == (BundleState.RUNNING, 2)
    touch(bundle_id, operations.STALLED * 2)
    assert run(bundle_id)
    assert row_of(bundle_id).run == 3
    assert content_of(tenant, bundle_id)


def test_the_sweep_finds_what_nobody_gets_on_with(tenant: TenantFixture) -> None:
    bundle_id = ask(tenant)
    assert bundle_id not in sweep()
    touch(bundle_id, operations.STALLED * 2)
    assert bundle_id in sweep()
    assert run(bundle_id)
    assert bundle_id not in sweep()


def test_it_is_given_up_after_some_runs(tenant: TenantFixture) -> None:
    bundle_id = ask(tenant)
    touch(bundle_id, operations.STALLED * 2, state=BundleState.RUNNING, run=operations.MAX_RUNS)
    assert not run(bundle_id)
    assert bundle_id not in sweep()
    assert (row_of(bundle_id).state, row_of(bundle_id).failure) == (
        BundleState.FAILED,
        BundleFailure.NOT_FINISHED,
    )
    # It is over, and another one can be asked for.
    assert run(ask(tenant))


def test_an_error_leaves_it_for_the_next_run(tenant: TenantFixture, monkeypatch: Any) -> None:
    bundle_id = ask(tenant)

    def fail(self: Snapshot) -> Any:
        raise RuntimeError("the disk is full")

    monkeypatch.setattr(Snapshot, "corrected_calls", fail)
    with pytest.raises(RuntimeError):
        run(bundle_id)
    monkeypatch.undo()
    assert row_of(bundle_id).state == BundleState.RUNNING
    touch(bundle_id, operations.STALLED * 2)
    assert run(bundle_id)


def test_files_go_after_a_while_and_the_trail_stays(tenant: TenantFixture) -> None:
    bundle_id = ask(tenant)
    assert run(bundle_id)
    sweep(utc_now() + KEPT - DAY)
    assert content_of(tenant, bundle_id)
    sweep(utc_now() + KEPT + DAY)
    assert rows_of("quotas_billbundle", id=bundle_id) == []
    assert rows_of("quotas_billbundlepart", bundle_id=bundle_id) == []
    actions = [event["action"] for event in rows_of("tenants_auditevent", tenant_id=tenant.id)]
    assert {"bundle.request", "bundle.ready"} <= set(actions)


def test_only_the_newest_are_kept(tenant: TenantFixture, monkeypatch: Any) -> None:
    monkeypatch.setattr(operations, "KEPT_BUNDLES", 2)
    made: list[UUID] = []
    for _ in range(3):
        made.append(ask(tenant))
        run(made[-1])
    assert len(rows_of("quotas_billbundle", tenant_id=tenant.id)) == 2
    assert content_of(tenant, made[-1])


# --- Walls -----------------------------------------------------------------------------------------


def test_what_is_finished_never_changes(tenant: TenantFixture) -> None:
    bundle_id = ask(tenant)
    assert run(bundle_id)
    for statement in (
        "UPDATE quotas_billbundle SET charged_nanos = 0 WHERE id = %s",
        "UPDATE quotas_billbundle SET state = 'WAITING', finished_at = NULL WHERE id = %s",
    ):
        with connected("operator") as operator, pytest.raises(psycopg.errors.RestrictViolation):
            operator.execute(statement, (bundle_id,))
    with connected("owner") as owner, pytest.raises(psycopg.errors.RestrictViolation):
        owner.execute("UPDATE quotas_billbundlepart SET content = 'x' WHERE bundle_id = %s", (bundle_id,))


def test_an_organization_asks_and_does_not_make(tenant: TenantFixture) -> None:
    with tenant_scope(tenant.id), pytest.raises(Exception, match="begins as a wish"):
        BillBundle.objects.create(
            tenant_id=tenant.id,
            currency="USD",
            from_at=today() - DAY,
            to_at=today(),
            state=BundleState.FAILED,
            failure=BundleFailure.NO_KEY,
            created_at=utc_now(),
            touched_at=utc_now(),
            finished_at=utc_now(),
        )


@pytest.mark.parametrize(
    ("from_at", "to_at"),
    [
        (timedelta(hours=1), DAY),
        (timedelta(0), timedelta(0)),
        (DAY, timedelta(0)),
        (-400 * DAY, timedelta(0)),
        (5 * DAY, 6 * DAY),
        (timedelta(0), 3 * DAY),
        (-27 * 366 * DAY, -27 * 366 * DAY + DAY),
    ],
)
def test_periods_that_are_none(tenant: TenantFixture, from_at: timedelta, to_at: timedelta) -> None:
    with pytest.raises(operations.InvalidPeriod):
        ask(tenant, from_at=today() + from_at, to_at=today() + to_at)


# --- By hand ---------------------------------------------------------------------------------------


def test_the_command_makes_one_and_waits(
    tenant: TenantFixture, model: ModelFixture, dataplane: Connection, tmp_path: Path
) -> None:
    call(tenant, model, dataplane)
    path = tmp_path / "bill.zip"
    days = ["--from", f"{today():%Y-%m-%d}", "--to", f"{today() + DAY:%Y-%m-%d}", "--output", str(path)]
    told = StringIO()
    call_command("bill_bundle", tenant.public_id, *days, stdout=told)
    assert "1 calls" in told.getvalue()
    assert hashlib.sha256(path.read_bytes()).hexdigest() in told.getvalue()
    assert problems_of(path, public_key()) == []
    with pytest.raises(CommandError, match="exists"):
        call_command("bill_bundle", tenant.public_id, *days, stdout=told)


@pytest.mark.parametrize(
    ("organization", "first", "last"),
    [
        ("org_x", "2026-01-01", "2026-01-02"),
        ("org_00000000000000000000000000", "2026-01-01", "2026-01-02"),
        ("", "yesterday", "2026-01-02"),
        ("", "2026-01-02", "2026-01-01"),
    ],
)
def test_the_command_says_what_is_wrong(
    tenant: TenantFixture, tmp_path: Path, organization: str, first: str, last: str
) -> None:
    where = str(tmp_path / "bill.zip")
    with pytest.raises(CommandError):
        call_command(
            "bill_bundle", organization or tenant.public_id, "--from", first, "--to", last, "--output", where
        )
