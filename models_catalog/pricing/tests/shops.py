"""Drafts, operators and organizations for tests of pricing. Everything commits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from models_catalog.models import PriceVersion
from models_catalog.pricing import drafts, publish
from models_catalog.pricing.checks import WindowEntry
from models_catalog.pricing.content import PriceLineContent
from models_catalog.pricing.weeks import parse_span
from portal.kit.clock import utc_now
from tenants.operations import audit
from tenants.operations.audit import Actor
from tenants.scope import role_scope
from tests.people import make_person

UNIT = 10**9
NO_NOTICE = timedelta(0)


def some_operator() -> Actor:
    return audit.operator(make_person("operator", is_staff=True).id)


def line(token_class: str, price_nanos: int, **fields: Any) -> PriceLineContent:
    """A line of the standard tier, for any length, at all times unless `fields` say otherwise."""
    values: dict[str, Any] = {
        "service_tier": "standard",
        "window": None,
        "input_from_tokens": 0,
        "input_to_tokens": None,
    }
    return PriceLineContent(token_class=token_class, price_nanos_per_million=price_nanos, **(values | fields))


def window(name: str, *texts: str) -> WindowEntry:
    return WindowEntry(name, tuple(span for text in texts for span in parse_span(text)))


def make_draft(
    model_id: UUID,
    lines: Iterable[PriceLineContent] = (),
    *,
    actor: Actor | None = None,
    windows: Sequence[WindowEntry] = (),
    time_zone: str = "UTC",
    currency: str = "USD",
    tenant_id: UUID | None = None,
    copy_of: UUID | None = None,
) -> UUID:
    """A draft with these lines; without lines, as it is created."""
    actor = actor or some_operator()
    with role_scope("operator"):
        version_id = drafts.create_draft(
            model_id=model_id,
            currency=currency,
            tenant_id=tenant_id,
            copy_of=copy_of,
            actor=actor,
            now=utc_now(),
        )
        if lines := tuple(lines):
            drafts.update_draft(
                version_id=version_id,
                time_zone=time_zone,
                lines=lines,
                windows=windows,
                actor=actor,
                now=utc_now(),
            )
    return version_id


def publish_from(version_id: UUID, active_from: datetime, **fields: Any) -> publish.Publication:
    values: dict[str, Any] = {
        "notice": NO_NOTICE,
        "reason": "for the test",
        "now": utc_now(),
    }
    values |= fields
    values.setdefault("actor", some_operator())
    with role_scope("operator"):
        return publish.publish_draft(version_id=version_id, active_from=active_from, **values)


def version(version_id: UUID) -> PriceVersion:
    with role_scope("operator"):
        return PriceVersion.objects.get(id=version_id)
