"""Setting and ending limits: by whom, within what, once at a time, and with its trail."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import psycopg
import pytest
from django.db import IntegrityError, connections

from models_catalog import operations as catalog_operations
from portal.kit.clock import utc_now
from portal.kit.ids import uuid7
from quotas.limits import operations
from quotas.limits.tests.stage import Bounded, make_bounded, make_tier
from quotas.limits.tiers import TierCeiling
from quotas.limits.values import LimitSource
from quotas.models import LimitKind, LimitOrigin
from quotas.models.limits import MAX_LIMIT
from tenants import operations as tenant_operations
from tenants.models import Role
from tenants.operations import audit
from tenants.scope import role_scope, tenant_scope
from tests.database import connected, rows_of
from tests.factories import enable, make_model

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture
def bounded(database: None) -> Bounded:
    return make_bounded()


def events(tenant_id: UUID) -> list[dict[str, object]]:
    return sorted(rows_of("tenants_auditevent", tenant_id=tenant_id), key=lambda row: str(row["id"]))


def test_a_new_value_ends_the_old_row_and_leaves_a_trail(bounded: Bounded) -> None:
    now = utc_now()
    first = bounded.set_own(LimitKind.MONEY_MONTH, 10**9, alert_percents=(50, 100), now=now)
    later = now + timedelta(seconds=5)
    second = bounded.set_own(LimitKind.MONEY_MONTH, 2 * 10**9, is_hard=False, alert_percents=(80,), now=later)
    rows = {row["id"]: row for row in rows_of("quotas_limit", tenant_id=bounded.id)}
    assert rows[first]["ends_at"] == rows[second]["starts_at"] == later
    assert rows[second]["ends_at"] is None
    made, changed = events(bounded.id)
    assert (made["action"], made["before"], made["actor_role"]) == ("limit.set", None, "OWNER")
    assert changed["before"] == made["after"]
    assert changed["after"] == {
        "origin": "TENANT",
        "kind": "MONEY_MONTH",
        "model": None,
        "key": None,
        "value": 2 * 10**9,
        "is_hard": False,
        "alert_percents": [80],
        "ends_at": None,
    }
    assert bounded.set_own(LimitKind.MONEY_MONTH, 2 * 10**9, is_hard=False, alert_percents=(80,)) == second
    assert len(events(bounded.id)) == 2


def test_an_older_clock_does_not_break_the_order(bounded: Bounded) -> None:
    now = utc_now()
    bounded.set_own(LimitKind.TOKENS_DAY, 1, now=now)
    bounded.set_own(LimitKind.TOKENS_DAY, 2, now=now - timedelta(seconds=1))
    bounded.set_own(LimitKind.TOKENS_DAY, 3, now=now - timedelta(seconds=1))
    assert [line.value for line in bounded.limits(now=now).lines] == [3]


def test_an_own_limit_above_what_applies_is_refused_and_says_what_would_be_possible(bounded: Bounded) -> None:
    bounded.assign(make_tier([TierCeiling(LimitKind.TOKENS_DAY, 100)]))
    with pytest.raises(operations.AboveCeiling) as refused:
        bounded.set_own(LimitKind.TOKENS_DAY, 101)
    assert (refused.value.ceiling, refused.value.source) == (100, LimitSource.TIER)
    bounded.set_own(LimitKind.TOKENS_DAY, 100)
    bounded.set_operators(LimitKind.TOKENS_DAY, 50)
    with pytest.raises(operations.AboveCeiling) as refused:
        bounded.set_own(LimitKind.TOKENS_DAY, 60)
    assert (refused.value.ceiling, refused.value.source) == (50, LimitSource.OPERATOR)
    # What was set before stays, and has no effect; operators set what they like.
    (line,) = bounded.limits().lines
    assert (line.value, line.source) == (50, LimitSource.OPERATOR)
    assert line.of_tenant is not None
    assert line.of_tenant.value == 100
    bounded.set_operators(LimitKind.TOKENS_DAY, 500)
    assert bounded.limits().lines[0].value == 100
    # Another scope is another place.
    bounded.set_own(LimitKind.TOKENS_DAY, 10_000, api_key_id=bounded.tenant.key.id)
    with pytest.raises(operations.AboveCeiling):
        bounded.set_own(LimitKind.REQUESTS_RPM, 61, default_rpm=60)


@pytest.mark.parametrize(
    ("kind", "value", "options"),
    [
        (LimitKind.TOKENS_DAY, -1, {}),
        (LimitKind.TOKENS_DAY, MAX_LIMIT + 1, {}),
        (LimitKind.TOKENS_DAY, 5, {"is_hard": False}),
        (LimitKind.TOKENS_DAY, 5, {"alert_percents": (50,)}),
        (LimitKind.MONEY_DAY, 5, {"alert_percents": (0,)}),
        (LimitKind.MONEY_DAY, 5, {"alert_percents": (101,)}),
        (LimitKind.MONEY_DAY, 5, {"alert_percents": (80, 50)}),
        (LimitKind.MONEY_DAY, 5, {"alert_percents": (50, 50)}),
        (LimitKind.MONEY_DAY, 5, {"alert_percents": (1, 2, 3, 4, 5, 6)}),
        (LimitKind.MONEY_DAY, 5, {"ends_at": utc_now() - timedelta(seconds=1)}),
    ],
)
def test_what_is_no_limit(bounded: Bounded, kind: LimitKind, value: int, options: dict[str, Any]) -> None:
    with pytest.raises(operations.InvalidLimit):
        bounded.set_own(kind, value, **options)
    assert not rows_of("quotas_limit", tenant_id=bounded.id)


@pytest.mark.parametrize("percents", [[0], [101], [2, 1], [1, 1], [1, 2, 3, 4, 5, 6]])
def test_the_database_knows_what_thresholds_are(bounded: Bounded, percents: list[int]) -> None:
    with connected("operator") as operator, pytest.raises(psycopg.errors.CheckViolation):
        operator.execute(
            "INSERT INTO quotas_limit "
            "(id, tenant_id, kind, origin, value, is_hard, alert_percents, starts_at, set_by_id) "
            "VALUES (%s, %s, 'MONEY_DAY', 'OPERATOR', 1, true, %s, now(), %s)",
            (uuid7(), bounded.id, percents, bounded.operator.id),
        )


def test_organizations_limit_models_that_they_enabled_and_keys_that_are_theirs(bounded: Bounded) -> None:
    model, other = make_model(), make_bounded()
    with pytest.raises(operations.UnknownModel):
        bounded.set_own(LimitKind.TOKENS_DAY, 5, model_id=model.id)
    bounded.set_operators(LimitKind.TOKENS_DAY, 5, model_id=model.id)
    enable(bounded.tenant, model)
    bounded.set_own(LimitKind.TOKENS_DAY, 5, model_id=model.id, api_key_id=bounded.tenant.key.id)
    with role_scope("operator"):
        catalog_operations.end_grant(tenant_id=bounded.id, slug=model.slug, now=utc_now())
    with pytest.raises(operations.UnknownModel):
        bounded.set_own(LimitKind.TOKENS_MONTH, 5, model_id=model.id)
    for setting in (bounded.set_own, bounded.set_operators):
        with pytest.raises(operations.UnknownKey):
            setting(LimitKind.TOKENS_DAY, 5, api_key_id=other.tenant.key.id)
    with role_scope("operator"):
        tenant_operations.revoke_api_key(
            tenant_id=bounded.id, key_id=bounded.tenant.key.id, now=utc_now() - timedelta(seconds=1)
        )
    with pytest.raises(operations.UnknownKey):
        bounded.set_own(LimitKind.TOKENS_DAY, 5, api_key_id=bounded.tenant.key.id)
    line = next(line for line in bounded.limits().lines if line.scope.api_key_id)
    assert not line.scope.key_is_live


def test_each_origin_has_its_actors(bounded: Bounded) -> None:
    wrong = [
        (LimitOrigin.OPERATOR, bounded.member_actor),
        (LimitOrigin.TENANT, bounded.operator_actor),
        (LimitOrigin.TENANT, audit.SYSTEM),
    ]
    for origin, actor in wrong:
        with role_scope("operator"), pytest.raises(operations.WrongActor):
            operations.set_limit(
                tenant_id=bounded.id,
                kind=LimitKind.TOKENS_DAY,
                value=1,
                origin=origin,
                actor=actor,
                now=utc_now(),
                reason="for the test",
            )
    with role_scope("operator"), pytest.raises(audit.ReasonMissing):
        operations.set_limit(
            tenant_id=bounded.id,
            kind=LimitKind.TOKENS_DAY,
            value=1,
            origin=LimitOrigin.OPERATOR,
            actor=bounded.operator_actor,
            now=utc_now(),
        )


def test_members_end_their_own_limits_and_operators_any(bounded: Bounded) -> None:
    own = bounded.set_own(LimitKind.TOKENS_DAY, 5)
    theirs = bounded.set_operators(LimitKind.TOKENS_DAY, 50)
    with tenant_scope(bounded.id):
        with pytest.raises(operations.LimitNotFound):
            operations.clear_limit(
                tenant_id=bounded.id, limit_id=theirs, actor=bounded.member_actor, now=utc_now()
            )
        operations.clear_limit(tenant_id=bounded.id, limit_id=own, actor=bounded.member_actor, now=utc_now())
        with pytest.raises(operations.LimitNotFound):
            operations.clear_limit(
                tenant_id=bounded.id, limit_id=own, actor=bounded.member_actor, now=utc_now()
            )
    own = bounded.set_own(LimitKind.TOKENS_DAY, 5)
    with role_scope("operator"):
        for limit_id in (own, theirs):
            operations.clear_limit(
                tenant_id=bounded.id,
                limit_id=limit_id,
                actor=bounded.operator_actor,
                now=utc_now(),
                reason="asked for by telephone",
            )
    assert bounded.limits().lines == ()
    assert events(bounded.id)[-1]["reason"] == "asked for by telephone"


def test_the_tenant_role_neither_sets_nor_ends_what_operators_set(bounded: Bounded) -> None:
    limit_id = bounded.set_operators(LimitKind.TOKENS_DAY, 5)
    insert = (
        "INSERT INTO quotas_limit "
        "(id, tenant_id, kind, origin, value, is_hard, alert_percents, starts_at, set_by_id) "
        "VALUES (%s, %s, 'TOKENS_TPM', 'OPERATOR', 1, true, '{}', now(), %s)"
    )
    for statement, values in (
        (insert, (uuid7(), bounded.id, bounded.owner.id)),
        ("UPDATE quotas_limit SET ends_at = now() WHERE id = %s", (limit_id,)),
    ):
        with connected("tenant", autocommit=False) as tenant:
            tenant.execute("SELECT set_config('app.tenant_id', %s, true)", (str(bounded.id),))
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
                tenant.execute(statement, values)


def test_an_organization_has_room_for_so_many_limits(
    bounded: Bounded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "MAX_LIMITS_PER_TENANT", 2)
    bounded.set_own(LimitKind.TOKENS_DAY, 5)
    bounded.set_own(LimitKind.TOKENS_MONTH, 5)
    with pytest.raises(operations.TooManyLimits):
        bounded.set_own(LimitKind.MONEY_DAY, 5)
    bounded.set_own(LimitKind.TOKENS_MONTH, 6)
    bounded.set_operators(LimitKind.MONEY_DAY, 5)


def test_values_set_at_once_leave_one(bounded: Bounded) -> None:
    """Whoever comes later waits for the organization's lock and replaces the first."""
    failures: list[BaseException] = []

    def run(value: int) -> None:
        try:
            bounded.set_own(LimitKind.TOKENS_DAY, value)
        except (IntegrityError, ValueError) as error:
            failures.append(error)
        finally:
            connections.close_all()

    at_once([partial(run, value) for value in range(1, 6)])
    assert not failures
    assert len(bounded.limits().lines) == 1
    assert len(rows_of("quotas_limit", tenant_id=bounded.id)) == 5
    assert bounded.member_actor.role == Role.OWNER


def at_once(actions: list[Callable[[], None]]) -> None:
    barrier = threading.Barrier(len(actions))

    def act(action: Callable[[], None]) -> None:
        barrier.wait(10)
        action()

    threads = [threading.Thread(target=act, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
