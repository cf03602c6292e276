"""Where journeys about money happen: a portal of its own, with a stand-in for Stripe and a worker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from playwright.sync_api import Page, expect

from devstack import ports
from devstack.stripe_standin.testing import Standin, running_standin
from portal.kit.clock import utc_now
from quotas.models import PollCursor, TopUp
from quotas.payments.polling import EVENTS_CURSOR
from tenants.scope import role_scope
from tests.celery_process import RunningCelery, running_beat, running_celery
from tests.journeys.backstage import Backstage
from tests.journeys.hooks import go, hook
from tests.waiting import wait_for
from tests.web_process import RunningWeb, choose_port, running_web

# The lowest that settings allow: how long a poller may leave what it alone knows.
POLLS = {"SLUICE_TOP_UPS_POLL_S": "1", "SLUICE_PAYMENTS_POLL_S": "1"}
POLLING_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Till:
    """environment: what processes of this installation need to know of the stand-in."""

    web: RunningWeb
    standin: Standin
    worker: RunningCelery
    environment: dict[str, Any]


@contextmanager
def open_till(folder: Path, **environment: str) -> Iterator[Till]:
    """Web and worker that ask a stand-in, which sends its events to them. Nobody polls."""
    port = choose_port()
    url = f"http://{ports.HOST}:{port}"
    with running_standin(folder / "stripe", webhook_url=f"{url}/webhooks/stripe") as standin:
        own: dict[str, Any] = {
            "STRIPE_SECRET_KEY": standin.secret_key,
            "STRIPE_API_BASE": standin.url,
            "STRIPE_WEBHOOK_SECRETS": standin.webhook_secret,
            "PORTAL_URL": url,
            **environment,
        }
        (folder / "worker").mkdir()
        with running_web(port=port, **own) as web, running_celery(folder / "worker", **own) as worker:
            yield Till(web, standin, worker, own)


@contextmanager
def polling(till: Till, folder: Path, backstage: Backstage) -> Iterator[None]:
    """Beat asks Stripe again and again what has happened, as it always does outside tests."""
    begun_at = utc_now()
    with running_beat(folder, **{**till.environment, **POLLS}):
        wait_for(lambda: backstage(_has_polled_since, begun_at), POLLING_WITHIN_S, "the poller")
        yield


def _has_polled_since(moment: datetime) -> bool:
    with role_scope("operator"):
        return PollCursor.objects.filter(name=EVENTS_CURSOR, polled_at__gt=moment, error="").exists()


def choose_amount(page: Page, organization: str, amount: str) -> None:
    """From the billing page to the page where it is paid."""
    go(page, "console:billing", organization)
    form = hook(page, "add-credit-form")
    form.locator(f'input[name="amount"][value="{amount}"]').check()
    hook(form, "add-credit-submit").click()
    expect(hook(page, "standin-banner")).to_be_visible()


def pay(page: Page, choice: str = "card", *, closes_tab: bool = False) -> None:
    """On the stand-in's page. closes_tab: nobody is led back."""
    page.locator(f'input[name="choice"][value="{choice}"]').check()
    if closes_tab:
        hook(page, "stay").check()
    hook(page, "pay").click()


def session_of(tenant_id: UUID) -> str:
    """The newest session at Stripe that the organization has."""
    with role_scope("operator"):
        newest: Any = TopUp.objects.filter(tenant_id=tenant_id).order_by("-id").first()
    return str(newest.session_id)


def top_ups_of(tenant_id: UUID) -> list[tuple[str, int]]:
    """State and amount of each, oldest first."""
    with role_scope("operator"):
        return list(
            TopUp.objects.filter(tenant_id=tenant_id).order_by("id").values_list("state", "amount_nanos")
        )
