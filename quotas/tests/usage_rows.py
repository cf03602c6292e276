"""Usage to read: settled calls, and rollups of chosen hours that leave nothing behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction

from quotas.models import UsageRollup
from quotas.tests.doors import Connection, admitted, settle_one
from tenants.scope import role_scope
from tests.factories import ModelFixture, TenantFixture, admission_row, settlement_row


def settled(
    dataplane: Connection,
    tenant: TenantFixture,
    model: ModelFixture,
    *,
    call: dict[str, Any] | None = None,
    **facts: Any,
) -> UUID:
    """A settled call of 10 prompt and 5 completion tokens; its id. call: fields of the admission."""
    row = admitted(dataplane, admission_row(tenant, model, **(call or {})))
    settle_one(dataplane, settlement_row(row, **({"prompt_tokens": 10, "completion_tokens": 5} | facts)))
    return row.request_id


@contextmanager
def undone() -> Iterator[None]:
    """The data plane's scope in a transaction that leaves nothing behind: invariants hold elsewhere."""
    with role_scope("dataplane"), transaction.atomic(using="dataplane"):
        yield
        transaction.set_rollback(True, using="dataplane")


def roll_up(
    tenant: TenantFixture, model_id: UUID, hour: datetime, charged_nanos: int, *, key_id: UUID | None = None
) -> None:
    """One request in an hour, of 3 prompt tokens (1 cached) and 2 completion tokens (1 reasoning)."""
    UsageRollup.objects.create(
        tenant_id=tenant.id,
        hour=hour,
        model_id=model_id,
        api_key_id=key_id or tenant.key.id,
        requests=1,
        prompt_tokens=3,
        cached_tokens=1,
        completion_tokens=2,
        reasoning_tokens=1,
        cost_nanos=charged_nanos + 1,
        charged_nanos=charged_nanos,
    )
