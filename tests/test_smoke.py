"""The main job, once, through a real gateway and a simulated engine."""

from pathlib import Path

from devstack.engines.testing import sim, start_engine
from quotas.models import LimitKind, LimitOrigin
from tests.factories import enable, make_backend, make_model, make_tenant
from tests.gateway_process import RunningGateway, client, running_gateway
from tests.limits import limit_calls


def test_a_plain_call_is_answered(gateway: RunningGateway) -> None:
    with start_engine("llamacpp", tokens_per_s=0) as engine:
        backend_id = make_backend(engine="llamacpp", base_url=engine.url)
        tenant, model = make_tenant(), make_model(backend_id=backend_id)
        enable(tenant, model)
        with client(gateway, tenant.key.token) as http:
            answer = http.post(
                "/chat/completions",
                json={
                    "model": model.slug,
                    "messages": [{"role": "user", "content": "hello " + sim(tokens=4)}],
                },
            )
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["completion_tokens"] == 4


def test_a_rate_limit_refuses_with_the_time_to_wait(database: None, tmp_path: Path) -> None:
    with (
        start_engine("llamacpp", tokens_per_s=0) as engine,
        running_gateway(tmp_path, SLUICE_RATE_LIMIT_RPM="3") as limited,
    ):
        backend_id = make_backend(engine="llamacpp", base_url=engine.url)
        tenant, model = make_tenant(), make_model(backend_id=backend_id)
        enable(tenant, model)
        body = {"model": model.slug, "messages": [{"role": "user", "content": sim(tokens=1)}]}
        with client(limited, tenant.key.token) as http:
            answers = [http.post("/chat/completions", json=body) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert 1 <= int(answers[3].headers["retry-after"]) <= 20
    assert answers[3].json()["error"]["code"] == "rate_limit_exceeded"


def test_an_own_limit_does_not_raise_what_the_installation_allows(database: None, tmp_path: Path) -> None:
    """It was set while the installation allowed more."""
    with (
        start_engine("llamacpp", tokens_per_s=0) as engine,
        running_gateway(tmp_path, SLUICE_RATE_LIMIT_RPM="2") as limited,
    ):
        backend_id = make_backend(engine="llamacpp", base_url=engine.url)
        tenant, model = make_tenant(), make_model(backend_id=backend_id)
        enable(tenant, model)
        limit_calls(tenant.id, LimitKind.REQUESTS_RPM, 100, origin=LimitOrigin.TENANT)
        body = {"model": model.slug, "messages": [{"role": "user", "content": sim(tokens=1)}]}
        with client(limited, tenant.key.token) as http:
            answers = [http.post("/chat/completions", json=body) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[2].json()["error"]["limit"]["value"] == 2
