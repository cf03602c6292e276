"""A small centre whose past is made through the real doors: the clock of a connection is put back.

Everything is in currencies of its own, so that reports show nothing that other tests left.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from uuid import UUID

from django.db import transaction

from models_catalog.models import (
    CapacityVersion,
    CatalogModel,
    Deployment,
    Engine,
    PoolCostVersion,
    PriceLine,
    PriceVersion,
    ServingBackend,
    ServingPool,
)
from portal.kit.clock import utc_now
from portal.kit.ids import PREFIXES, partition_bound, public_id, uuid7
from quotas import operations as quota_operations
from quotas.admission import open_attempt
from quotas.business.operations import allocate_hour
from quotas.ledger import operations as ledger
from quotas.metering.facts import UsageFacts
from quotas.models import AttemptOutcome, Basis, Provenance
from quotas.settlement import AttemptEnd, SettlementRow, settlement_row
from quotas.tests.doors import Connection, admitted, settle_one
from tenants.scope import role_scope
from tests.database import blocking, connected
from tests.factories import ModelFixture, TenantFixture, admission_row, enable, issue_key, unique_name

HOUR = timedelta(hours=1)


def new_currency() -> str:
    """A code of three letters that nobody else uses: X and two random ones."""
    return "X" + "".join(secrets.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ") for _ in range(2))


def first_hour() -> datetime:
    """The beginning of an hour that lies so far back that today's and yesterday's partitions have it."""
    return utc_now().replace(minute=0, second=0, microsecond=0) - 20 * HOUR


def make_pool(kind: str) -> UUID:
    with role_scope("operator"):
        pool = ServingPool.objects.create(
            code=unique_name(kind), name=kind, accelerator_kind=kind, region="test"
        )
    return pool.id


def make_model(
    currency: str, *, price_in: int, price_out: int, price_cached: int | None = None
) -> CatalogModel:
    """A listed model with a price, in nano-units per million tokens, that has been active for two days."""
    prices = {"input": price_in, "output": price_out}
    if price_cached is not None:
        prices["cached_input"] = price_cached
    with role_scope("operator"), transaction.atomic(using="operator"):
        model = CatalogModel.objects.create(
            slug=unique_name("test/model"),
            display_name="Test model",
            context_tokens=100_000,
            max_output_tokens=50_000,
            default_output_cap_tokens=1_000,
        )
        version = PriceVersion.objects.create(
            model=model, currency=currency, active_from=utc_now() - timedelta(days=2)
        )
        PriceLine.objects.bulk_create(
            PriceLine(
                version=version,
                token_class=token_class,
                service_tier="standard",
                input_from_tokens=0,
                price_nanos_per_million=price,
            )
            for token_class, price in prices.items()
        )
        version.published_at = utc_now()
        version.save(update_fields=["published_at"])
    return model


def deploy(model: CatalogModel, pool_id: UUID) -> Deployment:
    """The model on a backend of its own in the pool."""
    with role_scope("operator"), transaction.atomic(using="operator"):
        backend = ServingBackend.objects.create(
            code=unique_name("backend"),
            pool_id=pool_id,
            engine=Engine.GENERIC,
            base_url="http://127.0.0.1:9",
            max_concurrency=8,
        )
        return Deployment.objects.create(model=model, backend=backend, upstream_model="upstream")


def cost(
    pool_id: UUID, currency: str, active_from: datetime, active_to: datetime | None = None, **values: int
) -> PoolCostVersion:
    with role_scope("operator"):
        return PoolCostVersion.objects.create(
            pool_id=pool_id, currency=currency, active_from=active_from, active_to=active_to, **values
        )


def capacity(
    deployment: Deployment, active_from: datetime, active_to: datetime | None = None, **values: int
) -> CapacityVersion:
    with role_scope("operator"):
        return CapacityVersion.objects.create(
            deployment=deployment, active_from=active_from, active_to=active_to, **values
        )


def make_tenant(
    currency: str, models: Sequence[CatalogModel], *, granted_nanos: int = 0, paid_nanos: int = 0
) -> TenantFixture:
    """An organization with credit that may use the models."""
    credit = quota_operations.WelcomeCredit(granted_nanos, "for the test") if granted_nanos else None
    with role_scope("operator"):
        tenant_id = quota_operations.open_tenant(
            name=unique_name("Test"),
            currency=currency,
            currencies=(currency,),
            owner_id=None,
            welcome_credit=credit,
        )
        if paid_nanos:
            ledger.record_receipt(
                tenant_id=tenant_id, amount_nanos=paid_nanos, key=f"test:{uuid7()}", reason="for the test"
            )
    key, digest_hex = issue_key(tenant_id)
    public = public_id(PREFIXES["organization"], tenant_id)
    tenant = TenantFixture(tenant_id, public, currency, key, digest_hex)
    for model in models:
        enable(tenant, ModelFixture(model.id, model.slug, UUID(int=0), UUID(int=0)))
    return tenant


@dataclass(frozen=True, slots=True)
class Try:
    """One attempt: what its backend counted, and whether it came to its end."""

    deployment: Deployment
    prompt: int | None = None
    completion: int | None = None
    outcome: str = AttemptOutcome.COMPLETED
    choice: int = 0


@dataclass(frozen=True, slots=True)
class Call:
    """A call at a moment, its attempts in their order, and what its usage record says of it."""

    at: datetime
    tenant: TenantFixture
    model: CatalogModel
    tries: tuple[Try, ...]
    prompt: int
    completion: int
    cached: int = 0
    output_cap: int = 1_000
    choices: int = 1
    basis: Basis = Basis.FINAL_USAGE


@contextmanager
def clock_at(moment: datetime) -> Iterator[Connection]:
    """A connection of the data plane for which it is that moment: its clock stands still.

    Functions of the product name the clock without a schema, so one that stands before it is taken.
    """
    _make_clock()
    with connected("dataplane") as dataplane:
        dataplane.execute("SELECT set_config('test.moment', %s, false)", (moment.isoformat(),))
        dataplane.execute("SET search_path = test_clock, pg_catalog, public")
        yield dataplane


@cache
def _make_clock() -> None:
    with connected("owner") as owner:
        owner.execute("CREATE SCHEMA IF NOT EXISTS test_clock")
        owner.execute(
            "CREATE OR REPLACE FUNCTION test_clock.clock_timestamp() RETURNS timestamptz LANGUAGE sql STABLE "
            "AS $$ SELECT current_setting('test.moment')::timestamptz $$"
        )
        owner.execute("GRANT USAGE ON SCHEMA test_clock TO sluice_dataplane")


def make(call: Call) -> SettlementRow:
    """Admit the call, open its further attempts and settle it, all at its moment."""
    with clock_at(call.at) as dataplane:
        row = admit(dataplane, call)
        settle_one(dataplane, row)
    return row


def admit(dataplane: Connection, call: Call) -> SettlementRow:
    """Admit the call and open its further attempts; what would settle it."""
    first, *further = call.tries
    ids = [uuid_at(call.at) for _ in call.tries]
    fixture = ModelFixture(call.model.id, call.model.slug, first.deployment.backend_id, first.deployment.id)
    request_id = uuid_at(call.at)
    admitted(
        dataplane,
        admission_row(
            call.tenant,
            fixture,
            request_id=request_id,
            attempt_id=ids[0],
            prompt_bound_tokens=call.prompt,
            output_cap_tokens=call.output_cap,
            choices=call.choices,
        ),
    )
    for ordinal, (attempt_id, one) in enumerate(zip(ids[1:], further, strict=True), start=2):
        is_open = blocking(
            open_attempt,
            dataplane,
            attempt_id=attempt_id,
            request_id=request_id,
            deployment_id=one.deployment.id,
            choice_index=one.choice,
            ordinal=ordinal,
        )
        assert is_open
    return settlement_row(
        request_id=request_id,
        tenant_id=call.tenant.id,
        facts=UsageFacts(
            prompt_tokens=call.prompt,
            cached_tokens=call.cached,
            completion_tokens=call.completion,
            basis=call.basis,
            provenance=Provenance.MEASURED,
        ),
        attempts=[
            AttemptEnd(
                id=attempt_id,
                outcome=one.outcome,
                prompt_tokens=one.prompt,
                completion_tokens=one.completion,
            )
            for attempt_id, one in zip(ids, call.tries, strict=True)
        ],
    )


def uuid_at(moment: datetime) -> UUID:
    """An id as a gateway makes it at that moment."""
    return UUID(int=partition_bound(moment).int | uuid7().int & ((1 << 80) - 1))


def allocate(hours: Sequence[datetime], *, now: datetime | None = None) -> None:
    for hour in hours:
        assert allocate_hour(hour=hour, now=now or utc_now())
