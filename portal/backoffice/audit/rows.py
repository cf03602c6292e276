"""Events of the audit log as people read them: who, what, and what changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from django.urls import NoReverseMatch, reverse
from django.utils.translation import gettext as _

from portal.backoffice.audit.values import name_text, value_text
from portal.kit.ids import PREFIXES, InvalidPublicId, parse_public_id, public_id
from portal.pages.tags import NONE
from tenants.audit_queries import AuditRow
from tenants.models import ActorKind

_KINDS: Final = {prefix: kind for kind, prefix in PREFIXES.items()}
_PAGES: Final = {
    "organization": "tenant",
    "price": "price",
    "pool": "pool",
    "backend": "backend",
    "deployment": "deployment",
    "tier": "tier",
    "top_up": "top-up",
    "dispute": "dispute",
}
_DELETIONS: Final = frozenset({"tier.delete", "price.discard"})


@dataclass(frozen=True, slots=True)
class Change:
    """One value before and after, in words; `is_changed` is false for what only describes the event."""

    name: str
    before: str
    after: str
    is_changed: bool


@dataclass(frozen=True, slots=True)
class ShownEvent:
    """An event with its changes. target_url: where the thing is looked at; empty when there is no page."""

    event: AuditRow
    actor: str
    target_url: str
    changes: tuple[Change, ...]


def shown_events(events: Iterable[AuditRow]) -> list[ShownEvent]:
    return [ShownEvent(event, _actor(event), _target_url(event), _changes(event)) for event in events]


def _actor(event: AuditRow) -> str:
    if event.actor_kind == ActorKind.SYSTEM:
        return _("The system")
    return event.actor_email or _("Somebody")


def _changes(event: AuditRow) -> tuple[Change, ...]:
    """Every name that stands before or after, but not what stayed as it was or is nothing at all."""
    before, after = dict(event.before or {}), dict(event.after or {})
    currency = after.get("currency") or before.get("currency")
    changes = (
        Change(
            name=name_text(name),
            before=_value(name, before, currency),
            after=_value(name, after, currency),
            is_changed=name in before and name in after,
        )
        for name in {**before, **after}
        if name != "currency" and not (name in before and name in after and before[name] == after[name])
    )
    return tuple(one for one in changes if {one.before, one.after} - {"", NONE})


def _value(name: str, values: Mapping[str, Any], currency: Any) -> str:
    return value_text(name, values[name], {"currency": currency, **values}) if name in values else ""


def _target_url(event: AuditRow) -> str:
    """Of what is there no more, there is no page."""
    kind = _KINDS.get(event.target.partition("_")[0], "")
    if event.action in _DELETIONS:
        return ""
    try:
        target_id = parse_public_id(PREFIXES[kind], event.target) if kind else None
        if kind in _PAGES:
            return reverse(f"backoffice:{_PAGES[kind]}", args=[event.target])
        if kind == "request" and event.tenant_id:
            return reverse("backoffice:tenant-request", args=[event.organization_id, event.target])
        if kind == "limit" and event.tenant_id:
            return reverse("backoffice:tenant-limits", args=[event.organization_id])
        if kind == "credit_order" and target_id:
            return _order_url(target_id, event.target)
        if kind == "refund":
            return f"{reverse('backoffice:refunds')}?q={event.target}"
        if event.action == "stripe_event.replay":
            return reverse("backoffice:stripe-event", args=[event.target])
    except (InvalidPublicId, NoReverseMatch):
        return ""
    return ""


def _order_url(order_id: UUID, order: str) -> str:
    """Approvals, where their history begins with this order; one that waits is on each of its pages."""
    before = public_id(PREFIXES["credit_order"], UUID(int=min(order_id.int + 1, 2**128 - 1)))
    return f"{reverse('backoffice:approvals')}?before={before}#{order}"
