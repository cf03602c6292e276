"""Whatever is wrong with a monthly invoice is named by the audit."""

from __future__ import annotations

import pytest

from portal.kit.ids import PREFIXES, public_id
from quotas import audit
from quotas.payments.postpaid import draw_up_invoices
from quotas.payments.tests.postpaid_side import (
    after_month,
    dear_model,
    invoices_of,
    make_postpaid,
    no_lag,
)
from quotas.tests.doors import admitted, settle_one
from quotas.tests.test_audit import broken, violated
from tests.database import connected
from tests.factories import admission_row, settlement_row

_UNGUARDED = "ALTER TABLE quotas_monthlyinvoice DISABLE TRIGGER quotas_guard_monthly_invoice;"
BREAKS = {
    "usage that came in behind its back": f"{_UNGUARDED} UPDATE quotas_monthlyinvoice SET cut_at = now() "
    "WHERE id = %(invoice)s",
    "a line that is gone": "ALTER TABLE quotas_monthlyinvoiceline DISABLE TRIGGER append_only;"
    " DELETE FROM quotas_monthlyinvoiceline WHERE invoice_id = %(invoice)s AND token_class = 'input'",
    "a credit that no credit note gave": f"{_UNGUARDED} UPDATE quotas_monthlyinvoice "
    "SET credited_nanos = 10000000 WHERE id = %(invoice)s",
}


@pytest.mark.parametrize("name", BREAKS)
def test_each_break_is_named(name: str, database: None, monkeypatch: pytest.MonkeyPatch) -> None:
    no_lag(monkeypatch)
    model = dear_model()
    tenant = make_postpaid(model)
    with connected("dataplane") as dataplane:
        rows = [
            admitted(dataplane, admission_row(tenant, model, prompt_bound_tokens=9_000)) for _ in range(2)
        ]
        settle_one(dataplane, settlement_row(rows[0], prompt_tokens=9_000, completion_tokens=1))
        settle_one(dataplane, settlement_row(rows[1], prompt_tokens=9_000, completion_tokens=1))
        draw_up_invoices(now=after_month(), tenant_id=tenant.id)
        late = admitted(dataplane, admission_row(tenant, model))
        settle_one(dataplane, settlement_row(late, prompt_tokens=90, completion_tokens=9))
    (invoice,) = invoices_of(tenant.id)
    with broken(BREAKS[name], {"invoice": invoice.id}):
        found = violated(audit.run(using="owner"))
    assert set(found) == {"I18"}
    assert found["I18"].examples == [public_id(PREFIXES["monthly_invoice"], invoice.id)]
    assert violated(audit.run()) == {}
