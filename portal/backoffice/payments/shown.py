"""Rows of payments as these pages show them: with their words, tones and addresses."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.urls import reverse

from portal.backoffice.payments.words import (
    ACCOUNTS,
    EVENT_SOURCES,
    EVENT_STATES,
    OPERATION_KINDS,
    OPERATION_STATES,
    REFUND_STATES,
    TOP_UP_SOURCES,
    TOP_UP_STATES,
    TRANSFER_KINDS,
    dispute_status,
    word_of,
)
from portal.kit.ids import PREFIXES, public_id
from quotas.models import OperationKind
from quotas.payments.backoffice_queries import DisputeRow, RefundRow, TopUpRow, TransferRow
from quotas.payments.inbox_queries import EventRow, OperationRow


@dataclass(frozen=True, slots=True)
class Shown:
    """A row with the tone and the word of its state. name: what it is, where that takes a word; url: where
    what it is about is looked at."""

    row: Any
    tone: str
    state: str
    name: str = ""
    url: str = ""


@dataclass(frozen=True, slots=True)
class ShownTransfer:
    row: TransferRow
    name: str
    url: str
    legs: tuple[tuple[str, int], ...]


def shown_top_ups(rows: Iterable[TopUpRow]) -> list[Shown]:
    return [
        Shown(row, *_badge(TOP_UP_STATES[row.state]), name=str(TOP_UP_SOURCES[row.source])) for row in rows
    ]


def shown_refunds(rows: Iterable[RefundRow]) -> list[Shown]:
    return [
        Shown(row, *_badge(REFUND_STATES[row.state]), url=f"{top_up_url(row.top_up_id)}#{row.public_id}")
        for row in rows
    ]


def shown_disputes(rows: Iterable[DisputeRow]) -> list[Shown]:
    return [Shown(row, *dispute_status(row.status)) for row in rows]


def shown_events(rows: Iterable[EventRow]) -> list[Shown]:
    return [Shown(row, *_badge(EVENT_STATES[row.state]), name=str(EVENT_SOURCES[row.source])) for row in rows]


def shown_operations(rows: Iterable[OperationRow]) -> list[Shown]:
    return [
        Shown(
            row,
            *_badge(OPERATION_STATES[row.state]),
            name=word_of(OPERATION_KINDS, row.kind),
            url=_subject_url(row),
        )
        for row in rows
    ]


def shown_transfers(rows: Iterable[TransferRow]) -> list[ShownTransfer]:
    return [
        ShownTransfer(
            row,
            word_of(TRANSFER_KINDS, row.kind),
            transfer_url(row.id),
            tuple((word_of(ACCOUNTS, leg.account), leg.amount_nanos) for leg in row.legs),
        )
        for row in rows
    ]


def top_up_url(top_up_id: UUID) -> str:
    return reverse("backoffice:top-up", args=[public_id(PREFIXES["top_up"], top_up_id)])


def transfer_url(transfer_id: UUID) -> str:
    """Every leg of a transfer is in the reading room."""
    return reverse("admin:quotas_ledgertransfer_change", args=[transfer_id])


def _badge(words: tuple[str, Any]) -> tuple[str, str]:
    tone, word = words
    return tone, str(word)


def _subject_url(row: OperationRow) -> str:
    about_top_ups = (OperationKind.CHECKOUT, OperationKind.EXPIRE_CHECKOUT, OperationKind.RECHARGE)
    if row.subject_id is None:
        return ""
    if row.kind in about_top_ups:
        return top_up_url(row.subject_id)
    if row.kind == OperationKind.REFUND:
        refund = public_id(PREFIXES["refund"], row.subject_id)
        return f"{reverse('backoffice:refunds')}?q={refund}"
    return ""
