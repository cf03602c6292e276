"""Limits for tests, set as an operator sets them."""

from __future__ import annotations

from functools import cache
from uuid import UUID

from portal.kit.clock import utc_now
from quotas.limits.operations import set_limit
from quotas.models import LimitKind, LimitOrigin
from tenants.models import Role
from tenants.operations import audit
from tenants.scope import role_scope
from tests.people import make_person


@cache
def an_operator() -> audit.Actor:
    return audit.operator(make_person("operator", is_staff=True).id)


def limit_calls(
    tenant_id: UUID,
    kind: LimitKind,
    value: int,
    *,
    model_id: UUID | None = None,
    api_key_id: UUID | None = None,
    origin: LimitOrigin = LimitOrigin.OPERATOR,
) -> UUID:
    """The id of the limit, which is in force at once. Gateways that know the organization see it within
    about a second."""
    actor = an_operator()
    if origin == LimitOrigin.TENANT:
        assert actor.user_id is not None
        actor = audit.member(actor.user_id, Role.OWNER)
    with role_scope("operator"):
        return set_limit(
            tenant_id=tenant_id,
            kind=kind,
            value=value,
            origin=origin,
            actor=actor,
            now=utc_now(),
            model_id=model_id,
            api_key_id=api_key_id,
            reason="for the test",
        )
