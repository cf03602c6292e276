"""The official OpenAI SDK against a gateway with a real model: what it gets, and what it is charged."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from portal.kit.ids import PREFIXES, parse_public_id
from tests.clients.real_model import RealModel
from tests.database import rows_of
from tests.factories import ModelFixture, TenantFixture, enable, make_model, make_tenant
from tests.gateway_process import RunningGateway
from tests.waiting import wait_for

# Prices that leave a rounding in each line.
PRICES = {"input": 333_333_333, "cached_input": 33_333_337, "output": 1_234_567_891}
ASK: list[Any] = [{"role": "user", "content": "Name three colours."}]


def cost_nanos(usage: openai.types.CompletionUsage) -> int:
    """Tokens times price, each line rounded half up, once."""
    cached = (usage.prompt_tokens_details.cached_tokens or 0) if usage.prompt_tokens_details else 0
    lines = {
        "input": usage.prompt_tokens - cached,
        "cached_input": cached,
        "output": usage.completion_tokens,
    }
    return sum((tokens * PRICES[name] + 500_000) // 1_000_000 for name, tokens in lines.items())


@pytest.fixture(scope="module")
def model(real_model: RealModel) -> ModelFixture:
    return make_model(
        backend_id=real_model.backend_id,
        upstream_model=real_model.upstream_model,
        prices=PRICES,
        context_tokens=2048,
        max_output_tokens=512,
        default_output_cap_tokens=64,
    )


@pytest.fixture
def tenant(model: ModelFixture) -> TenantFixture:
    tenant = make_tenant()
    enable(tenant, model)
    return tenant


@pytest.fixture
def sdk(gateway: RunningGateway, tenant: TenantFixture) -> Iterator[openai.OpenAI]:
    with make_sdk(gateway, tenant.key.token) as client:
        yield client


def make_sdk(gateway: RunningGateway, token: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=gateway.api_base, api_key=token, max_retries=0, timeout=60)


def test_models(sdk: openai.OpenAI, model: ModelFixture) -> None:
    assert [listed.id for listed in sdk.models.list()] == [model.slug]
    assert sdk.models.retrieve(model.slug).owned_by == "test"
    with pytest.raises(openai.NotFoundError):
        sdk.models.retrieve("nobody/nothing")


def test_a_wrong_key(gateway: RunningGateway, model: ModelFixture) -> None:
    with make_sdk(gateway, "sk-wrong") as stranger, pytest.raises(openai.AuthenticationError) as caught:
        stranger.chat.completions.create(model=model.slug, messages=ASK)
    assert caught.value.code == "invalid_api_key"
    assert caught.value.request_id is not None
    assert caught.value.request_id.startswith("req_")


def test_an_unknown_model(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        sdk.chat.completions.create(model="nobody/nothing", messages=ASK)
    assert caught.value.code == "model_not_found"


def test_a_model_that_is_not_enabled(gateway: RunningGateway, model: ModelFixture) -> None:
    with make_sdk(gateway, make_tenant().key.token) as stranger, pytest.raises(openai.PermissionDeniedError):
        stranger.chat.completions.create(model=model.slug, messages=ASK)


def test_a_bad_request(sdk: openai.OpenAI, model: ModelFixture) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.chat.completions.create(model=model.slug, messages=ASK, extra_body={"n_predict": 5})
    assert caught.value.param == "n_predict"


def test_an_exhausted_balance(gateway: RunningGateway, model: ModelFixture) -> None:
    poor = make_tenant(granted="0.000001")
    enable(poor, model)
    with make_sdk(gateway, poor.key.token) as client, pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(model=model.slug, messages=ASK)
    assert caught.value.status_code == 402
    assert caught.value.code == "insufficient_balance"
    assert isinstance(caught.value.body, dict)
    assert caught.value.body["max_tokens_that_fit"] == 0


def test_charged_to_the_nano_unit(
    sdk: openai.OpenAI, tenant: TenantFixture, model: ModelFixture, real_model: RealModel
) -> None:
    """Plain and streamed calls, tools and formats: the bill is tokens times price, and the engine's own
    counters have moved by exactly what was metered."""
    before = real_model.counters()
    expected: dict[str, int | None] = {}

    plain = sdk.chat.completions.create(model=model.slug, messages=ASK, max_tokens=24)
    assert plain.choices[0].message.content
    assert plain.usage is not None
    expected[_request_id(plain)] = cost_nanos(plain.usage)

    again = sdk.chat.completions.create(model=model.slug, messages=ASK, max_completion_tokens=9)
    assert again.usage is not None
    assert again.usage.completion_tokens == 9
    expected[_request_id(again)] = cost_nanos(again.usage)

    for include_usage in (True, False):
        request_id, text, usage = _stream(sdk, model, include_usage=include_usage)
        assert text
        assert (usage is not None) is include_usage
        expected[request_id] = cost_nanos(usage) if usage else None

    _use_tools(sdk, model, expected)
    _use_a_schema(sdk, model, expected)

    usages = _settled(tenant, len(expected))
    charged = {row["request_id"]: row["charged_nanos"] for row in usages}
    for request_id, cost in expected.items():
        amount = charged[parse_public_id(PREFIXES["request"], request_id)]
        assert amount == cost if cost is not None else amount > 0
    for row in usages:
        assert (row["basis"], row["provenance"], row["overrun_nanos"]) == ("FINAL_USAGE", "MEASURED", 0)
        lines = (row["prompt_tokens"] - row["cached_tokens"], row["cached_tokens"], row["completion_tokens"])
        priced = zip(lines, PRICES.values(), strict=True)
        assert row["charged_nanos"] == sum((units * price + 500_000) // 1_000_000 for units, price in priced)
    (wallet,) = rows_of("quotas_wallet", tenant_id=tenant.id)
    assert wallet["granted_nanos"] == 10**9 - sum(charged.values())
    assert wallet["pending_nanos"] == 0

    after = real_model.counters()
    assert after["prompt"] - before["prompt"] == sum(row["prompt_tokens"] for row in usages)
    assert after["completion"] - before["completion"] == sum(row["completion_tokens"] for row in usages)


def _request_id(answer: openai.types.chat.ChatCompletion) -> str:
    # The SDK keeps the answer's x-request-id here.
    assert answer._request_id is not None
    return answer._request_id


def _stream(
    sdk: openai.OpenAI, model: ModelFixture, *, include_usage: bool
) -> tuple[str, str, openai.types.CompletionUsage | None]:
    options: Any = {"stream_options": {"include_usage": True}} if include_usage else {}
    text, usage = "", None
    with sdk.chat.completions.create(
        model=model.slug, messages=ASK, max_tokens=24, stream=True, **options
    ) as stream:
        request_id = stream.response.headers["x-request-id"]
        for chunk in stream:
            assert chunk.choices or include_usage
            usage = chunk.usage or usage
            text += "".join(choice.delta.content or "" for choice in chunk.choices)
    return request_id, text, usage


def _use_tools(sdk: openai.OpenAI, model: ModelFixture, expected: dict[str, int | None]) -> None:
    """The tool's schema reaches the backend: the prompt grows by it."""
    tool: Any = {
        "type": "function",
        "function": {
            "name": "look_up_weather",
            "description": "The weather of a city",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
    answer = sdk.chat.completions.create(model=model.slug, messages=ASK, max_tokens=8, tools=[tool])
    assert answer.usage is not None
    expected[_request_id(answer)] = cost_nanos(answer.usage)


def _use_a_schema(sdk: openai.OpenAI, model: ModelFixture, expected: dict[str, int | None]) -> None:
    """The answer parses and fits, which a model of this size does only when it is made to."""
    schema = {
        "type": "object",
        "properties": {"colour": {"enum": ["red", "green"]}, "bright": {"type": "boolean"}},
        "required": ["colour", "bright"],
        "additionalProperties": False,
    }
    answer = sdk.chat.completions.create(
        model=model.slug,
        messages=ASK,
        max_tokens=64,
        response_format={"type": "json_schema", "json_schema": {"name": "colour", "schema": schema}},
    )
    assert answer.usage is not None
    value = json.loads(answer.choices[0].message.content or "")
    assert set(value) == {"colour", "bright"}
    assert value["colour"] in ("red", "green")
    assert isinstance(value["bright"], bool)
    expected[_request_id(answer)] = cost_nanos(answer.usage)


def _settled(tenant: TenantFixture, count: int) -> list[dict[str, Any]]:
    """The usage of that many calls, once all of them are settled."""

    def all_of_them() -> list[dict[str, Any]]:
        rows = rows_of("quotas_usagerecord", tenant_id=tenant.id)
        return rows if len(rows) == count else []

    return wait_for(all_of_them, 10, "the settlements")


def test_leaving_a_stream(sdk: openai.OpenAI, tenant: TenantFixture, model: ModelFixture) -> None:
    """Closing the stream early ends the call; what was delivered is charged."""
    seen = 0
    with sdk.chat.completions.create(model=model.slug, messages=ASK, max_tokens=512, stream=True) as stream:
        for chunk in stream:
            seen += bool(chunk.choices and chunk.choices[0].delta.content)
            if seen == 5:
                break
    (usage,) = _settled(tenant, 1)
    assert 5 <= usage["completion_tokens"] <= 512
    (attempt,) = rows_of("quotas_attempt", tenant_id=tenant.id)
    assert attempt["outcome"] in ("CLIENT_GONE", "COMPLETED")
