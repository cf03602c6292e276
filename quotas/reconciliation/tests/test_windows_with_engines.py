"""Control windows over engines that run: what came past the gateway is found, and is on nobody's bill."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.conf import settings

from devstack.engines.feeds.options import FeedOptions
from devstack.engines.options import Flavour
from devstack.engines.testing import RunningEngine, sim, start_engine
from models_catalog.models import FleetState, ServingBackend, UsageFeed, UsageFeedFormat
from portal.kit.clock import utc_now
from quotas import audit
from quotas.models import ControlWindow, SuspenseItem, WindowState
from quotas.reconciliation.ingest.folders import tail_feeds
from quotas.reconciliation.run import RunReport, reconcile
from quotas.reconciliation.tests.test_two_witnesses import FLAVOURS, settle_and_sample, stage
from quotas.reconciliation.tests.traffic import (
    Script,
    directed,
    play,
    simulated_calls,
    take_sample,
    wait_settled,
)
from tenants.scope import role_scope
from tests.database import rows_of
from tests.factories import (
    ModelFixture,
    TenantFixture,
    enable,
    make_backend,
    make_model,
    make_tenant,
    unique_name,
)
from tests.gateway_process import RunningGateway

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture(autouse=True)
def tuned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(settings.TUNING, "SLUICE_WINDOW_S", 10)


@contextmanager
def start_fed(flavour: Flavour, folder: Path) -> Iterator[tuple[RunningEngine, TenantFixture, ModelFixture]]:
    """As `stage`, and the engine writes its feed into a folder that is watched."""
    with start_engine(flavour, tokens_per_s=0, feed=FeedOptions(directory=folder)) as engine:
        backend_id = make_backend(engine=flavour, base_url=engine.url)
        format = {"vllm": UsageFeedFormat.VLLM_MIDDLEWARE, "sglang": UsageFeedFormat.SGLANG_LOG}[flavour]
        with role_scope("operator"):
            feed = UsageFeed.objects.create(
                code=unique_name("feed"),
                backend_id=backend_id,
                format=format,
                folder=str(folder),
                grace_s=0,
            )
        try:
            model = make_model(
                backend_id=backend_id, upstream_model="sim-model", context_tokens=8192, max_output_tokens=4096
            )
            tenant = make_tenant(granted="50.00")
            enable(tenant, model)
            take_sample()
            yield engine, tenant, model
        finally:
            with role_scope("operator"):
                ServingBackend.objects.filter(id=backend_id).update(state=FleetState.DISABLED)
                UsageFeed.objects.filter(id=feed.id).update(is_enabled=False)


def close(backend_id: UUID) -> RunReport:
    """As two minutes later, when everything is over."""
    return reconcile(now=utc_now() + timedelta(minutes=2), backend_id=backend_id)


def windows_of(backend_id: UUID) -> list[ControlWindow]:
    with role_scope("operator"):
        return list(ControlWindow.objects.filter(backend_id=backend_id).order_by("to_at"))


def items_of(backend_id: UUID) -> list[SuspenseItem]:
    with role_scope("operator"):
        return list(SuspenseItem.objects.filter(backend_id=backend_id).order_by("event_at"))


def sums(windows: list[ControlWindow], part: str) -> tuple[int, int]:
    return tuple(
        sum(getattr(window, f"{part}_{kind}_tokens") for window in windows)
        for kind in ("prompt", "completion")
    )


def billed(tenant: TenantFixture) -> tuple[int, int]:
    """Tokens of the newest revisions of the tenant's usage."""
    newest: dict[Any, dict[str, Any]] = {}
    for row in sorted(rows_of("quotas_usagerecord", tenant_id=tenant.id), key=lambda row: row["revision"]):
        newest[row["request_id"]] = row
    return (
        sum(row["prompt_tokens"] for row in newest.values()),
        sum(row["completion_tokens"] for row in newest.values()),
    )


def broken() -> dict[str, int]:
    return {result.code: result.violations for result in audit.run() if not result.holds}


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_traffic_past_the_gateway_is_in_suspense_within_two_windows(
    flavour: Flavour, gateway: RunningGateway
) -> None:
    calls = [Script("plain", directed(sim(tokens=9, prompt=20, rate=0)))] * 6
    with stage(flavour) as (engine, tenant, model):
        play(gateway, tenant, model, calls)
        engine.bypass(prompt_tokens=31, completion_tokens=17)
        settle_and_sample(engine, tenant)
        close(model.backend_id)
        windows, (item,) = windows_of(model.backend_id), items_of(model.backend_id)
    assert len(windows) <= 2
    assert {window.state for window in windows} == {WindowState.CLOSED}
    assert sums(windows, "suspense") == (31, 17) == (item.prompt_tokens, item.completion_tokens)
    assert sums(windows, "matched") == (6 * 20, 6 * 9) == billed(tenant)
    assert sum(window.matched_attempts for window in windows) == 6
    assert broken() == {}


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_mixed_calls_leave_nothing_in_suspense(flavour: Flavour, gateway: RunningGateway) -> None:
    """Disconnects, failures and answers without usage are explained within their bounds."""
    with stage(flavour) as (engine, tenant, model):
        for seed in (2, 3):
            play(gateway, tenant, model, simulated_calls(40, seed=seed))
            take_sample()
            close(model.backend_id)
        settle_and_sample(engine, tenant)
        close(model.backend_id)
        windows = windows_of(model.backend_id)
        books = engine.totals()
    assert items_of(model.backend_id) == []
    assert sums(windows, "suspense") == (0, 0)
    assert sums(windows, "counter") == (books["prompt_tokens"], books["generated_tokens"])
    assert "CLIENT_GONE" in {cause["kind"] for window in windows for cause in window.causes}
    assert broken() == {}


def test_restarts_and_counters_that_begin_anew_accuse_nobody(gateway: RunningGateway) -> None:
    calls = [Script("plain", directed(sim(tokens=9, prompt=20, rate=0)))] * 3
    with stage("sglang") as (engine, tenant, model):
        for anew in (engine.restart, engine.reset_counters):
            play(gateway, tenant, model, calls)
            settle_and_sample(engine, tenant)
            play(gateway, tenant, model, calls[:1])
            wait_settled(tenant)
            anew()
            settle_and_sample(engine, tenant)
        play(gateway, tenant, model, calls[:2])
        settle_and_sample(engine, tenant)
        close(model.backend_id)
        windows = windows_of(model.backend_id)
    assert {window.incarnation for window in windows} == {1, 2, 3}
    assert items_of(model.backend_id) == []
    assert sums(windows, "counter") == (8 * 20, 8 * 9)
    assert broken() == {}


def test_calls_of_somebody_else_that_a_feed_names_are_not_in_suspense_twice(
    gateway: RunningGateway, tmp_path: Path
) -> None:
    with start_fed("vllm", tmp_path) as (engine, tenant, model):
        play(gateway, tenant, model, simulated_calls(20, seed=5, is_peaceful=True))
        engine.bypass(prompt_tokens=31, completion_tokens=17, count=2)
        settle_and_sample(engine, tenant)
        engine.flush_feeds()
        tail_feeds(slice_s=5, total_s=10)
        close(model.backend_id)
        windows, items = windows_of(model.backend_id), items_of(model.backend_id)
    assert {window.state for window in windows} == {WindowState.CLOSED}
    assert sums(windows, "suspense") == (0, 0)
    assert [(item.kind, item.prompt_tokens, item.completion_tokens) for item in items] == [
        ("RECORD", 31, 17)
    ] * 2
    causes = [cause for window in windows for cause in window.causes if cause["kind"] == "FOREIGN_RECORD"]
    assert sum(cause["completion"] for cause in causes) == 2 * 17
    matched = sums(windows, "matched")
    assert (matched[0] + 62, matched[1] + 34) == sums(windows, "counter")
    assert broken() == {}


def test_a_feed_that_was_not_read_keeps_windows_open(gateway: RunningGateway, tmp_path: Path) -> None:
    with start_fed("sglang", tmp_path) as (engine, tenant, model):
        play(gateway, tenant, model, simulated_calls(12, seed=6, is_peaceful=True))
        settle_and_sample(engine, tenant)
        close(model.backend_id)
        before = windows_of(model.backend_id)
        engine.flush_feeds()
        tail_feeds(slice_s=5, total_s=10)
        close(model.backend_id)
        after = windows_of(model.backend_id)
    assert {window.state for window in before} == {WindowState.PROVISIONAL}
    assert sum(window.matched_attempts for window in before) == 0
    assert sum(cause["prompt"] for window in before for cause in window.causes) == sums(before, "counter")[0]
    assert {window.state for window in after} == {WindowState.CLOSED}
    assert sums(after, "matched") == sums(after, "counter") == sums(before, "counter")
