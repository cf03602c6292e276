"""Commissioning a deployment of a simulated engine whose speed is known."""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connections, transaction

from devstack.engines.testing import RunningEngine, start_engine
from models_catalog.fleet.measured import CurveRow, curve_history, newest_curves
from models_catalog.models import DeploymentCurve
from portal.kit.ids import PREFIXES, public_id
from quotas.tests.doors import Connection, admitted
from tenants.models import AuditEvent
from tenants.scope import role_scope
from tests.factories import ModelFixture, admission_row, enable, make_backend, make_model, make_tenant

pytestmark = pytest.mark.usefixtures("database")

ALONE_TOKENS_PER_S, TOTAL_TOKENS_PER_S, SLOTS = 100.0, 400.0, 8


@pytest.fixture(scope="module")
def engine() -> Iterator[RunningEngine]:
    with start_engine(
        "vllm",
        model="upstream",
        version="0.32.0",
        tokens_per_s=ALONE_TOKENS_PER_S,
        total_tokens_per_s=TOTAL_TOKENS_PER_S,
        prefill_tokens_per_s=4000,
        slots=SLOTS,
    ) as running:
        yield running


def make_deployment(engine: RunningEngine) -> ModelFixture:
    return make_model(backend_id=make_backend(engine="vllm", base_url=engine.url))


def commission(model: ModelFixture, *options: str) -> str:
    out = StringIO()
    small = ("--prompt-tokens=96", "--output-tokens=16", "--max-concurrency=32", "--max-seconds=60")
    deployment = public_id(PREFIXES["deployment"], model.deployment_id)
    call_command("commission", deployment, *small, *options, stdout=out)
    return out.getvalue()


def newest(model: ModelFixture) -> CurveRow:
    with role_scope("operator"):
        return newest_curves(deployment_ids=[model.deployment_id])[model.deployment_id]


@pytest.fixture(scope="module")
def measured(engine: RunningEngine, database: None) -> tuple[ModelFixture, str]:
    model = make_deployment(engine)
    return model, commission(model)


def test_the_curve_is_that_of_the_engine(measured: tuple[ModelFixture, str], engine: RunningEngine) -> None:
    model, told = measured
    print(told)
    row = newest(model)
    points = {point.concurrency: point for point in row.curve.points}
    assert list(points) == sorted(points)
    assert points[1].inter_token_us == pytest.approx(1e6 / ALONE_TOKENS_PER_S, rel=0.3)
    assert points[8].output_tokens_per_s > 2 * points[1].output_tokens_per_s
    assert row.curve.peak_tokens_per_s < TOTAL_TOKENS_PER_S
    # Twice as many calls as it has slots wait for one, and carry nothing more.
    assert points[16].ttft_p95_ms > 2 * points[8].ttft_p95_ms
    assert 2 <= row.curve.certified_concurrency <= 2 * SLOTS
    assert row.curve.prefill_ns == pytest.approx(1e9 / 4000, rel=0.5)
    assert row.curve.input_weight > 0
    assert row.curve.prompt_tokens == pytest.approx(96, rel=0.2)
    assert row.engine_version == "0.32.0"
    assert "Certified:" in told
    assert row.public_id in told


def test_it_says_what_it_has_spent(measured: tuple[ModelFixture, str], engine: RunningEngine) -> None:
    row, totals = newest(measured[0]), engine.totals()
    assert 0 < row.spent_output_tokens <= totals["generated_tokens"]
    assert 0 < row.spent_prompt_tokens <= totals["prompt_tokens"]
    with role_scope("operator"):
        target = public_id(PREFIXES["deployment"], measured[0].deployment_id)
        event = AuditEvent.objects.get(action="deployment.commission", target=target)
    assert event.after is not None
    assert event.after["spent_output_tokens"] == row.spent_output_tokens


def test_a_rerun_shows_what_tuning_earned(measured: tuple[ModelFixture, str]) -> None:
    told = commission(measured[0], "--compare", "--note=Twice the batch", "--max-seconds=20")
    assert re.search(r"most tokens/s .* → .* %", told)
    assert "1 at a time: tokens/s" in told
    with role_scope("operator"):
        history = curve_history(deployment_id=measured[0].deployment_id)
    newest_row, _ = history
    assert newest_row.note == "Twice the batch"


def test_without_an_earlier_curve_there_is_nothing_to_compare(engine: RunningEngine) -> None:
    told = commission(make_deployment(engine), "--compare", "--max-concurrency=1")
    assert "no earlier curve" in told


def test_its_time_is_bounded(engine: RunningEngine) -> None:
    model = make_deployment(engine)
    told = commission(model, "--max-seconds=3", "--output-tokens=400")
    assert "the time was over" in told or "Ended" in told
    assert newest(model).took_ms < 5_000


def test_a_backend_with_calls_is_left_alone(engine: RunningEngine, dataplane: Connection) -> None:
    tenant, model = make_tenant(), make_deployment(engine)
    enable(tenant, model)
    admitted(dataplane, admission_row(tenant, model))
    with pytest.raises(CommandError, match="1 calls now"):
        commission(model)
    assert "Certified" in commission(model, "--force", "--max-concurrency=1")


def test_what_cannot_be_measured() -> None:
    model = make_model(backend_id=make_backend(engine="vllm", base_url="http://127.0.0.1:9"))
    with pytest.raises(CommandError, match="does not serve a single call"):
        commission(model)
    with pytest.raises(CommandError, match="no such deployment"):
        call_command("commission", public_id(PREFIXES["deployment"], model.id))
    with pytest.raises(CommandError, match="by its id"):
        call_command("commission", "vendor/model")
    with pytest.raises(CommandError, match="must be from 1"):
        call_command("commission", public_id(PREFIXES["deployment"], model.id), "--max-seconds=0")


def test_a_curve_stays_as_it_is(measured: tuple[ModelFixture, str]) -> None:
    curves = DeploymentCurve.objects.filter(deployment_id=measured[0].deployment_id)
    with role_scope("owner"):
        for change in (lambda: curves.update(prompt_tokens=1), curves.delete):
            with pytest.raises(DatabaseError, match="stays as it is"), transaction.atomic(using="owner"):
                change()


@pytest.mark.parametrize(
    "broken",
    [
        {"concurrency": []},
        {"concurrency": [2, 1]},
        {"concurrency": [1, 1]},
        {"concurrency": [1, 2, 3]},
        {"ttft_p50_ms": [11, 11]},
        {"inter_token_us": [1, 0]},
        {"output_tokens_per_s": [1.0, 0.0]},
        {"output_tokens_per_s": [1.0, float("nan")]},
        {"certified_concurrency": 0},
        {"cached_weight": 10**7},
    ],
)
def test_the_database_takes_whole_curves_only(engine: RunningEngine, broken: dict[str, Any]) -> None:
    whole: dict[str, Any] = {
        "deployment_id": make_deployment(engine).deployment_id,
        "concurrency": [1, 2],
        "ttft_p50_ms": [10, 10],
        "ttft_p95_ms": [10, 10],
        "inter_token_us": [1000, 1000],
        "output_tokens_per_s": [10.0, 20.0],
        "prompt_tokens": 10,
        "output_tokens": 10,
        "prefill_ns": 0,
        "limit_ttft_p95_ms": 1000,
        "limit_call_tokens_per_s": 1.0,
        "certified_concurrency": 2,
        "certified_tokens_per_s": 20,
        "input_weight": 250,
        "spent_prompt_tokens": 0,
        "spent_output_tokens": 0,
        "took_ms": 1,
    }
    with role_scope("operator"):
        DeploymentCurve.objects.create(**whole)
        with pytest.raises(DatabaseError), transaction.atomic(using="operator"):
            DeploymentCurve.objects.create(**(whole | broken))


def test_gateways_hear_of_a_new_curve(engine: RunningEngine) -> None:
    def revision() -> int:
        with role_scope("operator"), connections["operator"].cursor() as cursor:
            cursor.execute("SELECT revision FROM models_catalog_catalogrevision")
            return int(cursor.fetchone()[0])

    model = make_deployment(engine)
    before = revision()
    commission(model, "--max-concurrency=1")
    assert revision() > before
