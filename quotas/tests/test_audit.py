"""The audit: silent on a sound database, and it names each invariant that is broken on purpose."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from typing import Any
from uuid import UUID

import pytest
from django.core.management import CommandError, call_command
from django.db import connections, transaction

from portal.kit.ids import PREFIXES, public_id, transfer_id, uuid7
from quotas import audit
from quotas.audit import InvariantResult
from quotas.models import LimitKind
from quotas.tests.doors import (
    Connection,
    admit,
    admitted,
    checkpoint,
    checkpoint_row,
    end_lease,
    settle,
    sweep_row,
)
from quotas.tests.limit_rows import set_limit
from tests.database import connected
from tests.factories import (
    ModelFixture,
    TenantFixture,
    admission_row,
    enable,
    make_price,
    make_tenant,
    settlement_row,
    void_row,
)

CODES = [
    "I1",
    "I2",
    "I3",
    "I4",
    "I5",
    "I6",
    "I7",
    "I8",
    "I9",
    "I10",
    "I11",
    "I12",
    "I13",
    "I14",
    "I15",
    "I16",
    "I17",
    "I18",
    "I19",
]


@dataclass(frozen=True, slots=True)
class Books:
    """Calls of one organization in every state, and another organization."""

    tenant: TenantFixture
    other: TenantFixture
    settled: UUID
    voided: UUID
    pending: UUID
    corrected: UUID
    transfer: UUID
    private_price: UUID

    def values(self) -> dict[str, Any]:
        return {
            "tenant": self.tenant.id,
            "other": self.other.id,
            "settled": self.settled,
            "voided": self.voided,
            "pending": self.pending,
            "corrected": self.corrected,
            "transfer": self.transfer,
            "private_price": self.private_price,
        }


@pytest.fixture(scope="module")
def books(model: ModelFixture) -> Iterator[Books]:
    tenant, other = make_tenant(), make_tenant()
    enable(tenant, model)
    for kind in (LimitKind.TOKENS_MONTH, LimitKind.MONEY_DAY):
        set_limit(tenant.id, kind, 10**9)
    with connected("dataplane") as dataplane:
        settled, voided, pending, corrected = (
            admitted(dataplane, admission_row(tenant, model)) for _ in range(4)
        )
        checkpoint(dataplane, checkpoint_row(corrected, 10, 5))
        end_lease(corrected)
        settle(dataplane, settlement_row(settled, prompt_tokens=10), void_row(voided), sweep_row(corrected))
        settle(dataplane, settlement_row(corrected, prompt_tokens=10, completion_tokens=6))
        yield Books(
            tenant,
            other,
            settled.request_id,
            voided.request_id,
            pending.request_id,
            corrected.request_id,
            transfer_id("USAGE", f"{settled.request_id}:1"),
            make_price(model.id, tenant_id=other.id),
        )
        settle(dataplane, void_row(pending))


@contextmanager
def broken(statements: str, values: dict[str, Any]) -> Iterator[None]:
    """Statements of the owner, each of which must hit something, undone at the end."""
    with transaction.atomic(using="owner"):
        with connections["owner"].cursor() as cursor:
            for statement in filter(None, map(str.strip, statements.split(";"))):
                cursor.execute(statement, values if "%(" in statement else None)
                assert cursor.rowcount != 0, statement
        yield
        transaction.set_rollback(True, using="owner")


def violated(results: list[InvariantResult]) -> dict[str, InvariantResult]:
    return {result.code: result for result in results if not result.holds}


def test_a_sound_database_holds_every_invariant(books: Books) -> None:
    results = audit.run()
    assert [result.code for result in results] == CODES
    assert violated(results) == {}
    assert {(result.violations, tuple(result.examples)) for result in results} == {(0, ())}


BREAKS = {
    "a leg without its counterpart": (
        """
        ALTER TABLE quotas_ledgerentry DISABLE TRIGGER ledger_apply_entries;
        INSERT INTO quotas_ledgerentry (transfer_id, account_id, tenant_id, currency, amount_nanos)
        VALUES (%(transfer)s, quotas_account_id(%(tenant)s, 'TOPPED_UP', 'USD'), %(tenant)s, 'USD', 5)
        """,
        {"I1": "transfer", "I2": "tenant", "I6": "settled", "I11": "transfer"},
    ),
    "a balance that no entry moved": (
        "UPDATE quotas_wallet SET paid_nanos = paid_nanos + 1 WHERE tenant_id = %(tenant)s",
        {"I2": "tenant"},
    ),
    "two balances exchanged": (
        """
        UPDATE quotas_wallet SET paid_nanos = paid_nanos + 5, granted_nanos = granted_nanos - 5
        WHERE tenant_id = %(tenant)s
        """,
        {"I2": "tenant"},
    ),
    "pending money that no hold reserves": (
        "UPDATE quotas_wallet SET pending_nanos = pending_nanos + 1 WHERE tenant_id = %(tenant)s",
        {"I3": "tenant"},
    ),
    "a hold that has grown": (
        """
        ALTER TABLE quotas_hold DISABLE TRIGGER USER;
        UPDATE quotas_hold SET amount_nanos = amount_nanos + 1 WHERE request_id = %(pending)s
        """,
        {"I3": "tenant", "I15": "tenant"},
    ),
    "a settled hold that is open again": (
        """
        ALTER TABLE quotas_hold DISABLE TRIGGER USER;
        UPDATE quotas_hold SET state = 'PENDING', resolved_at = NULL WHERE request_id = %(settled)s
        """,
        {"I3": "tenant", "I4": "settled", "I15": "tenant"},
    ),
    "a post that claims to be the sweeper's": (
        """
        ALTER TABLE quotas_hold DISABLE TRIGGER USER;
        UPDATE quotas_hold SET resolved_by = 'SWEEPER' WHERE request_id = %(settled)s
        """,
        {"I4": "settled"},
    ),
    "a void beside a charge": (
        """
        ALTER TABLE quotas_hold DISABLE TRIGGER USER;
        UPDATE quotas_hold SET state = 'VOIDED' WHERE request_id = %(settled)s
        """,
        {"I4": "settled"},
    ),
    "a wallet beyond its overdraft": (
        """
        ALTER TABLE quotas_wallet DROP CONSTRAINT wallet_never_overdrawn;
        UPDATE quotas_wallet SET pending_nanos = granted_nanos + 1 WHERE tenant_id = %(tenant)s
        """,
        {"I3": "tenant", "I5": "tenant"},
    ),
    "facts changed after they were priced": (
        """
        ALTER TABLE quotas_usagerecord DISABLE TRIGGER append_only;
        UPDATE quotas_usagerecord SET completion_tokens = 7 WHERE request_id = %(corrected)s AND revision = 2
        """,
        {"I6": "corrected", "I12": "tenant"},
    ),
    "a published price that has changed": (
        """
        ALTER TABLE models_catalog_priceline DISABLE TRIGGER catalog_guard_line;
        UPDATE models_catalog_priceline SET price_nanos_per_million = price_nanos_per_million * 2
        WHERE token_class = 'output' AND version_id =
          (SELECT price_version_id FROM quotas_inferencerequest WHERE id = %(settled)s)
        """,
        # Every call of the test session with output tokens of this model is affected.
        {"I6": ""},
    ),
    "a charge above its hold": (
        """
        ALTER TABLE quotas_hold DISABLE TRIGGER USER;
        UPDATE quotas_hold SET amount_nanos = 1 WHERE request_id = %(settled)s
        """,
        {"I6": "settled"},
    ),
    "a settlement posted a second time": (
        """
        INSERT INTO quotas_ledgertransfer
          (id, kind, tenant_id, currency, request_id, revision, reason, payload_sha256)
        SELECT gen_random_uuid(), kind, tenant_id, currency, request_id, revision, reason, payload_sha256
        FROM quotas_ledgertransfer WHERE id = %(transfer)s;
        INSERT INTO quotas_ledgerentry (transfer_id, account_id, tenant_id, currency, amount_nanos)
        SELECT t.id, e.account_id, e.tenant_id, e.currency, e.amount_nanos
        FROM quotas_ledgertransfer t JOIN quotas_ledgerentry e ON e.transfer_id = %(transfer)s
        WHERE t.request_id = %(settled)s AND t.id <> %(transfer)s
        """,
        {"I4": "settled", "I6": "settled", "I10": ""},
    ),
    "two records of the gateway": (
        """
        INSERT INTO quotas_usagerecord
        SELECT (jsonb_populate_record(u, '{"revision": 2, "transfer_id": null}')).*
        FROM quotas_usagerecord u WHERE request_id = %(settled)s
        """,
        {"I4": "settled", "I10": "settled"},
    ),
    "a correction without its cause": (
        """
        INSERT INTO quotas_usagerecord
        SELECT (jsonb_populate_record(u, '{"revision": 2, "transfer_id": null, "source": "FEED"}')).*
        FROM quotas_usagerecord u WHERE request_id = %(settled)s
        """,
        {"I4": "settled"},
    ),
    "a surplus that no discrepancy tells of": (
        """
        SELECT quotas_post(ARRAY(
          SELECT ROW(%(settled)s, 'SURPLUS', NULL, 'USD', NULL, NULL, '', v.kind, NULL, v.amount)::quotas_leg
          FROM (VALUES ('OVERRUN_EXPENSE', -5), ('UNBILLED_USAGE', 5)) AS v(kind, amount)))
        """,
        {"I19": ""},
    ),
    "a transfer without its record": (
        """
        ALTER TABLE quotas_usagerecord DISABLE TRIGGER append_only;
        UPDATE quotas_usagerecord SET transfer_id = NULL WHERE request_id = %(settled)s
        """,
        {"I10": "transfer"},
    ),
    "a call without an attempt": (
        "DELETE FROM quotas_attempt WHERE request_id = %(voided)s",
        {"I10": "voided"},
    ),
    "a call without a hold": (
        """
        ALTER TABLE quotas_hold DISABLE TRIGGER USER;
        DELETE FROM quotas_hold WHERE request_id = %(voided)s
        """,
        {"I10": "voided"},
    ),
    "a payload that was rewritten": (
        """
        ALTER TABLE quotas_ledgertransfer DISABLE TRIGGER ledger_append_only;
        UPDATE quotas_ledgertransfer SET payload_sha256 = sha256('x') WHERE id = %(transfer)s
        """,
        {"I11": "transfer"},
    ),
    "a balanced pair added to a posted transfer": (
        """
        INSERT INTO quotas_ledgerentry (transfer_id, account_id, tenant_id, currency, amount_nanos)
        SELECT %(transfer)s, quotas_account_id(NULL, v.kind, 'USD'), NULL, 'USD', v.amount
        FROM (VALUES ('CASH_CLEARING', 5), ('STRIPE_CLEARING', -5)) AS v(kind, amount)
        """,
        {"I11": "transfer"},
    ),
    "a transfer without legs": (
        """
        INSERT INTO quotas_ledgertransfer (id, kind, tenant_id, currency, reason, payload_sha256)
        VALUES (%(settled)s, 'GRANT', %(tenant)s, 'USD', '', sha256('x'))
        """,
        {"I11": ""},
    ),
    "a rollup that counts once too often": (
        "UPDATE quotas_usagerollup SET requests = requests + 1 WHERE tenant_id = %(tenant)s",
        {"I12": "tenant"},
    ),
    "a rollup that is missing": (
        "DELETE FROM quotas_usagerollup WHERE tenant_id = %(tenant)s",
        {"I12": "tenant", "I14": "tenant"},
    ),
    "a counter that has used too little": (
        "UPDATE quotas_limituse SET used = used - 1 WHERE tenant_id = %(tenant)s AND kind = 'MONEY_DAY'",
        {"I14": "tenant"},
    ),
    "a counter of a scope that used nothing": (
        """
        INSERT INTO quotas_limituse (tenant_id, model_id, api_key_id, kind, period_start, used, pending)
        VALUES (%(tenant)s, %(other)s, %(other)s, 'TOKENS_MONTH', '2021-02-01', 1, 0)
        """,
        {"I14": "tenant"},
    ),
    "a counter that holds what no call reserves": (
        """
        UPDATE quotas_limituse SET pending = pending + 1
        WHERE tenant_id = %(tenant)s AND kind = 'TOKENS_MONTH'
        """,
        {"I15": "tenant"},
    ),
    "a counter that has forgotten a call in progress": (
        "UPDATE quotas_limituse SET pending = 0 WHERE tenant_id = %(tenant)s AND kind = 'MONEY_DAY'",
        {"I15": "tenant"},
    ),
    "a leg that belongs to somebody else": (
        """
        ALTER TABLE quotas_ledgerentry DISABLE TRIGGER ledger_append_only;
        UPDATE quotas_ledgerentry SET tenant_id = %(other)s
        WHERE transfer_id = %(transfer)s AND tenant_id = %(tenant)s
        """,
        {"I13": "transfer"},
    ),
    "a transfer that belongs to somebody else": (
        """
        ALTER TABLE quotas_ledgertransfer DISABLE TRIGGER ledger_append_only;
        UPDATE quotas_ledgertransfer SET tenant_id = %(other)s WHERE id = %(transfer)s
        """,
        {"I11": "transfer", "I13": "transfer"},
    ),
    "a call at the private price of somebody else": (
        """
        ALTER TABLE quotas_inferencerequest DISABLE TRIGGER append_only;
        UPDATE quotas_inferencerequest SET price_version_id = %(private_price)s WHERE id = %(settled)s
        """,
        {"I13": "settled"},
    ),
    "an attempt at the call of somebody else": (
        """
        ALTER TABLE quotas_attempt DISABLE TRIGGER USER;
        UPDATE quotas_attempt SET tenant_id = %(other)s WHERE request_id = %(settled)s
        """,
        {"I13": "attempt"},
    ),
    "a call that broke off and was billed": (
        """
        ALTER TABLE quotas_inferencerequest DISABLE TRIGGER USER;
        UPDATE quotas_inferencerequest SET cancel_policy = 'NOTHING' WHERE id = %(settled)s;
        UPDATE quotas_attempt SET outcome = 'CUT' WHERE request_id = %(settled)s
        """,
        {"I17": "settled"},
    ),
    "a ceiling of which the hold knows nothing": (
        """
        ALTER TABLE quotas_inferencerequest DISABLE TRIGGER USER;
        UPDATE quotas_inferencerequest SET max_cost_nanos = 5 WHERE id = %(settled)s
        """,
        {"I6": "settled"},
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_each_break_is_named(name: str, books: Books) -> None:
    """Exactly these invariants are violated, and the example is the thing that was broken."""
    statements, expected = BREAKS[name]
    with broken(statements, books.values()):
        found = violated(audit.run(using="owner"))
    assert set(found) == set(expected)
    names = {
        "tenant": books.tenant.public_id,
        "transfer": public_id(PREFIXES["transfer"], books.transfer),
        "settled": public_id(PREFIXES["request"], books.settled),
        "voided": public_id(PREFIXES["request"], books.voided),
        "corrected": public_id(PREFIXES["request"], books.corrected),
    }
    for code, thing in expected.items():
        assert found[code].violations >= 1
        if thing in names:
            assert (found[code].violations, found[code].examples) == (1, [names[thing]]), code
    # What was broken has been undone.
    assert violated(audit.run()) == {}


def test_examples_are_few_and_the_count_is_whole(books: Books) -> None:
    tenants = [make_tenant() for _ in range(7)]
    with broken(
        "UPDATE quotas_wallet SET paid_nanos = paid_nanos + 1 WHERE tenant_id = ANY (%(ids)s)",
        {"ids": [tenant.id for tenant in tenants]},
    ):
        result = violated(audit.run(using="owner"))["I2"]
    assert result.violations == 7
    assert len(result.examples) == audit.MAX_EXAMPLES == 5
    assert set(result.examples) < {tenant.public_id for tenant in tenants}


def test_calls_that_settle_meanwhile_are_seen_in_one_snapshot(model: ModelFixture) -> None:
    tenant, stop = make_tenant(), threading.Event()
    enable(tenant, model)

    def keep_calling(connection: Connection) -> None:
        while not stop.is_set():
            rows = [admission_row(tenant, model) for _ in range(3)]
            admit(connection, *rows, block_ms=2_000)
            settle(connection, *(settlement_row(row, prompt_tokens=1) for row in rows), block_ms=2_000)

    with connected("dataplane") as connection:
        thread = threading.Thread(target=keep_calling, args=(connection,))
        thread.start()
        try:
            found = [violated(audit.run()) for _ in range(12)]
        finally:
            stop.set()
            thread.join(timeout=30)
    assert found == [{}] * 12


def test_the_command_prints_a_line_for_each_invariant(books: Books) -> None:
    out = StringIO()
    call_command("audit", stdout=out)
    lines = out.getvalue().splitlines()
    assert lines[0].split("  ")[0] == "I1"
    assert [line.split()[0] for line in lines] == CODES
    assert all(line.endswith(" holds") for line in lines)
    assert len({line.rindex("holds") for line in lines}) == 1


def test_the_command_fails_when_one_is_violated(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = public_id(PREFIXES["organization"], uuid7())
    results = [
        InvariantResult("I1", "one", True, 0, []),
        InvariantResult("I2", "two", False, 7, [wrong]),
    ]
    monkeypatch.setattr(audit, "run", lambda: results)
    out = StringIO()
    with pytest.raises(CommandError, match="violated: I2") as error:
        call_command("audit", stdout=out)
    assert error.value.returncode == 1
    first, second, example = out.getvalue().splitlines()
    assert first.endswith("holds")
    assert second.endswith("VIOLATED by 7")
    assert example.strip() == wrong
