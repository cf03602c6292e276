"""The statement: every transfer once, exact balances, its own tenant's only."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from io import StringIO
from uuid import UUID

import pytest
from django.core.management import CommandError, call_command
from django.db import connections, transaction

from portal.kit.ids import PREFIXES, public_id, transfer_id, uuid7
from quotas.ledger import queries
from quotas.ledger.queries import Balance, StatementNotFound, open_statement
from quotas.tests.doors import admitted, settle
from tenants.scope import ScopeConflict, tenant_scope
from tests.database import connected
from tests.factories import (
    TenantFixture,
    add_granted,
    add_paid,
    admission_row,
    enable,
    make_model,
    make_tenant,
    settlement_row,
)

DAY = timedelta(days=1)


@pytest.fixture
def tenant(database: None) -> TenantFixture:
    return make_tenant(granted="0.00002", paid="1.00")


def call(tenant: TenantFixture, *prompts: int) -> list[UUID]:
    """Settled calls of so many prompt tokens, at 1,000 nano-units each; their request ids."""
    model = make_model()
    enable(tenant, model)
    with connected("dataplane") as dataplane:
        rows = [admitted(dataplane, admission_row(tenant, model)) for _ in prompts]
        for row, prompt_tokens in zip(rows, prompts, strict=True):
            settle(dataplane, settlement_row(row, prompt_tokens=prompt_tokens))
    return [row.request_id for row in rows]


def post_at(tenant: TenantFixture, moment: datetime, amount_nanos: int) -> None:
    """A grant whose transfer says that it was posted at that moment."""
    values = {"id": uuid7(), "tenant": tenant.id, "amount": amount_nanos, "at": moment}
    with connected("owner", autocommit=False) as owner:
        owner.execute(
            """
            CREATE TEMP TABLE legs ON COMMIT DROP AS
            SELECT ROW(%(id)s, 'GRANT', %(tenant)s, 'USD', NULL, NULL, '', l.kind, l.owner, l.amount)
                   ::quotas_leg AS leg
            FROM (VALUES ('PROMOTION', NULL, -%(amount)s), ('GRANTED', %(tenant)s::uuid, %(amount)s))
              AS l(kind, owner, amount)
            """,
            values,
        )
        owner.execute(
            """
            INSERT INTO quotas_ledgertransfer
              (id, kind, tenant_id, currency, reason, payload_sha256, posted_at)
            SELECT id, kind, tenant_id, currency, reason, payload_sha256, %(at)s
            FROM quotas_payloads(ARRAY(SELECT leg FROM legs))
            """,
            values,
        )
        owner.execute(
            "INSERT INTO quotas_ledgerentry (transfer_id, account_id, tenant_id, currency, amount_nanos) "
            "SELECT (leg).transfer_id, "
            "quotas_account_id((leg).account_tenant_id, (leg).account_kind, (leg).currency), "
            "(leg).account_tenant_id, (leg).currency, (leg).amount_nanos FROM legs"
        )
        owner.commit()


def printed(tenant: TenantFixture, *options: str) -> list[str]:
    out = StringIO()
    call_command("statement", tenant.public_id, *options, stdout=out)
    return out.getvalue().splitlines()


def today() -> datetime:
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def test_every_transfer_is_a_line_and_the_balance_follows(tenant: TenantFixture) -> None:
    first, second = call(tenant, 15, 10)
    with open_statement(tenant_id=tenant.id) as statement:
        lines = list(statement.lines)
    assert (statement.currency, statement.pending_nanos) == ("USD", 0)
    assert statement.opening == Balance(0, 0, 0)
    assert statement.closing == Balance(10**9 - 5_000, 0, 0)
    assert [(line.kind, line.amount_nanos, line.balance_nanos) for line in lines] == [
        ("GRANT", 20_000, 20_000),
        ("TOP_UP", 10**9, 10**9 + 20_000),
        ("USAGE", -15_000, 10**9 + 5_000),
        ("USAGE", -10_000, 10**9 - 5_000),
    ]
    assert [line.request_id for line in lines] == [None, None, first, second]
    assert lines[2].transfer_id == transfer_id("USAGE", f"{first}:1")


def test_nothing_of_others_is_read(tenant: TenantFixture) -> None:
    other = make_tenant(granted="0.5")
    with open_statement(tenant_id=other.id) as statement:
        assert [line.amount_nanos for line in statement.lines] == [500_000_000]


def test_overrun_and_debt(tenant: TenantFixture) -> None:
    """A cost above the hold is not the tenant's; what is owed is a negative part of the balance."""
    model = make_model()
    enable(tenant, model)
    with connected("dataplane") as dataplane:
        row = admitted(dataplane, admission_row(tenant, model))
        settle(dataplane, settlement_row(row, completion_tokens=10_000))
    with connected("operator") as operator:
        operator.execute(
            """
            SELECT quotas_post(ARRAY[
              ROW(%(id)s, 'ADJUSTMENT', %(tenant)s, 'USD', NULL, NULL, '', 'RECEIVABLE', %(tenant)s, -7),
              ROW(%(id)s, 'ADJUSTMENT', %(tenant)s, 'USD', NULL, NULL, '', 'REVENUE', NULL, 7)]::quotas_leg[])
            """,
            {"id": uuid7(), "tenant": tenant.id},
        )
    with open_statement(tenant_id=tenant.id) as statement:
        amounts = [line.amount_nanos for line in statement.lines]
    assert amounts[2:] == [-300_002, -7]
    assert statement.closing == Balance(10**9 - 280_002, 0, 7)
    assert sum(amounts) == statement.closing.total_nanos


def test_a_period_is_half_open(tenant: TenantFixture) -> None:
    start = today()
    post_at(tenant, start - 2 * DAY, 100)
    post_at(tenant, start - DAY, 30)
    with open_statement(tenant_id=tenant.id, from_at=start - 2 * DAY, to_at=start - DAY) as statement:
        assert [line.amount_nanos for line in statement.lines] == [100]
    assert (statement.opening.total_nanos, statement.closing.total_nanos) == (0, 100)
    with open_statement(tenant_id=tenant.id, from_at=start - DAY) as statement:
        assert [line.amount_nanos for line in statement.lines] == [30, 20_000, 10**9]
    assert statement.opening == Balance(0, 100, 0)
    assert statement.closing == Balance(10**9, 20_130, 0)
    with open_statement(tenant_id=tenant.id, to_at=start - 2 * DAY) as statement:
        assert list(statement.lines) == []
    assert statement.closing == Balance(0, 0, 0)


def test_it_reads_pages_of_one_snapshot(tenant: TenantFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is posted while a statement is read belongs to the next one."""
    for _ in range(5):
        add_granted(tenant.id, 10)
    monkeypatch.setattr(queries, "PAGE_SIZE", 2)
    with open_statement(tenant_id=tenant.id) as statement:
        first = next(statement.lines)
        add_paid(tenant.id, 5)
        rest = list(statement.lines)
    assert len([first, *rest]) == 7
    assert rest[-1].balance_nanos == statement.closing.total_nanos == 10**9 + 20_050


def test_it_opens_its_own_scope(tenant: TenantFixture) -> None:
    with pytest.raises(StatementNotFound), open_statement(tenant_id=uuid7()):
        pytest.fail("there is a statement of nobody")
    with (
        tenant_scope(make_tenant().id),
        pytest.raises((ScopeConflict, RuntimeError)),
        open_statement(tenant_id=tenant.id),
    ):
        pytest.fail("a statement was opened in the scope of another organization")
    assert not connections["tenant"].in_atomic_block


def test_the_command_prints_it_and_says_that_it_adds_up(tenant: TenantFixture) -> None:
    (request,) = call(tenant, 15)
    lines = printed(tenant)
    assert lines[0].startswith(f"{tenant.public_id} (Test-")
    assert lines[0].endswith("), USD, from the beginning until before now")
    assert lines[1].split() == ["opening", "balance", "$0.00"]
    usage = lines[4].split()
    assert usage[2:] == [
        public_id(PREFIXES["transfer"], transfer_id("USAGE", f"{request}:1")),
        "USAGE",
        public_id(PREFIXES["request"], request),
        "-$0.000015",
        "$1.000005",
    ]
    assert [line.split() for line in lines[5:]] == [
        ["closing", "balance", "$1.000005"],
        ["paid", "$1.00"],
        ["granted", "$0.000005"],
        ["owed", "$0.00"],
        ["pending", "now", "$0.00"],
        ["adds", "up"],
    ]
    assert len({len(line) for line in lines[1:-1]}) == 1


def test_the_command_of_a_period(tenant: TenantFixture) -> None:
    start = today()
    post_at(tenant, start - DAY, 30)
    first, last = f"{start - DAY:%Y-%m-%d}", f"{start:%Y-%m-%d}"
    lines = printed(tenant, "--from", first, "--to", last)
    assert lines[0].endswith(f"from {first} until before {last}")
    assert lines[2].split()[-2:] == ["+$0.00000003", "$0.00000003"]
    assert lines[-1] == "adds up"


def test_the_command_fails_when_it_does_not_add_up(tenant: TenantFixture) -> None:
    with connected("owner") as owner:
        change = "UPDATE quotas_wallet SET paid_nanos = paid_nanos + %s WHERE tenant_id = %s"
        owner.execute(change, (3, tenant.id))
        try:
            with pytest.raises(CommandError, match=r"differ from closing by -\$0\.000000003") as error:
                printed(tenant)
        finally:
            owner.execute(change, (-3, tenant.id))
    assert error.value.returncode == 1
    assert printed(tenant)[-1] == "adds up"


def test_the_command_refuses_what_it_cannot_read(tenant: TenantFixture) -> None:
    unknown = public_id(PREFIXES["organization"], uuid7())
    for arguments, message in (
        ([unknown], "no organization"),
        (["org_nonsense"], "no organization"),
        ([tenant.public_id.replace("org_", "req_")], "no organization"),
        ([tenant.public_id, "--from", "yesterday"], "--from must be a day"),
        ([tenant.public_id, "--to", "2026-02-30"], "--to must be a day"),
        ([tenant.public_id, "--from", "2026-02-02", "--to", "2026-02-02"], "later than"),
    ):
        with pytest.raises(CommandError, match=message):
            call_command("statement", *arguments, stdout=StringIO())


def test_a_statement_cannot_write(tenant: TenantFixture) -> None:
    with open_statement(tenant_id=tenant.id), connections["tenant"].cursor() as cursor:
        cursor.execute("SHOW transaction_read_only")
        assert cursor.fetchone() == ("on",)
    with transaction.atomic(using="tenant"), connections["tenant"].cursor() as cursor:
        cursor.execute("SHOW transaction_read_only")
        assert cursor.fetchone() == ("off",)
