"""What a caller may say about money: a ceiling on one call, and that its answer names what it cost."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import msgspec
import psycopg

from models_catalog.engines import Endpoint
from portal.inference.database import LOOK_UP_TIMEOUT_S, Database, in_time
from portal.inference.errors import CallError, bad_request
from portal.kit.money import InvalidAmount, amount_to_decimal_text, parse_amount
from quotas.metering.facts import UsageFacts
from quotas.settlement import CallCost, cost_of_call

logger = logging.getLogger(__name__)

MAX_COST_HEADER: Final = b"x-max-cost"
INCLUDE_COST_HEADER: Final = b"x-include-cost"
# A million units: far beyond any call, and far below what 64 bits hold.
MAX_CEILING_NANOS: Final = 10**15

# Those whose final usage event is ours to write.
STREAMS_WITH_COST: Final = (Endpoint.CHAT, Endpoint.COMPLETIONS)

_decode = msgspec.json.Decoder(dict[str, Any]).decode


@dataclass(frozen=True, slots=True)
class CostOptions:
    """max_cost_nanos: the most that the call may cost, in the wallet's currency; None is no ceiling.
    includes_cost: the answer's usage says what the call cost."""

    max_cost_nanos: int | None = None
    includes_cost: bool = False


NO_OPTIONS: Final = CostOptions()


def read_cost_options(
    header: Callable[[bytes], bytes | None], *, endpoint: Endpoint, stream: bool
) -> CostOptions:
    """What the headers of a call say. Raises CallError 400, naming the header."""
    ceiling, wish = header(MAX_COST_HEADER), header(INCLUDE_COST_HEADER)
    if ceiling is None and wish is None:
        return NO_OPTIONS
    options = CostOptions(None if ceiling is None else _ceiling(ceiling), _wish(wish))
    if options.includes_cost and stream and endpoint not in STREAMS_WITH_COST:
        raise _wrong(
            "cost_not_offered",
            "Streams of this endpoint do not say what they cost; GET /v1/requests/{id} does.",
            INCLUDE_COST_HEADER,
        )
    return options


def _ceiling(text: bytes) -> int:
    try:
        amount_nanos = parse_amount(text.decode("ascii"))
    except (UnicodeDecodeError, InvalidAmount):
        amount_nanos = 0
    if not 0 < amount_nanos <= MAX_CEILING_NANOS:
        raise _wrong(
            "invalid_max_cost",
            "x-max-cost is a plain decimal number above 0 and at most 1000000, with at most nine decimals, "
            "in the currency of the organization's balance.",
            MAX_COST_HEADER,
        )
    return amount_nanos


def _wish(text: bytes | None) -> bool:
    match (text or b"false").lower():
        case b"true" | b"1":
            return True
        case b"false" | b"0":
            return False
    raise _wrong("invalid_include_cost", "x-include-cost is 'true' or 'false'.", INCLUDE_COST_HEADER)


def _wrong(code: str, message: str, header: bytes) -> CallError:
    return bad_request(message, param=header.decode(), code=code)


async def cost_of(
    database: Database, *, request_id: UUID, tenant_id: UUID, facts: UsageFacts
) -> CallCost | None:
    """What settlement will charge for a call that has delivered its whole answer. None when the database does
    not say in time: the answer is there and goes out without, and the receipt has it a moment later."""

    async def ask() -> CallCost | None:
        async with database.connection() as connection:
            return await cost_of_call(connection, request_id=request_id, tenant_id=tenant_id, facts=facts)

    try:
        return await in_time(ask(), LOOK_UP_TIMEOUT_S)
    except psycopg.Error as error:
        logger.warning("inference.cost.not_asked", extra={"reason": type(error).__name__})
        return None


def cost_members(cost: CallCost | None) -> dict[str, str | None]:
    """The members that a usage object gets: an exact decimal text and its currency, or nulls."""
    if cost is None:
        return {"cost": None, "currency": None}
    return {"cost": amount_to_decimal_text(cost.charged_nanos), "currency": cost.currency}


def with_cost(body: bytes, told: Mapping[str, str | None]) -> bytes:
    """A whole answer, of any endpoint, whose usage says what it cost."""
    answer = _decode(body)
    usage = answer.get("usage")
    known: Mapping[str, Any] = usage if isinstance(usage, dict) else {}
    answer["usage"] = {**known, **told}
    return msgspec.json.encode(answer)
