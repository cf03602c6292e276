"""What was measured of deployments, what they can do, and what gateways say, on the fleet's pages."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from django.conf import settings
from django.test import Client

from models_catalog.fleet import operations
from models_catalog.fleet.commission.sums import Limits
from models_catalog.fleet.tests.rows import MEASURED
from models_catalog.models import Deployment
from portal.backoffice.tests.people import make_operator, sign_in
from portal.backoffice.tests.test_fleet_pages import Stage, last_event, refused, saved, stage, text_of, url
from portal.inference.breaker import BreakerState
from portal.inference.fleet_state import (
    STATE_KEY,
    BackendWord,
    DeploymentWord,
    GatewayWord,
    encode_word,
)
from portal.kit import valkey
from portal.kit.clock import utc_now
from tenants.operations import audit
from tenants.scope import role_scope

pytestmark = pytest.mark.usefixtures("database")

__all__ = ["stage"]


@pytest.fixture(scope="module")
def client(database: None) -> Client:
    return sign_in(make_operator())


def measure(deployment_id: UUID, **fields: Any) -> None:
    with role_scope("operator"):
        operations.record_curve(
            deployment_id=deployment_id,
            measured=MEASURED,
            limits=Limits(2000, 5.0),
            actor=audit.SYSTEM,
            reason="for the test",
            now=utc_now(),
            **({"engine_version": "0.32.0"} | fields),
        )


def test_a_deployment_that_was_never_measured_tells_the_command(client: Client, stage: Stage) -> None:
    text = text_of(client.get(url("deployment", stage.deployment)))
    assert 'data-testid="curve-empty"' in text
    assert f"python manage.py commission {stage.deployment}" in text


def test_a_measured_deployment_shows_its_curve(client: Client, stage: Stage) -> None:
    measure(stage.deployment_id)
    text = text_of(client.get(url("deployment", stage.deployment)))
    assert 'id="curve-tokens"' in text
    assert 'id="curve-ttft"' in text
    assert "2,345 ms" in text
    assert "0.32.0" in text
    assert "0.06 · 0.006 · 1" in text
    assert 'data-testid="curve-row"' not in text
    measure(stage.deployment_id, engine_version="0.33.0", note="Twice the batch")
    text = text_of(client.get(url("deployment", stage.deployment)))
    assert text.count('data-testid="curve-row"') == 2
    assert "Twice the batch" in text


def test_the_capacity_form_begins_with_what_was_measured(client: Client, stage: Stage) -> None:
    assert 'value="0.25"' in text_of(client.get(url("deployment-capacity", stage.deployment)))
    measure(stage.deployment_id)
    text = text_of(client.get(url("deployment-capacity", stage.deployment)))
    assert 'value="202"' in text
    assert 'value="0.06"' in text
    assert 'value="0.006"' in text


def test_what_a_deployment_can_do(client: Client, stage: Stage) -> None:
    page, form = url("deployment", stage.deployment), url("deployment-abilities", stage.deployment)
    assert "32,768" in text_of(client.get(page))
    values = {"quantisation": "FP8", "context_tokens": "8192", "capabilities": "vision, tools"}
    saved(client, form, values, page)
    with role_scope("operator"):
        row = Deployment.objects.get(id=stage.deployment_id)
    assert (row.quantisation, row.context_tokens, row.capabilities) == ("FP8", 8192, ["tools", "vision"])
    event = last_event("deployment", stage.deployment_id)
    assert event.action == "deployment.abilities"
    assert event.after == {"quantisation": "FP8", "context_tokens": 8192, "capabilities": ["tools", "vision"]}
    text = text_of(client.get(page))
    assert re.search(r"8,192.*? / .*?32,768", text)
    assert "tools, vision" in text
    assert 'value="vision' not in text_of(client.get(form))
    saved(client, form, {"quantisation": "", "has_none": "on"}, page)
    with role_scope("operator"):
        assert Deployment.objects.get(id=stage.deployment_id).capabilities == []
    saved(client, form, {"quantisation": ""}, page)
    with role_scope("operator"):
        row = Deployment.objects.get(id=stage.deployment_id)
    assert (row.quantisation, row.context_tokens, row.capabilities) == ("", None, None)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"capabilities": "Tools!"}, "small letters"),
        ({"capabilities": "tools", "has_none": "on"}, "Either name capabilities"),
        ({"context_tokens": "0"}, "greater than or equal to 1"),
    ],
)
def test_what_a_deployment_cannot_be_said_to_do(
    client: Client, stage: Stage, values: dict[str, str], words: str
) -> None:
    refused(client, url("deployment-abilities", stage.deployment), values, words)


@pytest.fixture
def say() -> Iterator[Any]:
    """Has a gateway say something of a stage's backend; it is unsaid afterwards."""
    reader = valkey.connect_sync(settings.VALKEY_URL)
    fields: list[str] = []

    def speak(stage: Stage, backend: BackendWord, deployment: DeploymentWord) -> None:
        word = GatewayWord(
            "gateway-1:7", time.time(), {stage.backend_id: backend}, {stage.deployment_id: deployment}
        )
        fields.append(f"test-{stage.backend}")
        reader.hset(STATE_KEY, fields[-1], encode_word(word))

    yield speak
    if fields:
        reader.hdel(STATE_KEY, *fields)
    reader.close()


WELL = DeploymentWord(BreakerState.CLOSED, "", 5.0, 3, 1.25, 0.5, 0)


def test_what_gateways_say_of_a_backend(client: Client, stage: Stage, say: Any) -> None:
    page = url("backend", stage.backend)
    assert 'data-testid="gateways-empty"' in text_of(client.get(page))
    say(stage, BackendWord(False, "", 5.0), WELL)
    text = text_of(client.get(page))
    assert "gateway-1:7" in text
    assert ">125<" in text
    assert ">50<" in text
    assert 'data-tone="ok"' in text


def test_a_backend_that_does_not_answer_is_shown_with_the_reason(
    client: Client, stage: Stage, say: Any
) -> None:
    say(stage, BackendWord(True, "no answer in time", 12.0), WELL)
    text = text_of(client.get(url("backend", stage.backend)))
    assert "no answer in time" in text
    assert "Does not answer" in text_of(client.get(url("fleet")))


def test_a_deployment_that_is_left_alone_is_shown_with_the_reason(
    client: Client, stage: Stage, say: Any
) -> None:
    opened = DeploymentWord(BreakerState.OPEN, "UNREACHABLE", 12.0, 0, 1.0, 1.0, 4)
    say(stage, BackendWord(False, "", 5.0), opened)
    text = text_of(client.get(url("backend", stage.backend)))
    assert "could not be reached" in text
    assert ">4<" in text
    assert "Left alone" in text_of(client.get(url("pool", stage.pool)))


def test_pages_are_there_without_valkey(
    client: Client, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "portal.backoffice.fleet.gateways._client", lambda: valkey.connect_sync("redis://127.0.0.1:1/0")
    )
    assert 'data-testid="gateways-unknown"' in text_of(client.get(url("backend", stage.backend)))
    assert client.get(url("fleet")).status_code == 200
