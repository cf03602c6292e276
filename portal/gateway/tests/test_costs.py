"""Ceilings, the cost in answers, receipts and the balance, as a program meets them on /v1."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from devstack.engines.options import FLAVOURS
from devstack.engines.testing import RunningEngine, sim
from portal.gateway.tests.endpoints import call as at_endpoint
from portal.gateway.tests.endpoints import recorded
from portal.gateway.tests.stage import (
    Answer,
    Stage,
    cost_nanos,
    held_nanos,
    make_stage,
    on,
    requests_of,
    stored,
)
from portal.kit.clock import utc_now
from portal.kit.ids import PREFIXES, public_id, uuid7
from portal.kit.money import amount_to_decimal_text, parse_amount
from quotas.models import LimitKind
from tenants.models import TenantState
from tests.factories import issue_key, make_tenant, set_state
from tests.gateway_process import RunningGateway, client
from tests.limits import limit_calls
from tests.waiting import wait_for


@pytest.fixture
def stage(gateway: RunningGateway, engines: dict[str, RunningEngine]) -> Stage:
    return make_stage(gateway, on(engines["vllm"], "vllm"))


def call(stage: Stage, body: dict[str, Any], **headers: str) -> Answer:
    """A call with further headers, whose names are written with underscores."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with client(stage.gateway, stage.tenant.key.token) as http:
        answer = http.post("/chat/completions", content=json.dumps(body), headers=named)
    found = Answer(answer.status_code, answer.headers, answer.content)
    if answer.headers["content-type"].startswith("text/event-stream"):
        found.events = [event + b"\n\n" for event in answer.content.split(b"\n\n") if event]
    return found


def get(stage: Stage, path: str, *, token: str | None = None) -> Answer:
    with client(stage.gateway, token or stage.tenant.key.token) as http:
        answer = http.get(path)
    return Answer(answer.status_code, answer.headers, answer.content)


def receipt_of(stage: Stage, answer: Answer) -> dict[str, Any]:
    """The receipt of a call, once it is settled."""

    def settled() -> dict[str, Any] | None:
        found = get(stage, f"/requests/{answer.headers['x-request-id']}")
        assert found.status == 200
        receipt: dict[str, Any] = found.json
        return receipt if receipt["is_settled"] else None

    receipt = wait_for(settled, 10, "the receipt")
    assert receipt is not None
    return receipt


# --- A ceiling ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("choices", [1, 3])
@pytest.mark.parametrize("stream", [False, True])
def test_the_cap_that_a_ceiling_leaves_goes_to_the_backend(
    stage: Stage, engines: dict[str, RunningEngine], stream: bool, choices: int
) -> None:
    """What is said to be the least and room for exactly seven tokens a choice: seven is what is asked for."""
    text = sim(tokens=500)
    refused = call(stage, stage.body(text, max_tokens=500, n=choices), x_max_cost="0.000000001")
    assert (refused.status, refused.error["code"], refused.error["param"]) == (
        400,
        "max_cost_too_low",
        "x-max-cost",
    )
    least, prompt = (parse_amount(refused.error[name]) for name in ("least_max_cost", "prompt_cost"))
    assert refused.error["prompt_cost"] in refused.error["message"]
    assert 0 < prompt < least
    assert requests_of(stage.tenant) == []

    # Output and reasoning may be delivered, of which the latter is dearer: 2,345.678917 a token.
    ceiling = amount_to_decimal_text(prompt + -(-7 * choices * 2_345_678_917 // 10**6))
    answer = call(stage, stage.body(text, max_tokens=500, n=choices, stream=stream), x_max_cost=ceiling)
    assert answer.status == 200
    kept = stored(answer.request_id)
    records = engines["vllm"].requests()[-choices:]
    bodies = [engines["vllm"].last_body(seq=record["seq"]) for record in records]
    assert [body.get("max_completion_tokens", body.get("max_tokens")) for body in bodies] == [7] * choices
    assert kept.usage is not None
    assert kept.usage["completion_tokens"] == 7 * choices
    assert kept.usage["charged_nanos"] <= kept.hold["amount_nanos"] <= parse_amount(ceiling)
    receipt = receipt_of(stage, answer)
    assert (receipt["max_cost"], receipt["output_cap_tokens"]) == (ceiling, 7)


def test_the_least_ceiling_is_admitted(stage: Stage) -> None:
    body = stage.body(sim(tokens=5))
    least = call(stage, body, x_max_cost="0.000000001").error["least_max_cost"]
    assert call(stage, body, x_max_cost=least).status == 200
    less = amount_to_decimal_text(parse_amount(least) - 1)
    assert call(stage, body, x_max_cost=less).error["code"] == "max_cost_too_low"


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "1e-3", "0.0000000001", ".5", "1,5", "NaN", "1000000.000000001", "$1"]
)
def test_what_is_no_ceiling_is_refused(stage: Stage, text: str) -> None:
    answer = call(stage, stage.body("hello"), x_max_cost=text)
    assert (answer.status, answer.error["code"], answer.error["param"]) == (
        400,
        "invalid_max_cost",
        "x-max-cost",
    )
    assert requests_of(stage.tenant) == []


# --- The cost in the answer ----------------------------------------------------------------------------


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("choices", [1, 2])
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_can_say_what_it_cost(
    gateway: RunningGateway,
    engines: dict[str, RunningEngine],
    flavour: str,
    choices: int,
    stream: bool,
) -> None:
    stage = make_stage(gateway, on(engines[flavour], flavour))
    text = sim(tokens=9, prompt=40, cached=16, reasoning=2)
    answer = call(stage, stage.body(text, n=choices, stream=stream), x_include_cost="true")
    assert answer.status == 200
    if stream:
        assert answer.is_done
        (usage,) = [chunk["usage"] for chunk in answer.chunks if chunk.get("usage")]
        assert answer.text
    else:
        usage = answer.json["usage"]
        assert len(answer.json["choices"]) == choices
    kept = stored(answer.request_id)
    assert kept.usage is not None
    assert (parse_amount(usage["cost"]), usage["currency"]) == (kept.usage["charged_nanos"], "USD")
    assert usage["completion_tokens"] == kept.usage["completion_tokens"] == 9 * choices
    assert kept.outcomes == ["COMPLETED"] * choices


@pytest.mark.parametrize("stream", [False, True])
def test_a_backend_without_counts_costs_what_was_estimated(
    gateway: RunningGateway, engines: dict[str, RunningEngine], stream: bool
) -> None:
    stage = make_stage(gateway, on(engines["generic"], "generic"))
    answer = call(stage, stage.body(sim(tokens=4, fault="no_usage"), stream=stream), x_include_cost="true")
    usage = answer.chunks[-1]["usage"] if stream else answer.json["usage"]
    kept = stored(answer.request_id)
    assert kept.usage is not None
    assert kept.usage["provenance"] == "ESTIMATED"
    assert parse_amount(usage["cost"]) == kept.usage["charged_nanos"] > 0


@pytest.mark.parametrize("endpoint", ["responses", "messages"])
def test_a_plain_answer_of_every_endpoint_can_say_it(gateway: RunningGateway, endpoint: str) -> None:
    """Cached tokens at their own price, also where the backend counts them beside the prompt."""
    with recorded(gateway, endpoint, "llamacpp", f"{endpoint}_plain") as stage:
        answer = at_endpoint(stage, endpoint, headers={"x-include-cost": "true"})
        assert answer.status == 200
        kept = stored(answer.request_id)
        assert kept.usage is not None
        charged = cost_nanos(33, 8, cached=32)
        assert kept.usage["charged_nanos"] == charged
        assert answer.json["usage"]["cost"] == amount_to_decimal_text(charged)
        assert answer.json["usage"]["output_tokens"] == 8


@pytest.mark.parametrize("endpoint", ["responses", "messages"])
def test_streams_of_other_endpoints_say_no_cost(gateway: RunningGateway, endpoint: str) -> None:
    with recorded(gateway, endpoint, "llamacpp", f"{endpoint}_stream") as stage:
        answer = at_endpoint(stage, endpoint, stream=True, headers={"x-include-cost": "true"})
        assert answer.status == 400
        assert b"cost_not_offered" in answer.body or b"x-include-cost" in answer.body
        assert b"GET /v1/requests" in answer.body
        assert requests_of(stage.tenant) == []


def test_without_the_header_no_answer_speaks_of_money(stage: Stage) -> None:
    for headers in ({}, {"x_include_cost": "false"}):
        assert "cost" not in call(stage, stage.body(sim(tokens=2)), **headers).json["usage"]
    wrong = call(stage, stage.body("hello"), x_include_cost="yes")
    assert (wrong.status, wrong.error["code"]) == (400, "invalid_include_cost")


def test_a_refusal_comes_as_ever(stage: Stage) -> None:
    answer = call(stage, stage.body(sim(fault="status:400")), x_include_cost="true")
    assert answer.status == 400
    assert stored(answer.request_id).hold["state"] == "VOIDED"


# --- Receipts ------------------------------------------------------------------------------------------


def test_a_receipt_explains_a_charge(stage: Stage) -> None:
    limit_calls(stage.tenant.id, LimitKind.MONEY_MONTH, 10**10)
    answer = call(stage, stage.body(sim(tokens=9, prompt=40, cached=16)), x_max_cost="0.05")
    receipt = receipt_of(stage, answer)
    charged = cost_nanos(40, 9, cached=16)
    assert receipt["id"] == answer.headers["x-request-id"]
    assert (receipt["model"], receipt["endpoint"]) == (stage.model.slug, "chat.completions")
    assert receipt["api_key"]["id"] == public_id(PREFIXES["api_key"], stage.tenant.key.id)
    assert (receipt["charged"], receipt["currency"]) == (amount_to_decimal_text(charged), "USD")
    assert (receipt["max_cost"], receipt["cancel_policy"]) == ("0.05", "DELIVERED")
    assert not receipt["has_broken_off"]
    assert receipt["price"]["id"] == public_id(PREFIXES["price"], stage.model.price_version_id or uuid7())
    assert receipt["hold"]["state"] == "POSTED"
    (settlement,) = receipt["settlements"]
    assert [(line["token_class"], line["units"]) for line in settlement["lines"]] == [
        ("input", 24),
        ("cached_input", 16),
        ("output", 9),
    ]
    assert settlement["usage"]["cached_tokens"] == 16
    assert recomputed(receipt) == charged
    assert {
        entry["account"]: parse_amount(entry["amount"]) for entry in settlement["transfer"]["entries"]
    } == {"GRANTED": -charged}
    (attempt,) = receipt["attempts"]
    assert attempt["deployment"] == public_id(PREFIXES["deployment"], stage.model.deployment_id)
    assert (attempt["engine"], attempt["outcome"], attempt["ordinal"]) == ("vllm", "COMPLETED", 1)
    assert attempt["duration_ms"] >= attempt["ttft_ms"] >= 0
    budget = {"kind": "MONEY_MONTH", "value": "10", "source": "OPERATOR", "model": None, "api_key": None}
    assert budget in receipt["limits"]


def recomputed(receipt: dict[str, Any]) -> int:
    """What the latest settlement's own lines come to, in nano-units, and whether everything in it adds up."""
    latest = receipt["settlements"][-1]
    due = 0
    for line in latest["lines"]:
        exact = line["units"] * parse_amount(line["price_per_million"])
        amount = (exact + 500_000) // 10**6
        assert parse_amount(line["amount"]) == amount
        due += amount if line["is_billed"] else 0
    held = parse_amount(receipt["hold"]["amount"])
    parts = [parse_amount(latest[name]) for name in ("charged", "waived", "overrun")]
    assert sum(parts) == parse_amount(latest["cost"])
    own = [parse_amount(latest[name]) for name in ("paid", "granted", "owed")]
    assert sum(own) == parts[0]
    return min(due, held)


def test_a_receipt_of_a_call_that_delivered_nothing(stage: Stage) -> None:
    answer = call(stage, stage.body(sim(fault="status:400")))
    receipt = receipt_of(stage, answer)
    assert (receipt["charged"], receipt["settlements"], receipt["hold"]["state"]) == ("0", [], "VOIDED")


@pytest.mark.parametrize(("policy", "waives"), [("DELIVERED", 0), ("INPUT", 1), ("NOTHING", 2)])
def test_a_backend_that_breaks_off_is_billed_as_the_policy_says(
    gateway: RunningGateway, engines: dict[str, RunningEngine], policy: str, waives: int
) -> None:
    stage = make_stage(gateway, on(engines["vllm"], "vllm"), cancel_policy=policy)
    text = sim(tokens=50, prompt=40, fault="reset_after:10")
    answer = call(stage, stage.body(text, stream=True))
    assert answer.chunks[-1]["error"]["code"] == "backend_failed"
    receipt = receipt_of(stage, answer)
    kept = stored(answer.request_id)
    assert kept.usage is not None
    delivered = kept.usage["completion_tokens"]
    assert delivered > 0
    full, prompt = cost_nanos(40, delivered), cost_nanos(40, 0)
    charged = (full, prompt, 0)[waives]
    assert (receipt["cancel_policy"], receipt["has_broken_off"]) == (policy, True)
    (settlement,) = receipt["settlements"]
    assert settlement["billed"] == policy
    assert parse_amount(receipt["charged"]) == recomputed(receipt) == charged
    assert parse_amount(settlement["waived"]) == full - charged
    assert held_nanos(stage.tenant) == 0


def test_what_is_anothers_does_not_exist(stage: Stage) -> None:
    answer = stage.ask(sim(tokens=2))
    stranger = make_tenant()
    own = f"/requests/{answer.headers['x-request-id']}"
    sister, _ = issue_key(stage.tenant.id)
    assert get(stage, own, token=sister.token).status == 200
    for path in (own, f"/requests/{public_id('req', uuid7())}", "/requests/nonsense", "/requests/"):
        refused = get(stage, path, token=stranger.key.token)
        assert (refused.status, refused.error["code"]) == (404, "request_not_found")
    assert get(stage, "/requests/req_7zzzzzzzzzzzzzzzzzzzzzzzzz").status == 404
    assert get(stage, "/requests/req_00000000000000000000000000").status == 404
    assert get(stage, own, token="slc_wrong").status == 401


def test_an_expired_key_reads_nothing(stage: Stage) -> None:
    answer = stage.ask(sim(tokens=2))
    key, _ = issue_key(stage.tenant.id, expires_at=utc_now() + timedelta(seconds=0.2))
    for path in (f"/requests/{answer.headers['x-request-id']}", "/balance"):

        def is_refused(path: str = path) -> bool:
            return get(stage, path, token=key.token).status == 401

        wait_for(is_refused, 10, "the end of the key")


# --- The balance ---------------------------------------------------------------------------------------


def test_the_balance_and_what_was_spent(gateway: RunningGateway, engines: dict[str, RunningEngine]) -> None:
    stage = make_stage(gateway, on(engines["vllm"], "vllm"), granted="0.5")
    before = get(stage, "/balance").json
    assert (before["currency"], before["available"], before["granted"], before["paid"]) == (
        "USD",
        "0.5",
        "0.5",
        "0",
    )
    assert (before["spent"], before["granted_expires_at"]) == ({"today": "0", "month": "0"}, None)
    limit_calls(stage.tenant.id, LimitKind.MONEY_DAY, 10**8)
    limit_calls(stage.tenant.id, LimitKind.MONEY_DAY, 10**7, model_id=stage.model.id)
    answer = stage.ask(sim(tokens=9, prompt=40))
    stored(answer.request_id)
    charged = cost_nanos(40, 9)
    after = get(stage, "/balance").json
    left = amount_to_decimal_text(5 * 10**8 - charged)
    assert (after["available"], after["total"], after["pending"]) == (left, left, "0")
    spent = amount_to_decimal_text(charged)
    assert after["spent"] == {"today": spent, "month": spent}
    everywhere, model = after["budgets"]
    assert (everywhere["scope"], everywhere["value"], everywhere["used"]) == ("organization", "0.1", spent)
    assert parse_amount(everywhere["remaining"]) == 10**8 - charged
    assert (model["scope"], model["model"], model["used"]) == ("model", stage.model.slug, spent)
    assert not model["is_exhausted"]
    assert model["resets_at"].endswith("T00:00:00Z")


def test_a_suspended_organization_still_sees_where_it_stands(stage: Stage) -> None:
    answer = stage.ask(sim(tokens=2))
    set_state(stage.tenant.id, TenantState.SUSPENDED)
    assert get(stage, "/balance").status == 200
    assert get(stage, f"/requests/{answer.headers['x-request-id']}").status == 200
    assert stage.ask(sim(tokens=2)).status == 403


def test_addresses_without_a_key(stage: Stage) -> None:
    for path in ("/balance", f"/requests/{public_id('req', uuid7())}"):
        assert get(stage, path, token="nonsense").status == 401
