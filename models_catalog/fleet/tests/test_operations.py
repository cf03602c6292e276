"""Operators change the fleet: checked, told in the audit log, and without a secret in it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.conf import settings
from django.db import connections

from models_catalog.fleet import operations, queries
from models_catalog.fleet.entries import UrlFault, fault_of_url
from models_catalog.fleet.operations import (
    BackendEntry,
    CapacityEntry,
    CostEntry,
    DeploymentEntry,
    InvalidEntry,
    PoolEntry,
)
from models_catalog.fleet.queries import Phase
from models_catalog.fleet.tests.rows import make_backend, make_deployment, make_model, make_pool
from models_catalog.models import (
    CatalogRevision,
    Deployment,
    FleetState,
    PoolCostVersion,
    ServingBackend,
    ServingPool,
)
from models_catalog.tests.catalog_files import fresh_name
from models_catalog.tests.price_drafts import undone
from portal.kit.clock import utc_now
from portal.kit.ids import PREFIXES, public_id, uuid7
from portal.kit.secrets import SecretStore
from tenants.models import AuditEvent
from tenants.operations import audit

pytestmark = pytest.mark.usefixtures("database")

BY: dict[str, Any] = {"actor": audit.SYSTEM, "reason": "for the test"}
COST = CostEntry("USD", 8, 2 * 10**9, 0, 10_000, 1250, 10**8, owner="us", region="eu-1")
CAPACITY = CapacityEntry(600_000, 250, 25, 1000, 2000)
HOUR = timedelta(hours=1)
THIS_HOUR = utc_now().replace(minute=0, second=0, microsecond=0)


def secrets() -> SecretStore:
    assert settings.SECRET_STORE is not None
    return settings.SECRET_STORE


def events(kind: str, row_id: UUID) -> list[AuditEvent]:
    """What the audit log says of a thing, oldest first."""
    target = public_id(PREFIXES[kind], row_id)
    return list(AuditEvent.objects.filter(target=target).order_by("at", "id"))


def pool_entry() -> PoolEntry:
    return PoolEntry(f"p-{fresh_name()}", "Hall one", "NVIDIA H100", "eu-1")


def backend_entry(pool: ServingPool) -> BackendEntry:
    return BackendEntry(pool.id, f"b-{fresh_name()}", "vllm", "0.11.0", "http://10.0.0.1:8000", 32, "--tp 8")


def hours(first: int) -> datetime:
    """A whole hour, counted from the one in which the tests began."""
    return THIS_HOUR + first * HOUR


class TestPools:
    def test_made_and_changed_with_a_trail(self) -> None:
        with undone():
            entry = pool_entry()
            pool_id = operations.save_pool(entry=entry, **BY)
            operations.save_pool(entry=replace(entry, name="Hall two"), pool_id=pool_id, **BY)
            operations.save_pool(entry=replace(entry, name="Hall two"), pool_id=pool_id, **BY)
            assert ServingPool.objects.get(id=pool_id).name == "Hall two"
            made, changed = events("pool", pool_id)
            assert (made.action, made.before) == ("pool.create", None)
            assert made.after == {
                "code": entry.code,
                "name": "Hall one",
                "accelerator_kind": "NVIDIA H100",
                "region": "eu-1",
            }
            assert (changed.action, changed.before, changed.after, changed.reason) == (
                "pool.change",
                {"name": "Hall one"},
                {"name": "Hall two"},
                "for the test",
            )

    def test_codes_are_unique_and_stay(self) -> None:
        with undone():
            entry = pool_entry()
            pool_id = operations.save_pool(entry=entry, **BY)
            with pytest.raises(operations.CodeTaken):
                operations.save_pool(entry=entry, **BY)
            with pytest.raises(operations.CodeFixed):
                operations.save_pool(entry=replace(entry, code="other"), pool_id=pool_id, **BY)
            with pytest.raises(operations.PoolNotFound):
                operations.save_pool(entry=entry, pool_id=uuid7(), **BY)

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("code", "has space"),
            ("code", "x" * 65),
            ("name", " "),
            ("name", "x" * 121),
            ("accelerator_kind", ""),
            ("region", "a\nb"),
            ("region", "a\0b"),
        ],
    )
    def test_what_cannot_be_stored(self, field: str, value: str) -> None:
        with undone(), pytest.raises(InvalidEntry) as caught:
            operations.save_pool(entry=replace(pool_entry(), **{field: value}), **BY)
        assert caught.value.field == field

    def test_without_a_reason_nothing_happens(self) -> None:
        with undone():
            entry = pool_entry()
            with pytest.raises(audit.ReasonMissing):
                operations.save_pool(entry=entry, actor=audit.SYSTEM, reason=" ")
            assert not ServingPool.objects.filter(code=entry.code).exists()


class TestBackends:
    def test_made_and_changed_with_a_trail(self) -> None:
        with undone():
            entry = backend_entry(make_pool())
            backend_id = operations.save_backend(entry=entry, secrets=secrets(), **BY)
            after = replace(entry, engine_version="0.12.0", configuration="--tp 4\n--fp8")
            operations.save_backend(entry=after, secrets=secrets(), backend_id=backend_id, **BY)
            row = queries.find_backend(backend_id=backend_id, now=utc_now())
            assert row is not None
            assert (row.engine_version, row.configuration) == ("0.12.0", "--tp 4\n--fp8")
            assert (row.has_credential, row.state) == (False, FleetState.ACTIVE)
            assert [event.action for event in events("backend", backend_id)] == [
                "backend.create",
                "backend.change",
            ]

    def test_a_credential_is_kept_replaced_and_removed_and_never_told(self) -> None:
        with undone():
            entry = backend_entry(make_pool())
            backend_id = operations.save_backend(
                entry=entry, secrets=secrets(), credential="first-secret", **BY
            )
            stored = ServingBackend.objects.get(id=backend_id).credential_encrypted
            assert secrets().decrypt(stored) == "first-secret"
            for credential in (None, "first-secret"):
                operations.save_backend(
                    entry=entry, secrets=secrets(), backend_id=backend_id, credential=credential, **BY
                )
            assert ServingBackend.objects.get(id=backend_id).credential_encrypted == stored
            change: dict[str, Any] = {"backend_id": backend_id, "secrets": secrets(), **BY}
            operations.set_credential(credential="second-secret", **change)
            stored = ServingBackend.objects.get(id=backend_id).credential_encrypted
            assert secrets().decrypt(stored) == "second-secret"
            operations.set_credential(credential="", **change)
            assert ServingBackend.objects.get(id=backend_id).credential_encrypted == ""
            told = events("backend", backend_id)
            assert [(event.before or {}).get("credential") for event in told] == [None, "set", "set"]
            assert [(event.after or {})["credential"] for event in told] == ["set", "changed", "removed"]
            assert "secret" not in repr([(event.before, event.after) for event in told])

    def test_a_credential_that_cannot_travel_in_a_header(self) -> None:
        with undone(), pytest.raises(InvalidEntry) as caught:
            operations.save_backend(
                entry=backend_entry(make_pool()), secrets=secrets(), credential="with space", **BY
            )
        assert (caught.value.field, "with space" in str(caught.value)) == ("credential", False)

    def test_codes_are_unique_and_a_backend_stays_in_its_pool(self) -> None:
        with undone():
            entry = backend_entry(make_pool())
            backend_id = operations.save_backend(entry=entry, secrets=secrets(), **BY)
            with pytest.raises(operations.CodeTaken):
                operations.save_backend(entry=entry, secrets=secrets(), **BY)
            for other in (replace(entry, pool_id=make_pool().id), replace(entry, code="other")):
                with pytest.raises(operations.CodeFixed):
                    operations.save_backend(entry=other, secrets=secrets(), backend_id=backend_id, **BY)
            with pytest.raises(operations.PoolNotFound):
                operations.save_backend(entry=replace(entry, pool_id=uuid7()), secrets=secrets(), **BY)
            with pytest.raises(operations.BackendNotFound):
                operations.save_backend(entry=entry, secrets=secrets(), backend_id=uuid7(), **BY)

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("engine", "tgi"),
            ("engine_version", "x" * 65),
            ("base_url", "http://10.0.0.1/v1"),
            ("max_concurrency", 0),
            ("configuration", "x" * 8001),
        ],
    )
    def test_what_cannot_be_stored(self, field: str, value: Any) -> None:
        with undone():
            entry = replace(backend_entry(make_pool()), **{field: value})
            with pytest.raises(InvalidEntry) as caught:
                operations.save_backend(entry=entry, secrets=secrets(), **BY)
        assert caught.value.field == field

    def test_states_change_once_and_gateways_hear_of_it(self) -> None:
        with undone():
            backend = make_backend(make_pool())
            revision = CatalogRevision.objects.get().revision
            for _ in range(2):
                operations.set_backend_state(backend_id=backend.id, state=FleetState.DRAINING, **BY)
            backend.refresh_from_db()
            assert backend.state == FleetState.DRAINING
            assert CatalogRevision.objects.get().revision == revision + 1
            (event,) = events("backend", backend.id)
            assert (event.action, event.before, event.after) == (
                "backend.state",
                {"state": "ACTIVE"},
                {"state": "DRAINING"},
            )
            with pytest.raises(operations.BackendNotFound):
                operations.set_backend_state(backend_id=uuid7(), state=FleetState.ACTIVE, **BY)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("http://10.0.0.1:8000", None),
        ("https://engine.example/vllm", None),
        ("http://[::1]:8000", None),
        ("ftp://engine.example", UrlFault.SCHEME),
        ("engine.example:8000", UrlFault.SCHEME),
        ("http://", UrlFault.SCHEME),
        ("http://user:pass@engine.example", UrlFault.CREDENTIALS),
        ("http://engine.example/?a=b", UrlFault.QUERY),
        ("http://engine.example/#a", UrlFault.QUERY),
        ("http://engine.example/v1", UrlFault.VERSION),
        ("http://engine.example/V1", UrlFault.VERSION),
        ("http://engine.example/a b", UrlFault.INVALID),
        ("http://[", UrlFault.INVALID),
        ("http://engine.example/" + "a" * 500, UrlFault.TOO_LONG),
    ],
)
def test_base_urls(text: str, fault: UrlFault | None) -> None:
    assert fault_of_url(text) == fault


class TestDeployments:
    def test_made_changed_and_drained_with_a_trail(self) -> None:
        with undone():
            backend, model = make_backend(make_pool()), make_model()
            entry = DeploymentEntry(backend.id, model.id, "served-name")
            deployment_id = operations.save_deployment(entry=entry, **BY)
            operations.save_deployment(
                entry=replace(entry, upstream_model="other-name"), deployment_id=deployment_id, **BY
            )
            operations.set_deployment_state(deployment_id=deployment_id, state=FleetState.DISABLED, **BY)
            row = Deployment.objects.get(id=deployment_id)
            assert (row.upstream_model, row.state) == ("other-name", FleetState.DISABLED)
            assert [(event.action, event.after) for event in events("deployment", deployment_id)] == [
                (
                    "deployment.create",
                    {"model": model.slug, "backend": backend.code, "upstream_model": "served-name"},
                ),
                ("deployment.change", {"upstream_model": "other-name"}),
                ("deployment.state", {"state": "DISABLED"}),
            ]

    def test_once_per_model_and_backend(self) -> None:
        with undone():
            backend, model = make_backend(make_pool()), make_model()
            entry = DeploymentEntry(backend.id, model.id, "m")
            deployment_id = operations.save_deployment(entry=entry, **BY)
            with pytest.raises(operations.AlreadyDeployed):
                operations.save_deployment(entry=entry, **BY)
            with pytest.raises(operations.CodeFixed):
                operations.save_deployment(
                    entry=replace(entry, model_id=make_model().id), deployment_id=deployment_id, **BY
                )
            with pytest.raises(operations.BackendNotFound):
                operations.save_deployment(entry=replace(entry, backend_id=uuid7()), **BY)
            with pytest.raises(operations.ModelNotFound):
                operations.save_deployment(entry=replace(entry, model_id=uuid7()), **BY)
            with pytest.raises(operations.DeploymentNotFound):
                operations.set_deployment_state(deployment_id=uuid7(), state=FleetState.ACTIVE, **BY)


class TestCosts:
    def history(self, pool: ServingPool) -> list[tuple[datetime, datetime | None]]:
        """Periods that were not withdrawn, oldest first."""
        rows = queries.cost_history(pool_id=pool.id, now=utc_now())
        standing = [row for row in rows if row.phase != Phase.WITHDRAWN]
        return [(row.period.active_from, row.period.active_to) for row in reversed(standing)]

    def set(self, pool: ServingPool, active_from: datetime | None, entry: CostEntry = COST) -> UUID:
        return operations.set_pool_cost(
            pool_id=pool.id, entry=entry, active_from=active_from, now=utc_now(), **BY
        )

    def test_the_next_one_ends_the_one_before(self) -> None:
        with undone():
            pool = make_pool()
            self.set(pool, hours(-48))
            self.set(pool, hours(2))
            assert self.history(pool) == [(hours(-48), hours(2)), (hours(2), None)]
            first, second = events("pool", pool.id)
            assert (first.action, first.before) == ("pool.cost", None)
            assert first.after is not None
            assert second.before is not None
            assert (second.before["active_to"], second.before["version"]) == (None, first.after["version"])
            assert second.after is not None
            assert second.after["depreciation_nanos_per_accelerator_hour"] == 2 * 10**9

    def test_a_pool_changes_its_currency_at_a_full_hour_only(self) -> None:
        with undone():
            pool = make_pool()
            self.set(pool, hours(-48))
            other = replace(COST, currency="CNY")
            with pytest.raises(InvalidEntry, match="full hour"):
                self.set(pool, hours(2) + timedelta(minutes=30), other)
            assert self.history(pool) == [(hours(-48), None)]
            self.set(pool, hours(2), other)
            assert self.history(pool) == [(hours(-48), hours(2)), (hours(2), None)]

    def test_now_is_a_whole_second_that_has_not_passed(self) -> None:
        with undone():
            pool = make_pool()
            self.set(pool, hours(-48))
            before = utc_now()
            version = PoolCostVersion.objects.get(id=self.set(pool, None))
            assert before <= version.active_from <= utc_now() + timedelta(seconds=2)
            assert version.active_from.microsecond == 0
            assert self.history(pool)[0] == (hours(-48), version.active_from)

    def test_between_two_it_lasts_until_the_later_one(self) -> None:
        with undone():
            pool = make_pool()
            self.set(pool, hours(-48))
            self.set(pool, hours(10))
            self.set(pool, hours(5))
            assert self.history(pool) == [
                (hours(-48), hours(5)),
                (hours(5), hours(10)),
                (hours(10), None),
            ]

    def test_the_same_moment_again_takes_its_place(self) -> None:
        with undone():
            pool = make_pool()
            self.set(pool, hours(-48))
            self.set(pool, hours(5))
            self.set(pool, hours(5), replace(COST, accelerators=9))
            assert self.history(pool) == [(hours(-48), hours(5)), (hours(5), None)]
            assert PoolCostVersion.objects.get(pool=pool, active_to=None).accelerators == 9

    def test_the_past_is_open_only_where_nothing_was_in_force(self) -> None:
        with undone():
            pool = make_pool()
            self.set(pool, hours(-10))
            with pytest.raises(operations.MomentPassed):
                self.set(pool, hours(-5))
            self.set(pool, hours(-48))
            assert self.history(pool) == [(hours(-48), hours(-10)), (hours(-10), None)]

    def test_another_currency_begins_at_a_full_hour(self) -> None:
        with undone():
            pool = make_pool()
            self.set(pool, hours(-48))
            yuan = replace(COST, currency="CNY")
            with pytest.raises(operations.CurrencyWithinHour):
                self.set(pool, hours(2) + timedelta(minutes=30), yuan)
            self.set(pool, hours(2), yuan)
            assert self.history(pool) == [(hours(-48), hours(2)), (hours(2), None)]

    def test_a_pool_that_goes_away_costs_nothing_any_more(self) -> None:
        with undone():
            pool = make_pool()
            end: dict[str, Any] = {"pool_id": pool.id, "now": utc_now(), **BY}
            with pytest.raises(operations.NothingToEnd):
                operations.end_pool_cost(**end)
            self.set(pool, hours(-48))
            self.set(pool, hours(5))
            with pytest.raises(operations.MomentPassed):
                operations.end_pool_cost(ends_at=hours(-1), **end)
            operations.end_pool_cost(ends_at=hours(2), **end)
            assert self.history(pool) == [(hours(-48), hours(2))]
            assert events("pool", pool.id)[-1].action == "pool.cost_end"

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("currency", "usd"),
            ("accelerators", 0),
            ("depreciation_nanos_per_accelerator_hour", 10**12 + 1),
            ("other_nanos_per_accelerator_hour", -1),
            ("power_watts", 10**9 + 1),
            ("pue_thousandths", 999),
            ("energy_nanos_per_kwh", 10**10 + 1),
            ("owner", "x" * 121),
        ],
    )
    def test_what_cannot_be_stored(self, field: str, value: Any) -> None:
        with undone(), pytest.raises(InvalidEntry) as caught:
            self.set(make_pool(), None, replace(COST, **{field: value}))
        assert caught.value.field == field


class TestCapacities:
    def set(
        self, deployment: Deployment, active_from: datetime | None = None, entry: CapacityEntry = CAPACITY
    ) -> UUID:
        return operations.set_capacity(
            deployment_id=deployment.id, entry=entry, active_from=active_from, now=utc_now(), **BY
        )

    def test_the_next_one_ends_the_one_before(self) -> None:
        with undone():
            deployment = make_deployment(make_backend(make_pool()))
            self.set(deployment, hours(-2))
            self.set(deployment, hours(2), replace(CAPACITY, reserved_ppm=1_000_000))
            planned, current = queries.capacity_history(deployment_id=deployment.id, now=utc_now())
            assert (current.phase, planned.phase) == (Phase.CURRENT, Phase.PLANNED)
            assert current.period.active_to == planned.period.active_from == hours(2)
            assert [event.action for event in events("deployment", deployment.id)] == [
                "deployment.capacity"
            ] * 2

    def test_never_more_than_the_whole_pool(self) -> None:
        with undone():
            pool = make_pool()
            first, second = (make_deployment(make_backend(pool)) for _ in range(2))
            self.set(first, hours(-2))
            with pytest.raises(operations.PoolOversold):
                self.set(second, hours(2))
            assert queries.capacity_history(deployment_id=second.id, now=utc_now()) == []
            # The refusal leaves the transaction usable, and what frees the pool lets the other in.
            self.set(first, hours(2), replace(CAPACITY, reserved_ppm=400_000))
            self.set(second, hours(2))
            with connections["operator"].cursor() as cursor:
                cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("reserved_ppm", 1_000_001),
            ("input_weight", -1),
            ("output_weight", 0),
            ("capacity_tokens_per_s", 0),
        ],
    )
    def test_what_cannot_be_stored(self, field: str, value: int) -> None:
        with undone(), pytest.raises(InvalidEntry) as caught:
            self.set(make_deployment(make_backend(make_pool())), entry=replace(CAPACITY, **{field: value}))
        assert caught.value.field == field
