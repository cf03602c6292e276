"""What was done, by whom and why."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from portal.api.endpoints import Answer, Call, OperatorEndpoint
from portal.api.fields import Moment, OneOf, Page, PublicId, Text, page_of
from portal.api.operations import operation
from portal.api.paging import identifier, moment, page_json
from portal.api.periods import bad_period
from tenants.audit_queries import AuditFilter, audit_page
from tenants.models import ActorKind, AuditOutcome, ManagementScope


class AuditParameters(Page):
    organization = PublicId(kind="organization", required=False)
    action = Text(required=False, max_length=64, help_text="The whole word, or its beginning with a dot.")
    outcome = OneOf(choices=AuditOutcome.values, required=False)
    target = Text(required=False, max_length=200)

    def get_fields(self) -> dict[str, serializers.Field]:  # type: ignore[type-arg]
        return {"from": Moment(required=False), "to": Moment(required=False), **super().get_fields()}


class AuditAnswer(serializers.Serializer[Any]):
    """One event. `key` names the management key when a program acted in somebody's name."""

    id = PublicId(kind="audit")
    at = Moment()
    actor_kind = serializers.ChoiceField(choices=ActorKind.choices)
    actor = serializers.CharField(source="actor_email", allow_blank=True)
    actor_role = serializers.CharField(allow_blank=True)
    key = PublicId(kind="management_key", source="key_id", allow_null=True)
    action = serializers.CharField()
    outcome = serializers.ChoiceField(choices=AuditOutcome.choices)
    organization = PublicId(kind="organization", source="tenant_id", allow_null=True)
    target = serializers.CharField(allow_blank=True)
    before = serializers.DictField(allow_null=True)
    after = serializers.DictField(allow_null=True)
    reason = serializers.CharField(allow_blank=True)
    is_internal = serializers.BooleanField(help_text="The organization does not see it.")


AuditPageAnswer = page_of(AuditAnswer, "AuditPageAnswer")


class AuditLog(OperatorEndpoint):
    @operation(
        id="listAuditEvents",
        summary="Read the audit log",
        tag="operators: audit",
        action="audit.list",
        scope=ManagementScope.AUDIT_READ,
        parameters=AuditParameters,
        answer=AuditPageAnswer,
    )
    def get(self, call: Call) -> Answer:
        """Events, newest first: what was changed with before, after and reason, and what was refused."""
        listing = call.listing
        filters = listing.filters
        organization, outcome = filters.get("organization"), filters.get("outcome")
        from_at, to_at = (moment(filters[name]) if name in filters else None for name in ("from", "to"))
        if from_at and to_at and from_at >= to_at:
            raise bad_period("The period ends before it begins.")
        page = audit_page(
            filters=AuditFilter(
                tenant_id=identifier(organization) if organization else None,
                action=filters.get("action", ""),
                outcome=AuditOutcome(outcome) if outcome else None,
                from_at=from_at,
                to_at=to_at,
                target=filters.get("target", ""),
            ),
            before=identifier(listing.place[0]) if listing.place else None,
            limit=listing.limit,
        )
        following = listing.cursor(page.next) if page.next else None
        return Answer(page_json([AuditAnswer(row).data for row in page.rows], following))
