"""What stands in an address or a header and no database can store is a mistake of the caller's, not ours."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from django.db import OperationalError

from portal.api.tests.stage import open_stage, problem_of
from tenants.operations import audit
from tests.database import rows_of

pytestmark = pytest.mark.usefixtures("database")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/operator/tenants/%00"),
        ("POST", "/operator/tenants/%00/suspend"),
        ("POST", "/operator/credit-orders/a%00b/approve"),
    ],
)
def test_a_refusal_is_written_down_whatever_the_address_holds(method: str, path: str) -> None:
    stage = open_stage()
    problem_of(stage.program.call(method, path), 403, "not-allowed")
    (event,) = rows_of("tenants_auditevent", actor_id=stage.owner.id, outcome="REFUSED")
    assert event["target"] == ("ab" if "a%00b" in path else "")


@pytest.mark.parametrize("path", ["/keys/%00", "/limits/%00", "/requests/%00", "/models/a/%00"])
def test_an_address_of_nothing_is_not_found(path: str) -> None:
    method = "DELETE" if path.startswith("/limits") else "GET"
    problem_of(open_stage().program.call(method, path), 404, "not-found")


def test_a_refusal_that_cannot_be_written_down_is_a_problem_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(**_: object) -> bool:
        raise OperationalError("the database is away")

    monkeypatch.setattr(audit, "record_refusal", away)
    problem_of(open_stage(raises=False).program.get("/operator/tenants"), 503, "unavailable")


@pytest.mark.parametrize("length", ["\xb2", "-1", "1e3", "x"])
def test_a_length_that_is_no_number_is_refused(length: str) -> None:
    program = open_stage().program
    headers: Mapping[str, str] = {"Authorization": f"Bearer {program.token}"}
    answer = program.client.generic(
        "POST",
        "/api/v1/keys",
        b"{}",
        content_type="application/json",
        headers=headers,
        CONTENT_LENGTH=length,
    )
    problem_of(answer, 413, "body-too-large")
