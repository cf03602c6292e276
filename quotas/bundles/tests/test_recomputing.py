"""The checker's own arithmetic says what the database charged, whatever the price and the call."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models_catalog.models import PriceVersion
from models_catalog.tests.price_drafts import Line, make_draft, price_lines
from portal.kit.clock import utc_now
from quotas.admission import AdmissionRow, Verdict
from quotas.bundles.tests.checker import problems_of
from quotas.bundles.tests.stage import DAY, make_bundle, public_key
from quotas.models import AttemptOutcome, Basis
from quotas.tests.doors import (
    Connection,
    admit,
    checkpoint,
    checkpoint_row,
    end_lease,
    settle,
    settle_one,
    sweep_row,
)
from tenants.scope import role_scope
from tests.factories import (
    ModelFixture,
    TenantFixture,
    admission_row,
    enable,
    make_model,
    make_tenant,
    settlement_row,
    void_row,
)

pytestmark = pytest.mark.usefixtures("database")

ZONES = ("UTC", "Asia/Shanghai", "America/St_Johns")
WEEK = 10_080
CONTEXT = 100_000


@st.composite
def uses(draw: st.DrawFn) -> dict[str, Any]:
    """Tokens of a call, whose parts are within their whole."""
    prompt = draw(st.one_of(st.integers(1, 20), st.integers(0, CONTEXT)))
    image = draw(st.integers(0, prompt))
    completion = draw(st.integers(0, 3_000))
    return {
        "prompt_tokens": prompt,
        "image_tokens": image,
        "cached_tokens": draw(st.integers(0, prompt - image)),
        "completion_tokens": completion,
        "reasoning_tokens": draw(st.integers(0, completion)),
    }


@st.composite
def weeks(draw: st.DrawFn) -> list[tuple[str, int, int]]:
    """Windows of an hour or two, so that a clock that is wrong by hours or by a day is in another one."""
    start = draw(st.integers(0, 4))
    return [
        (name, hour * 60, hour * 60 + 60)
        for hour in range(WEEK // 60)
        if (name := {0: "night", 1: "night", 2: "weekend"}.get((hour + start) % 5))
    ]


def publish(model: ModelFixture, lines: list[Line], spans: list[tuple[str, int, int]], zone: str) -> None:
    with role_scope("operator"):
        from models_catalog.models import CatalogModel

        draft = make_draft(
            lines,
            spans=spans,
            model=CatalogModel.objects.get(id=model.id),
            time_zone=zone,
            active_from=utc_now() - DAY,
        )
        PriceVersion.objects.filter(id=draft.version_id).update(published_at=utc_now())


def finish(dataplane: Connection, row: AdmissionRow, use: dict[str, Any], how: str) -> None:
    if how == "void":
        settle_one(dataplane, void_row(row))
    elif how == "broken":
        settle_one(
            dataplane,
            settlement_row(row, **use, basis=Basis.CHECKPOINT, outcome=AttemptOutcome.CLIENT_GONE),
        )
    elif how in ("swept", "late"):
        checkpoint(dataplane, checkpoint_row(row, use["prompt_tokens"], use["completion_tokens"] // 2))
        end_lease(row)
        settle_one(dataplane, sweep_row(row))
        if how == "late":
            settle(dataplane, settlement_row(row, **use))
    elif how == "whole":
        settle_one(dataplane, settlement_row(row, **use))


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    lines=price_lines(),
    spans=weeks(),
    zone=st.sampled_from(ZONES),
    policy=st.sampled_from(["DELIVERED", "INPUT", "NOTHING"]),
    calls=st.lists(
        st.tuples(
            uses(),
            st.sampled_from(["whole", "whole", "broken", "broken", "void", "open", "swept", "late"]),
            st.sampled_from(["standard", "standard", "batch"]),
            # How much is held: sometimes less than it costs in the end.
            st.integers(1, CONTEXT),
            st.sampled_from([None, None, None, 10**6, 10**12]),
        ),
        min_size=6,
        max_size=12,
    ),
)
def test_any_price_and_any_call(
    tmp_path_factory: pytest.TempPathFactory,
    lines: list[Line],
    spans: list[tuple[str, int, int]],
    zone: str,
    policy: str,
    calls: list[tuple[dict[str, Any], str, str, int, int | None]],
) -> None:
    from tests.database import connected

    model = make_model(prices=None, context_tokens=2 * CONTEXT, cancel_policy=policy)
    publish(model, lines, spans, zone)
    tenant: TenantFixture = make_tenant(granted="1000000", paid="9000000")
    enable(tenant, model)
    admitted = 0
    with connected("dataplane") as dataplane:
        for use, how, tier, bound, ceiling in calls:
            row = admission_row(
                tenant,
                model,
                service_tier=tier,
                prompt_bound_tokens=bound,
                output_cap_tokens=500,
                max_cost_nanos=ceiling,
            )
            (answer,) = admit(dataplane, row)
            # A tier without a price, a ceiling that is too low, or more money than there is.
            if getattr(answer, "verdict", None) == Verdict.ADMITTED:
                admitted += 1
                finish(dataplane, row, use, how)
    path = make_bundle(tenant, tmp_path_factory.mktemp("bundle"))
    assert problems_of(path, public_key()) == []
    assert path.stat().st_size > 0
