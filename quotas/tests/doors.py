"""The doors of the data plane over a blocking connection, and what a call left behind them."""

from __future__ import annotations

from typing import Any, TypeVar
from uuid import UUID

import msgspec
import psycopg

from portal.kit.batching import Busy
from portal.kit.ids import transfer_id
from quotas.admission import AdmissionAnswer, AdmissionRow, Refusal, Verdict, admit_batch
from quotas.settlement import (
    CheckpointRow,
    SettlementAnswer,
    SettlementRow,
    checkpoint_batch,
    settle_batch,
)
from tests.database import blocking, connected, rows_of

Connection = psycopg.Connection[Any]
AnswerT = TypeVar("AnswerT", AdmissionAnswer, SettlementAnswer)

RowT = TypeVar("RowT", bound=msgspec.Struct)

LEASE_S = 20


def admit(
    connection: Connection, *rows: AdmissionRow, block_ms: int = 0, lease_s: int = LEASE_S
) -> list[AdmissionAnswer | Busy]:
    return blocking(admit_batch, connection, rows, lease_s=lease_s, block_ms=block_ms)


def admitted(connection: Connection, row: AdmissionRow, *, lease_s: int = LEASE_S) -> AdmissionRow:
    """Admit one call; with `lease_s` 0 its lease is over at once."""
    answer = only(admit(connection, row, lease_s=lease_s))
    assert answer.verdict == Verdict.ADMITTED, answer
    return row


def settle(connection: Connection, *rows: SettlementRow, block_ms: int = 0) -> list[SettlementAnswer | Busy]:
    return blocking(settle_batch, connection, rows, block_ms=block_ms)


def settle_one(connection: Connection, row: SettlementRow) -> SettlementAnswer:
    return only(settle(connection, row))


def checkpoint(connection: Connection, *rows: CheckpointRow, lease_s: int = LEASE_S) -> dict[UUID, bool]:
    """The requests that still have their hold, each with whether its lease was renewed."""
    return blocking(checkpoint_batch, connection, rows, lease_s=lease_s)


def checkpoint_row(
    row: AdmissionRow, prompt: int = 0, completion: int = 0, *, cached: int = 0, reasoning: int = 0
) -> CheckpointRow:
    """What was delivered of an admitted call so far, in tokens."""
    return CheckpointRow(
        request_id=row.request_id,
        prompt_tokens=prompt,
        cached_tokens=cached,
        completion_tokens=completion,
        reasoning_tokens=reasoning,
    )


def sweep_row(row: AdmissionRow) -> SettlementRow:
    """The sweeper's settlement of a call: it brings no counts, the hold's checkpoint has them."""
    return sweep_of(row.request_id, row.tenant_id)


def sweep_of(request_id: UUID, tenant_id: UUID) -> SettlementRow:
    """As sweep_row, of a call that is known by its ids only."""
    return SettlementRow(
        request_id=request_id,
        tenant_id=tenant_id,
        source="SWEEPER",
        prompt_tokens=0,
        cached_tokens=0,
        image_tokens=0,
        completion_tokens=0,
        reasoning_tokens=0,
        basis="",
        provenance="",
        payload_sha256="",
        attempts=[],
    )


def changed(row: RowT, **fields: Any) -> RowT:
    """The row with other values in some of its fields."""
    return msgspec.structs.replace(row, **fields)


def admit_one(connection: Connection, row: AdmissionRow) -> AdmissionAnswer:
    return only(admit(connection, row))


def verdicts(answers: list[AdmissionAnswer | Busy]) -> list[Any]:
    return [answer.verdict if isinstance(answer, AdmissionAnswer) else answer for answer in answers]


def assert_refused(connection: Connection, row: AdmissionRow, reason: Refusal) -> AdmissionAnswer:
    """Refused for that reason, and nothing of it is stored."""
    answer = admit_one(connection, row)
    assert (answer.verdict, answer.reason) == (Verdict.REFUSED, reason)
    assert rows_of("quotas_inferencerequest", id=row.request_id) == []
    assert rows_of("quotas_hold", request_id=row.request_id) == []
    assert rows_of("quotas_attempt", request_id=row.request_id) == []
    return answer


def only(answers: list[AnswerT | Busy]) -> AnswerT:
    """The one answer, which is not BUSY."""
    (answer,) = answers
    assert not isinstance(answer, Busy)
    return answer


def end_lease(row: AdmissionRow) -> None:
    """Make the lease of a pending hold end a second ago, as if nobody had renewed it."""
    with connected("owner") as owner:
        cursor = owner.execute(
            "UPDATE quotas_hold SET lease_until = clock_timestamp() - interval '1 s' "
            "WHERE request_id = %s AND state = 'PENDING'",
            (row.request_id,),
        )
        assert cursor.rowcount == 1


def entries_of(row: AdmissionRow, revision: int = 1) -> dict[str, int]:
    """The legs of a usage transfer: nano-units by the kind of account."""
    known = transfer_id("USAGE", f"{row.request_id}:{revision}")
    kinds = {account["id"]: account["kind"] for account in rows_of("quotas_ledgeraccount")}
    return {
        kinds[entry["account_id"]]: entry["amount_nanos"]
        for entry in rows_of("quotas_ledgerentry", transfer_id=known)
    }


def usage_of(row: AdmissionRow) -> list[dict[str, Any]]:
    """The usage records of a call, oldest first."""
    return sorted(
        rows_of("quotas_usagerecord", request_id=row.request_id), key=lambda usage: usage["revision"]
    )


def hold_of(row: AdmissionRow) -> dict[str, Any]:
    """The hold of a call."""
    (hold,) = rows_of("quotas_hold", request_id=row.request_id)
    return hold
