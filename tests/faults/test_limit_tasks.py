"""The tasks of limits, run by a real worker: under roles that may, and the same when run twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from quotas.limits.tests.stage import UNIT, make_bounded, make_tier, open_in_test_currency, spend
from quotas.models import LimitKind
from tests.celery_process import running_celery
from tests.database import rows_of
from tests.factories import enable, make_model
from tests.faults.test_celery_tasks import run_task

CURRENCY = "XTA"

pytestmark = pytest.mark.usefixtures("database")


def test_alerts_and_promotions_are_found_by_the_worker(tmp_path: Path) -> None:
    model, bounded = make_model(), make_bounded(granted="1.00")
    enable(bounded.tenant, model)
    bounded.set_own(LimitKind.MONEY_DAY, 1_000_000, alert_percents=(50,))
    spend(bounded.tenant, model, tokens=600)
    make_tier(rules={CURRENCY: 7 * UNIT})
    tenant_id, owner = open_in_test_currency(paid_nanos=7 * UNIT, currency=CURRENCY)
    with running_celery(tmp_path) as celery:
        for _ in range(2):
            for task in ("raise_budget_alerts", "raise_all_budget_alerts", "promote_tiers"):
                run_task(celery, task, "default")
    assert len(rows_of("quotas_budgetalert", tenant_id=bounded.id)) == 1
    assert len(rows_of("quotas_tierassignment", tenant_id=tenant_id)) == 1
    for person in (bounded.owner, owner):
        assert len(rows_of("tenants_outboxmessage", role="dataplane", to_email=person.email)) == 1
