"""Whose key it is."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from portal.api.endpoints import Answer, TenantCall, TenantEndpoint
from portal.api.fields import Moment, PublicId
from portal.api.operations import operation
from tenants.models import ManagementScope, Role, TenantState
from tenants.permissions import Permission


class KeyAnswer(serializers.Serializer[Any]):
    """The management key of this call."""

    id = PublicId(kind="management_key", source="key_id")
    role = serializers.ChoiceField(choices=Role.choices)
    scopes = serializers.ListField(child=serializers.ChoiceField(choices=ManagementScope.choices))
    expires_at = Moment(allow_null=True)


class OrganizationAnswer(serializers.Serializer[Any]):
    """The organization, and the key with which it was asked for."""

    id = PublicId(kind="organization")
    name = serializers.CharField()
    state = serializers.ChoiceField(choices=TenantState.choices)
    state_reason = serializers.CharField(allow_blank=True)
    currency = serializers.CharField(help_text="Of the wallet; it never changes.")
    created_at = Moment()
    management_key = KeyAnswer()


class OrganizationEndpoint(TenantEndpoint):
    @operation(
        id="getOrganization",
        summary="Read the organization",
        tag="organization",
        action="organization.read",
        permission=Permission.SEE_OVERVIEW,
        answer=OrganizationAnswer,
    )
    def get(self, call: TenantCall) -> Answer:
        """The organization whose key it is, and what the key is for. Every live key may ask."""
        facts = call.organization
        scopes = sorted(scope.value for scope in call.caller.scopes)
        key = {
            "key_id": call.caller.key_id,
            "role": call.caller.role,
            "scopes": scopes,
            "expires_at": call.caller.expires_at,
        }
        return Answer(
            OrganizationAnswer(
                {
                    "id": facts.id,
                    "name": facts.name,
                    "state": facts.state,
                    "state_reason": facts.state_reason,
                    "currency": facts.currency,
                    "created_at": facts.created_at,
                    "management_key": key,
                }
            ).data
        )
