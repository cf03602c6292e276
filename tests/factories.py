"""What tests begin with: organizations with keys and money, models with prices, and rows for the doors.

Everything commits for real and has names of its own, so tests do not meet.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction

from models_catalog import operations as catalog_operations
from models_catalog.models import (
    CatalogModel,
    Deployment,
    Engine,
    FleetState,
    PriceLine,
    PriceVersion,
    ServingBackend,
    ServingPool,
    UsageFeed,
)
from portal.kit.clock import utc_now
from portal.kit.ids import PREFIXES, public_id, uuid7
from portal.kit.money import parse_amount
from portal.kit.secrets import parse_api_key
from quotas import admission, settlement
from quotas import operations as quota_operations
from quotas.ledger import operations as ledger
from quotas.metering.facts import UsageFacts
from quotas.models import AttemptOutcome, Basis, Provenance
from tenants import operations as tenant_operations
from tenants.models import Tenant, TenantState
from tenants.scope import role_scope

# Nano-units per million tokens: one dollar in, two dollars out, so a token costs 1,000 and 2,000.
DEFAULT_PRICES: Mapping[str, int] = {"input": 10**9, "output": 2 * 10**9}


@dataclass(frozen=True, slots=True)
class TenantFixture:
    """An organization with one key. `digest_hex` is what the key's secret hashes to."""

    id: UUID
    public_id: str
    currency: str
    key: tenant_operations.IssuedKey
    digest_hex: str


@dataclass(frozen=True, slots=True)
class LineSpec:
    """One line of a price version: nano-units per million tokens of a class."""

    token_class: str
    price_nanos_per_million: int
    service_tier: str = "standard"
    input_from_tokens: int = 0
    input_to_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class ModelFixture:
    """A listed model with one deployment; `price_version_id` is None when it has no price."""

    id: UUID
    slug: str
    backend_id: UUID
    deployment_id: UUID
    price_version_id: UUID | None = None
    upstream_model: str = field(default="")


def unique_name(stem: str) -> str:
    """The stem with random lower-case letters behind it."""
    return f"{stem}-{uuid7().hex[-12:]}"


def issue_key(tenant_id: UUID, **options: Any) -> tuple[tenant_operations.IssuedKey, str]:
    """A further key of an organization and the digest of its secret, in hex."""
    assert settings.SECRET_STORE is not None
    with role_scope("operator"):
        key = tenant_operations.create_api_key(
            tenant_id=tenant_id, name="test", secrets=settings.SECRET_STORE, now=utc_now(), **options
        )
    secret = parse_api_key(key.token).secret
    digest = settings.SECRET_STORE.digest(settings.SECRET_STORE.current_pepper_number, secret)
    return key, digest.hex()


def make_tenant(
    currency: str = "USD", *, granted: str | None = "1.00", paid: str | None = None
) -> TenantFixture:
    """An organization with a key, welcome credit and paid credit, each as decimal text or None."""
    welcome = (
        None if granted is None else quota_operations.WelcomeCredit(parse_amount(granted), "for the test")
    )
    with role_scope("operator"):
        tenant_id = quota_operations.open_tenant(
            name=unique_name("Test"),
            currency=currency,
            currencies=("USD", "CNY"),
            owner_id=None,
            welcome_credit=welcome,
        )
        if paid is not None:
            add_paid(tenant_id, parse_amount(paid))
    key, digest_hex = issue_key(tenant_id)
    return TenantFixture(tenant_id, public_id(PREFIXES["organization"], tenant_id), currency, key, digest_hex)


def add_granted(tenant_id: UUID, amount_nanos: int) -> None:
    """Free credit, under an idempotency key of its own."""
    with role_scope("operator"):
        ledger.grant_credit(
            tenant_id=tenant_id, amount_nanos=amount_nanos, key=f"test:{uuid7()}", reason="for the test"
        )


def add_paid(tenant_id: UUID, amount_nanos: int) -> None:
    """Paid credit, under an idempotency key of its own."""
    with role_scope("operator"):
        ledger.record_receipt(
            tenant_id=tenant_id, amount_nanos=amount_nanos, key=f"test:{uuid7()}", reason="for the test"
        )


def set_state(tenant_id: UUID, state: TenantState) -> None:
    """The organization is in this state, without the mails and the trail of an operator's decision."""
    with role_scope("operator"):
        Tenant.objects.filter(id=tenant_id).update(state=state)


def make_price(
    model_id: UUID,
    *,
    currency: str = "USD",
    prices: Mapping[str, int] = DEFAULT_PRICES,
    lines: Sequence[LineSpec] = (),
    tenant_id: UUID | None = None,
    active_from: datetime | None = None,
) -> UUID:
    """A published price version: one line for each class of `prices`, and `lines`.

    It has been active for an hour, or since `active_from`, and is open-ended.
    """
    with role_scope("operator"):
        version = PriceVersion.objects.create(
            model_id=model_id,
            tenant_id=tenant_id,
            currency=currency,
            active_from=active_from or utc_now() - timedelta(hours=1),
        )
        specs = [*(LineSpec(token_class, price) for token_class, price in prices.items()), *lines]
        PriceLine.objects.bulk_create(
            PriceLine(
                version=version,
                token_class=spec.token_class,
                service_tier=spec.service_tier,
                input_from_tokens=spec.input_from_tokens,
                input_to_tokens=spec.input_to_tokens,
                price_nanos_per_million=spec.price_nanos_per_million,
            )
            for spec in specs
        )
        version.published_at = utc_now()
        version.save(update_fields=["published_at"])
    return version.id


def disable_distant_backends() -> None:
    """Those that tests of the API have made up: whoever samples backends would knock at their addresses."""
    with role_scope("operator"):
        distant = ServingBackend.objects.exclude(base_url__startswith="http://127.0.0.1:")
        distant.update(state=FleetState.DISABLED)


def silence_feeds() -> None:
    """Those that tests have made up: nothing comes from them, and invoices would wait for it."""
    with role_scope("operator"):
        UsageFeed.objects.filter(is_enabled=True).update(is_enabled=False)


def make_backend(
    *, engine: str = Engine.GENERIC, base_url: str = "http://127.0.0.1:9", max_concurrency: int = 64
) -> UUID:
    """A backend in a pool of its own."""
    code = unique_name("backend")
    with role_scope("operator"):
        pool = ServingPool.objects.create(
            code=unique_name("pool"), name="Pool", accelerator_kind="cpu", region="test"
        )
        backend = ServingBackend.objects.create(
            code=code, pool=pool, engine=engine, base_url=base_url, max_concurrency=max_concurrency
        )
    return backend.id


def make_model(
    *,
    currency: str = "USD",
    prices: Mapping[str, int] | None = DEFAULT_PRICES,
    lines: Sequence[LineSpec] = (),
    backend_id: UUID | None = None,
    upstream_model: str = "upstream",
    context_tokens: int = 32_768,
    max_output_tokens: int = 8_192,
    default_output_cap_tokens: int = 1_024,
    **fields: Any,
) -> ModelFixture:
    """A model with a published price, and a deployment on `backend_id` or on a backend of its own.

    prices: nano-units per million tokens by class; None leaves the model without a price. Other fields
    are those of CatalogModel.
    """
    # All at once, so that no running gateway sees a part of it.
    with role_scope("operator"), transaction.atomic(using="operator"):
        backend_id = backend_id or make_backend()
        model = CatalogModel.objects.create(
            slug=unique_name("test/model"),
            display_name="Test model",
            context_tokens=context_tokens,
            max_output_tokens=max_output_tokens,
            default_output_cap_tokens=default_output_cap_tokens,
            **fields,
        )
        deployment = Deployment.objects.create(
            model=model, backend_id=backend_id, upstream_model=upstream_model
        )
        version_id = (
            None if prices is None else make_price(model.id, currency=currency, prices=prices, lines=lines)
        )
    return ModelFixture(
        model.id,
        model.slug,
        backend_id,
        deployment.id,
        price_version_id=version_id,
        upstream_model=upstream_model,
    )


def enable(tenant: TenantFixture, model: ModelFixture) -> None:
    """The organization has picked the model."""
    with role_scope("operator"):
        catalog_operations.enable_model(tenant_id=tenant.id, slug=model.slug)


def admission_row(
    tenant: TenantFixture,
    model: ModelFixture,
    *,
    request_id: UUID | None = None,
    attempt_id: UUID | None = None,
    prompt_bound_tokens: int = 100,
    output_cap_tokens: int = 100,
    choices: int = 1,
    service_tier: str = "standard",
    payload: str = "payload",
    **fields: Any,
) -> admission.AdmissionRow:
    """A call that asks to be admitted. At the default price and size it holds 300,002 nano-units."""
    values: dict[str, Any] = {
        "request_id": request_id or uuid7(),
        "attempt_id": attempt_id or uuid7(),
        "tenant_id": tenant.id,
        "api_key_id": tenant.key.id,
        "digest": tenant.digest_hex,
        "model_id": model.id,
        "deployment_id": model.deployment_id,
        "service_tier": service_tier,
        "endpoint": "chat.completions",
        "is_stream": False,
        "choices": choices,
        "prompt_bound_tokens": prompt_bound_tokens,
        "output_cap_tokens": output_cap_tokens,
        "payload_sha256": hashlib.sha256(payload.encode()).hexdigest(),
    }
    return admission.AdmissionRow(**(values | fields))


def settlement_row(
    row: admission.AdmissionRow,
    *,
    prompt_tokens: int = 0,
    cached_tokens: int = 0,
    image_tokens: int = 0,
    completion_tokens: int = 0,
    reasoning_tokens: int = 0,
    basis: Basis = Basis.FINAL_USAGE,
    provenance: Provenance = Provenance.MEASURED,
    outcome: str = AttemptOutcome.COMPLETED,
) -> settlement.SettlementRow:
    """The gateway's settlement of an admitted call, whose one attempt ends with `outcome`."""
    facts = UsageFacts(
        prompt_tokens=prompt_tokens,
        cached_tokens=cached_tokens,
        image_tokens=image_tokens,
        completion_tokens=completion_tokens,
        reasoning_tokens=reasoning_tokens,
        basis=basis,
        provenance=provenance,
    )
    return settlement.settlement_row(
        request_id=row.request_id,
        tenant_id=row.tenant_id,
        facts=facts,
        attempts=[settlement.AttemptEnd(id=row.attempt_id, outcome=outcome, http_status=200)],
    )


def void_row(row: admission.AdmissionRow) -> settlement.SettlementRow:
    """The gateway's settlement of a call of which nothing was delivered."""
    return settlement_row(row, basis=Basis.NOTHING, outcome=AttemptOutcome.BACKEND_FAILED)
