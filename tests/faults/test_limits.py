"""Quotas and budgets over two gateway processes: exactly as many calls pass as they allow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2 as httpx
import pytest

from devstack.engines.testing import sim
from portal.kit.money import parse_amount
from quotas.models import BUDGET_KINDS, LimitKind
from quotas.tests.limit_rows import set_limit, uses_of
from tests.database import rows_of
from tests.faults.conftest import SetStage
from tests.faults.evidence import assert_audit_holds, wait_nothing_held
from tests.faults.stage import Stage
from tests.faults.streams import StreamClient, chat_body, join_all, many_connections
from tests.gateway_process import RunningGateway, client, running_gateway
from tests.waiting import wait_for

CALLS = 64
ALLOWED = 7
TOKENS = 600
STATUS = {LimitKind.TOKENS_MONTH: (429, "quota_exceeded"), LimitKind.MONEY_MONTH: (402, "budget_exceeded")}

Gateways = tuple[RunningGateway, RunningGateway]


@pytest.fixture(scope="module")
def gateways(database: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateways]:
    folder = tmp_path_factory.mktemp("gateways")
    with running_gateway(folder) as one, running_gateway(folder) as two:
        yield one, two


def body(stage: Stage) -> dict[str, Any]:
    """A call that goes on for as long as nobody leaves."""
    return chat_body(stage.slug, "count " + sim(tokens=TOKENS, rate=20), max_tokens=TOKENS)


def refusal(gateway: RunningGateway, stage: Stage) -> httpx.Response:
    with client(gateway, stage.token) as http:
        return http.post("/chat/completions", json=body(stage))


def reserve_of(kind: LimitKind, error: dict[str, Any]) -> int:
    """What one of these calls reserves, as its refusal says."""
    return parse_amount(error["needed"]) if kind in BUDGET_KINDS else int(error["needed"])


def begin(gateways: Gateways, stage: Stage, http: httpx.Client, count: int) -> list[StreamClient]:
    """So many calls at once, over the gateways in turn."""
    clients = [
        StreamClient(gateways[number % 2].api_base, stage.token, body(stage), http=http)
        for number in range(count)
    ]
    for each in clients:
        each.start()
    return clients


def assert_counters_are_the_rollups(stage: Stage, kind: LimitKind) -> None:
    """All calls have ended: nothing is reserved, and used is what was metered."""
    wait_nothing_held(stage.tenant_id)
    rollups = rows_of("quotas_usagerollup", tenant_id=stage.tenant_id)
    tokens = sum(row["prompt_tokens"] + row["completion_tokens"] for row in rollups)
    charged_nanos = sum(row["charged_nanos"] for row in rollups)
    assert tokens > 0
    used = {use for place, use in uses_of(stage.tenant_id).items() if place[2] == kind}
    assert used == {(charged_nanos if kind in BUDGET_KINDS else tokens, 0)}
    assert_audit_holds()


def next_month() -> datetime:
    first = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return (first + timedelta(days=31)).replace(day=1)


@pytest.mark.parametrize("kind", STATUS)
def test_parallel_calls_over_two_gateways_do_not_slip_past(
    kind: LimitKind, set_stage: SetStage, gateways: Gateways
) -> None:
    stage = set_stage("llamacpp", granted="100.00")
    status, code = STATUS[kind]
    set_limit(stage.tenant_id, kind, 0, api_key_id=stage.tenant.key.id)
    first = refusal(gateways[0], stage)
    assert (first.status_code, first.json()["error"]["code"]) == (status, code)
    reserve = reserve_of(kind, first.json()["error"])
    value = ALLOWED * reserve + reserve // 2
    set_limit(stage.tenant_id, kind, value, api_key_id=stage.tenant.key.id)

    with many_connections() as http:
        clients = begin(gateways, stage, http, CALLS)
        try:
            # Nobody who was admitted ends meanwhile, so no room comes back.
            wait_for(
                lambda: all(each.status is not None for each in clients), 60, "an answer to each of the calls"
            )
            refused = [each for each in clients if each.status != 200]
            join_all(refused)
            assert Counter(each.status for each in clients) == {200: ALLOWED, status: CALLS - ALLOWED}
            assert all(each.is_alive() for each in clients if each.status == 200)
        finally:
            for each in clients:
                each.leave()
            join_all(clients)

    for each in refused:
        limit = each.error["limit"]
        assert (each.error["code"], each.error["type"]) == (code, "insufficient_quota")
        assert (limit["kind"], limit["scope"]) == (kind.value, "key")
        assert limit["resets_at"] == f"{next_month():%Y-%m-%dT%H:%M:%S.000Z}"
        shown = parse_amount(limit["pending"]) if kind in BUDGET_KINDS else limit["pending"]
        assert shown == ALLOWED * reserve
        assert 0 < each.error["max_tokens_that_fit"] < TOKENS
        assert f"{next_month():%Y-%m-%d} 00:00 UTC" in each.error["message"]
        # Money comes back by paying or raising, not by waiting a little; a quota says how long.
        assert (each.retry_after is None) == (kind in BUDGET_KINDS)
    print(f"{kind}: {ALLOWED} of {CALLS} passed; refused with: {refused[0].error['message']}")
    assert_counters_are_the_rollups(stage, kind)


@pytest.mark.parametrize("kind", STATUS)
def test_a_limit_lowered_below_its_use_ends_no_call(
    kind: LimitKind, set_stage: SetStage, gateways: Gateways
) -> None:
    stage = set_stage("llamacpp", granted="100.00")
    set_limit(stage.tenant_id, kind, 10**15)
    text = chat_body(stage.slug, "count " + sim(tokens=60, rate=30), max_tokens=60)
    with many_connections() as http:
        clients = [
            StreamClient(gateways[number % 2].api_base, stage.token, text, http=http) for number in range(4)
        ]
        for each in clients:
            each.start()
        try:
            wait_for(lambda: all(each.words > 0 for each in clients), 30, "a word in each stream")
            set_limit(stage.tenant_id, kind, 1)
            for gateway in gateways:
                answer = refusal(gateway, stage)
                assert (answer.status_code, answer.json()["error"]["code"]) == STATUS[kind]
            assert all(each.is_alive() for each in clients)
        finally:
            join_all(clients)
    assert [(each.ending, each.words) for each in clients] == [("done", 60)] * 4
    assert refusal(gateways[0], stage).status_code == STATUS[kind][0]
    assert_counters_are_the_rollups(stage, kind)


def test_what_is_said_to_fit_fits(set_stage: SetStage, gateways: Gateways) -> None:
    stage = set_stage("llamacpp", granted="100.00")
    set_limit(stage.tenant_id, LimitKind.TOKENS_MONTH, 500, model_id=stage.model.id)
    asked = chat_body(stage.slug, "count " + sim(tokens=3, rate=0), max_tokens=TOKENS, stream=False)
    with client(gateways[0], stage.token) as one, client(gateways[1], stage.token) as two:
        refused = one.post("/chat/completions", json=asked)
        error = refused.json()["error"]
        fits = error["max_tokens_that_fit"]
        one_more = two.post("/chat/completions", json=asked | {"max_tokens": fits + 1})
        answer = two.post("/chat/completions", json=asked | {"max_tokens": fits})
    assert (refused.status_code, error["limit"]["scope"]) == (429, "model")
    assert 0 < int(refused.headers["retry-after"]) <= 31 * 86_400 + 60
    assert f"Lower max_tokens to {fits}" in error["message"]
    assert one_more.status_code == 429
    assert answer.status_code == 200, answer.text
    assert_counters_are_the_rollups(stage, LimitKind.TOKENS_MONTH)
