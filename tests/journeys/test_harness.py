"""The journeys' own tools: what they promise to hear they do hear."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, Route, expect

from tests.journeys.accessibility import find_violations, unreachable_by_keyboard
from tests.journeys.visits import Visits

POLICY = "default-src 'none'; script-src 'self'; connect-src 'self'"


def show(page: Page, body: str, *, headers: dict[str, str] | None = None, status: int = 200) -> None:
    """Answers one address of the portal with this body, and goes there."""

    def answer(route: Route) -> None:
        html = f"<!doctype html><html lang=en><title>Harness</title><main><h1>Harness</h1>{body}</main>"
        route.fulfill(
            status=status, content_type="text/html; charset=utf-8", body=html, headers=headers or {}
        )

    page.route("**/harness", answer)
    page.goto("/harness")


@pytest.mark.parametrize(
    ("body", "heard"),
    [
        ("<script>console.error('oh no')</script>", "console error: oh no"),
        ("<script>setTimeout(() => nothing.there)</script>", "uncaught"),
        ("<img src='/harness-missing.png' alt=''>", "404"),
        ("<img src='http://elsewhere.example/x.png' alt=''>", "another site was asked"),
    ],
)
def test_what_goes_wrong_in_a_page_is_heard(visits: Visits, body: str, heard: str) -> None:
    page = visits.open()
    show(page, f"<link rel=icon href='data:,'>{body}")
    page.wait_for_load_state("networkidle")
    expect(page.locator("h1")).to_be_visible()
    complaints, visits.complaints.heard = visits.complaints.heard, []
    assert any(heard in complaint for complaint in complaints), complaints


def test_a_breach_of_the_policy_is_heard(visits: Visits) -> None:
    page = visits.open()
    show(page, "<p style='color: red'>x</p>", headers={"Content-Security-Policy": POLICY})
    complaints, visits.complaints.heard = visits.complaints.heard, []
    assert any("content security policy: style-src" in complaint for complaint in complaints), complaints


def test_what_is_expected_is_let_pass(visits: Visits) -> None:
    visits.complaints.expect("status of 404")
    show(visits.open(), "", status=404)


def test_barriers_are_found(visits: Visits) -> None:
    page = visits.open()
    show(page, "<link rel=icon href='data:,'><img src='data:,'><p id=grey>faint</p>")
    page.eval_on_selector("#grey", "element => { element.style.color = '#ccc'; }")
    page.wait_for_load_state()
    assert {violation.rule for violation in find_violations(page)} == {"image-alt", "color-contrast"}


def test_what_the_keyboard_does_not_reach_is_found(visits: Visits) -> None:
    page = visits.open()
    show(
        page,
        "<a href='#'>one</a><button tabindex=-1>two</button><button>three</button>",
    )
    assert unreachable_by_keyboard(page) == ["button two"]
