"""The organizations of a benchmark: each with a key, money, and a limit of every kind that none reaches."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from uuid import UUID

from django.conf import settings
from django.core.management import call_command

from models_catalog.catalog_file import CatalogDocument, apply_catalog
from models_catalog.operations import enable_model, issue_api_key
from portal.kit.clock import utc_now
from quotas.limits.operations import set_limit
from quotas.models import LimitKind, LimitOrigin
from quotas.operations import WelcomeCredit, make_partitions, open_tenant
from tenants.models import User
from tenants.operations import audit
from tenants.scope import role_scope

MODEL = "bench/echo"
UPSTREAM_MODEL = "bench-echo-upstream"
CREDIT_NANOS = 10**15
LIMITS = {
    LimitKind.REQUESTS_RPM: 10**8,
    LimitKind.TOKENS_TPM: 10**12,
    LimitKind.CONCURRENCY: 10**6,
    LimitKind.TOKENS_MONTH: 10**15,
    LimitKind.MONEY_MONTH: 10**15,
}

_CATALOG = """\
pools: [{{code: bench, name: Benchmark, accelerator_kind: cpu, region: local}}]
backends: [{{code: bench, pool: bench, engine: {engine}, base_url: "{base_url}", max_concurrency: 10000}}]
models:
  - slug: {slug}
    display_name: Echo
    context_tokens: 131072
    max_output_tokens: 100000
    default_output_cap_tokens: 1024
    deployments: [{{backend: bench, upstream_model: {upstream_model}}}]
    prices:
      - currency: USD
        lines:
          - {{class: input, price_per_million: "0.50"}}
          - {{class: cached_input, price_per_million: "0.05"}}
          - {{class: output, price_per_million: "1.50"}}
"""


def migrate() -> None:
    call_command("migrate", database="owner", verbosity=0)
    make_partitions()


def open_customers(count: int, *, engine: str, backend_url: str, folder: Path) -> list[str]:
    """The keys of so many organizations, which may use MODEL."""
    catalog = folder / "catalog.yaml"
    catalog.write_text(
        _CATALOG.format(engine=engine, base_url=backend_url, slug=MODEL, upstream_model=UPSTREAM_MODEL)
    )
    store = settings.SECRET_STORE
    assert store is not None
    with role_scope("auth"):
        operator = User.objects.create_user(
            "operator@bench.example", secrets.token_urlsafe(), is_staff=True, is_superuser=True
        )
    with role_scope("operator"):
        apply_catalog(
            document=CatalogDocument.load(catalog, os.environ),
            secrets=store,
            dry_run=False,
            currencies=settings.CURRENCIES,
        )
        return [_open_customer(number, audit.operator(operator.id)) for number in range(count)]


def _open_customer(number: int, actor: audit.Actor) -> str:
    store = settings.SECRET_STORE
    assert store is not None
    tenant_id: UUID = open_tenant(
        name=f"Benchmark {number}",
        currency="USD",
        currencies=settings.CURRENCIES,
        owner_id=None,
        welcome_credit=WelcomeCredit(CREDIT_NANOS, "for the benchmark"),
    )
    enable_model(tenant_id=tenant_id, slug=MODEL)
    for kind, value in LIMITS.items():
        set_limit(
            tenant_id=tenant_id,
            kind=kind,
            value=value,
            origin=LimitOrigin.OPERATOR,
            actor=actor,
            now=utc_now(),
            reason="for the benchmark",
        )
    return issue_api_key(
        tenant_id=tenant_id,
        name="benchmark",
        secrets=store,
        now=utc_now(),
        labels={},
        expires_at=None,
        slugs=[MODEL],
        created_by_id=None,
    ).token
