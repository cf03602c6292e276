"""The ledger refuses what must not happen, whoever asks, and posts each transfer once."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

import psycopg
import pytest
from django.db import IntegrityError, connections

from portal.kit.ids import transfer_id, uuid7
from quotas.ledger import operations as ledger
from quotas.models import AccountKind
from tenants.scope import ScopeMissing, role_scope
from tests.database import Money, connected, money_of, rows_of, wait_until_blocked
from tests.factories import TenantFixture, add_paid, make_tenant

Connection = psycopg.Connection[Any]

# What a leg says beyond its transfer: the account's kind, whose it is, nano-units.
Leg = tuple[str, UUID | None, int]

GRANT_LEGS: tuple[tuple[str, bool, int], ...] = (("PROMOTION", False, -100), ("GRANTED", True, 100))


@pytest.fixture
def tenant(database: None) -> TenantFixture:
    return make_tenant()


@pytest.fixture
def operator(database: None) -> Iterator[Connection]:
    with connected("operator") as connection:
        yield connection


@pytest.fixture
def owner(database: None) -> Iterator[Connection]:
    """The owner's connection; nothing of it is committed."""
    with connected("owner", autocommit=False) as connection:
        yield connection


def post(
    connection: Connection, transfer: UUID, tenant_id: UUID, legs: Sequence[Leg], currency: str = "USD"
) -> bool:
    """Post one transfer of kind GRANT; whether it was posted now."""
    row = connection.execute(
        """
        SELECT posted FROM quotas_post(ARRAY(
          SELECT ROW(%(id)s, 'GRANT', %(tenant)s, %(currency)s, NULL, NULL, '',
                     l.kind, l.owner, l.amount)::quotas_leg
          FROM unnest(%(kinds)s::text[], %(owners)s::uuid[], %(amounts)s::bigint[])
            AS l(kind, owner, amount)))
        """,
        {
            "id": transfer,
            "tenant": tenant_id,
            "currency": currency,
            "kinds": [kind for kind, _, _ in legs],
            "owners": [owner for _, owner, _ in legs],
            "amounts": [amount for _, _, amount in legs],
        },
    ).fetchone()
    assert row is not None
    return bool(row[0])


def grant_legs(tenant_id: UUID, amount: int = 100) -> list[Leg]:
    return [("PROMOTION", None, -amount), ("GRANTED", tenant_id, amount)]


# --- Append-only -----------------------------------------------------------------------------------


@pytest.mark.parametrize("table", ["quotas_ledgertransfer", "quotas_ledgerentry"])
@pytest.mark.parametrize(
    "change", ["UPDATE {} SET currency = currency", "DELETE FROM {}", "TRUNCATE {} CASCADE"]
)
def test_the_ledger_is_append_only_even_for_its_owner(
    table: str, change: str, tenant: TenantFixture, owner: Connection
) -> None:
    with pytest.raises(psycopg.errors.RestrictViolation, match="append-only"):
        owner.execute(change.format(table))


@pytest.mark.parametrize("role", ["operator", "dataplane", "tenant", "auth"])
@pytest.mark.parametrize(
    "change",
    [
        "UPDATE quotas_ledgertransfer SET reason = 'x'",
        "DELETE FROM quotas_ledgerentry",
        "TRUNCATE quotas_ledgerentry",
        "UPDATE quotas_wallet SET paid_nanos = paid_nanos + 1",
        "UPDATE quotas_wallet SET granted_nanos = 5",
        "UPDATE quotas_wallet SET receivable_nanos = 0",
        "UPDATE quotas_wallet SET pending_nanos = 0",
        "DELETE FROM quotas_wallet",
        "DELETE FROM quotas_hold",
        "UPDATE quotas_ledgeraccount SET kind = kind",
    ],
)
def test_no_role_of_the_product_may_change_history_or_a_balance(
    role: str, change: str, database: None
) -> None:
    with connected(role) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(change)


@pytest.mark.parametrize("role", ["tenant", "auth"])
def test_roles_that_never_post_cannot(role: str, tenant: TenantFixture) -> None:
    with connected(role) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        post(connection, uuid7(), tenant.id, grant_legs(tenant.id))


def test_usage_and_requests_are_not_edited_by_the_data_plane(database: None) -> None:
    with connected("dataplane") as connection:
        for table in ("quotas_usagerecord", "quotas_inferencerequest"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(f"UPDATE {table} SET tenant_id = tenant_id")


# --- Double entry ----------------------------------------------------------------------------------


def test_an_unbalanced_transfer_is_refused(tenant: TenantFixture, operator: Connection) -> None:
    transfer = uuid7()
    with pytest.raises(psycopg.errors.CheckViolation, match="does not sum to zero"):
        post(operator, transfer, tenant.id, [("PROMOTION", None, -100), ("GRANTED", tenant.id, 101)])
    assert rows_of("quotas_ledgertransfer", id=transfer) == []


def test_a_leg_of_zero_is_refused(tenant: TenantFixture, operator: Connection) -> None:
    with pytest.raises(psycopg.errors.CheckViolation, match="entry_not_zero"):
        post(operator, uuid7(), tenant.id, [*grant_legs(tenant.id), ("TOPPED_UP", tenant.id, 0)])


def test_currencies_never_mix(tenant: TenantFixture, operator: Connection, owner: Connection) -> None:
    make_tenant("CNY")
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        post(operator, uuid7(), tenant.id, grant_legs(tenant.id), currency="CNY")
    transfer = transfer_id("GRANT", f"welcome:{tenant.id}")
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        owner.execute(
            "INSERT INTO quotas_ledgerentry (transfer_id, account_id, tenant_id, currency, amount_nanos) "
            "SELECT %s, quotas_account_id(NULL, kind, 'CNY'), NULL, 'CNY', amount "
            "FROM (VALUES ('REVENUE', 5), ('PROMOTION', -5)) AS v(kind, amount)",
            (transfer,),
        )


def test_a_wallet_has_its_tenants_currency_for_good(tenant: TenantFixture, owner: Connection) -> None:
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        owner.execute("UPDATE quotas_wallet SET currency = 'CNY' WHERE tenant_id = %s", (tenant.id,))


def test_a_leg_belongs_to_the_tenant_of_its_account(tenant: TenantFixture, owner: Connection) -> None:
    transfer = transfer_id("GRANT", f"welcome:{tenant.id}")
    with pytest.raises(psycopg.errors.CheckViolation, match="tenant of its account"):
        owner.execute(
            "INSERT INTO quotas_ledgerentry (transfer_id, account_id, tenant_id, currency, amount_nanos) "
            "SELECT %s, quotas_account_id(t, kind, 'USD'), NULL, 'USD', amount "
            "FROM (VALUES ('TOPPED_UP', %s::uuid, 5), ('REVENUE', NULL, -5)) AS v(kind, t, amount)",
            (transfer, tenant.id),
        )


# --- Idempotent by id ------------------------------------------------------------------------------


def test_the_same_payload_is_posted_once(tenant: TenantFixture, operator: Connection) -> None:
    transfer, legs = uuid7(), grant_legs(tenant.id)
    assert post(operator, transfer, tenant.id, legs)
    assert not post(operator, transfer, tenant.id, legs)
    assert not post(operator, transfer, tenant.id, list(reversed(legs)))
    assert money_of(tenant.id) == Money(granted=10**9 + 100)


def test_the_same_id_with_another_payload_is_an_error(tenant: TenantFixture, operator: Connection) -> None:
    transfer, other = uuid7(), make_tenant()
    assert post(operator, transfer, tenant.id, grant_legs(tenant.id))
    for tenant_id, legs in (
        (tenant.id, grant_legs(tenant.id, 101)),
        (tenant.id, [("PROMOTION", None, -100), ("TOPPED_UP", tenant.id, 100)]),
        (other.id, grant_legs(other.id)),
    ):
        with pytest.raises(psycopg.errors.UniqueViolation, match="another payload"):
            post(operator, transfer, tenant_id, legs)
    assert money_of(tenant.id) == Money(granted=10**9 + 100)
    assert money_of(other.id) == Money(granted=10**9)


def test_a_credit_is_given_once_per_key(tenant: TenantFixture) -> None:
    key, other = f"key:{uuid7()}", make_tenant()
    with role_scope("operator"):
        assert ledger.grant_credit(tenant_id=tenant.id, amount_nanos=5, key=key, reason="a")
        assert not ledger.grant_credit(tenant_id=tenant.id, amount_nanos=5, key=key, reason="b")
        for tenant_id, amount in ((tenant.id, 6), (other.id, 5)):
            with pytest.raises(IntegrityError, match="another payload"):
                ledger.grant_credit(tenant_id=tenant_id, amount_nanos=amount, key=key, reason="c")
        # The kind is part of the id: a receipt with this key is another transfer.
        assert ledger.record_receipt(tenant_id=tenant.id, amount_nanos=7, key=key, reason="d")
    assert money_of(tenant.id) == Money(paid=7, granted=10**9 + 5)
    assert money_of(other.id) == Money(granted=10**9)


def test_a_credit_is_positive_and_for_a_tenant_with_a_wallet(tenant: TenantFixture) -> None:
    with role_scope("operator"):
        for tenant_id, amount in ((tenant.id, 0), (tenant.id, -5), (uuid7(), 5)):
            with pytest.raises(IntegrityError):
                ledger.grant_credit(tenant_id=tenant_id, amount_nanos=amount, key=str(uuid7()), reason="")
    with pytest.raises(ScopeMissing):
        ledger.grant_credit(tenant_id=tenant.id, amount_nanos=1, key=str(uuid7()), reason="")


def test_one_key_for_two_tenants_at_the_same_time_credits_one_and_says_so(tenant: TenantFixture) -> None:
    """Neither sees the other's transfer when it begins; the second must not take it for its own."""
    other, key = make_tenant(), f"key:{uuid7()}"
    errors: list[BaseException] = []

    def credit_the_other(connection: Connection) -> None:
        try:
            connection.execute(
                "SELECT quotas_credit(%s, 'GRANT', %s, 5, 'PROMOTION', '')",
                (transfer_id("GRANT", key), other.id),
            )
        except psycopg.Error as error:
            errors.append(error)

    with connected("operator", autocommit=False) as first, connected("operator") as second:
        first.execute(
            "SELECT quotas_credit(%s, 'GRANT', %s, 5, 'PROMOTION', '')",
            (transfer_id("GRANT", key), tenant.id),
        )
        thread = threading.Thread(target=credit_the_other, args=(second,))
        thread.start()
        wait_until_blocked(second.info.backend_pid)
        first.commit()
        thread.join(timeout=30)
    assert [type(error) for error in errors] == [psycopg.errors.UniqueViolation]
    assert money_of(tenant.id) == Money(granted=10**9 + 5)
    assert money_of(other.id) == Money(granted=10**9)


# --- Balances --------------------------------------------------------------------------------------


def test_spending_never_overdraws(tenant: TenantFixture, operator: Connection) -> None:
    with pytest.raises(psycopg.errors.CheckViolation, match="wallet_never_overdrawn"):
        post(
            operator,
            uuid7(),
            tenant.id,
            [("TOPPED_UP", tenant.id, -(10**9) - 1), ("REVENUE", None, 10**9 + 1)],
        )
    with pytest.raises(psycopg.errors.CheckViolation, match="wallet_granted_positive"):
        post(
            operator,
            uuid7(),
            tenant.id,
            [("GRANTED", tenant.id, -(10**9) - 1), ("GRANTED_USAGE", None, 10**9 + 1)],
        )
    with pytest.raises(psycopg.errors.CheckViolation, match="wallet_receivable_owed"):
        post(operator, uuid7(), tenant.id, [("RECEIVABLE", tenant.id, 1), ("REVENUE", None, -1)])
    assert money_of(tenant.id) == Money(granted=10**9)


def test_even_the_owner_cannot_overdraw_a_wallet(tenant: TenantFixture, owner: Connection) -> None:
    with pytest.raises(psycopg.errors.CheckViolation, match="wallet_never_overdrawn"):
        owner.execute(
            "UPDATE quotas_wallet SET pending_nanos = granted_nanos + 1 WHERE tenant_id = %s", (tenant.id,)
        )


def test_the_operator_may_give_an_overdraft(tenant: TenantFixture, operator: Connection) -> None:
    change = "UPDATE quotas_wallet SET overdraft_nanos = %s WHERE tenant_id = %s"
    operator.execute(change, (5, tenant.id))
    with pytest.raises(psycopg.errors.CheckViolation, match="wallet_overdraft_positive"):
        operator.execute(change, (-1, tenant.id))
    with connected("dataplane") as dataplane, pytest.raises(psycopg.errors.InsufficientPrivilege):
        dataplane.execute(change, (5, tenant.id))


def test_ids_are_the_same_in_python_and_in_sql(database: None) -> None:
    with connections["operator"].cursor() as cursor:
        for kind, key in (("USAGE", "a:1"), ("GRANT", ""), ("TOP_UP", "钱:€:🙂")):
            cursor.execute("SELECT quotas_transfer_id(%s, %s)", (kind, key))
            assert cursor.fetchone()[0] == transfer_id(kind, key)


def test_every_kind_of_account_exists_for_a_currency_in_use(tenant: TenantFixture) -> None:
    own = {row["kind"] for row in rows_of("quotas_ledgeraccount", tenant_id=tenant.id)}
    house = {
        row["kind"] for row in rows_of("quotas_ledgeraccount", currency="USD") if row["tenant_id"] is None
    }
    assert own == {"TOPPED_UP", "GRANTED", "RECEIVABLE"}
    assert own | house == set(AccountKind.values)


def test_paid_credit_is_its_own_account(tenant: TenantFixture) -> None:
    add_paid(tenant.id, 77)
    assert money_of(tenant.id) == Money(paid=77, granted=10**9)
