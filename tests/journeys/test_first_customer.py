"""From the sign-up page to the playground, as a new customer, in both languages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from django.urls import reverse
from playwright.sync_api import Locator, Page, expect

from devstack.engines.testing import RunningEngine, sim, start_engine
from portal.kit.ids import PREFIXES, parse_public_id
from tests.database import rows_of
from tests.factories import ModelFixture
from tests.gateway_process import RunningGateway
from tests.journeys import accounts
from tests.journeys.album import Album
from tests.journeys.backstage import Backstage
from tests.journeys.hooks import assert_speaks, field, go, hook, nanos, organization_of
from tests.journeys.stages import cost_nanos, make_priced_model
from tests.journeys.visits import LANGUAGES, Visits
from tests.people import unique_address
from tests.waiting import wait_for

GREEN_WITHIN_MS = 20_000
SETTLED_WITHIN_S = 20.0


@pytest.fixture(scope="module")
def engine() -> Iterator[RunningEngine]:
    """Slow enough that a person can stop an answer in the middle."""
    with start_engine("llamacpp", tokens_per_s=40) as running:
        yield running


@pytest.fixture(scope="module")
def model(engine: RunningEngine, backstage: Backstage) -> ModelFixture:
    return backstage(make_priced_model, engine.url)


@pytest.mark.parametrize("language", LANGUAGES)
def test_from_sign_up_to_the_statement(
    language: str,
    visits: Visits,
    gateway: RunningGateway,
    engine: RunningEngine,
    model: ModelFixture,
    artifacts: Path,
) -> None:
    page, album = visits.open(language=language), Album(artifacts / f"journey-{language}")
    email = unique_address("founder")

    _sign_up_and_verify(page, email, language, album)
    organization = organization_of(page)
    _enable(page, organization, model, language, album)
    token = _create_key(page, organization, gateway, model, language, album)

    # The overview stays open in a second window while the program makes its first call.
    overview = page.context.new_page()
    go(overview, "console:overview", organization)
    overview.evaluate("() => { window.isStillThisPage = true; }")
    first_step = hook(overview, "checklist-request")
    expect(first_step).to_have_attribute("data-done", "false")
    called_nanos = _call(gateway, token, model)
    expect(first_step).to_have_attribute("data-done", "true", timeout=GREEN_WITHIN_MS)
    assert overview.evaluate("() => window.isStillThisPage === true"), "the page was loaded anew"
    album.take(overview, "checklist-green")
    overview.close()

    tenant_id = parse_public_id(PREFIXES["organization"], organization)
    wait_for(lambda: len(rows_of("quotas_usagerecord", tenant_id=tenant_id)) == 1, SETTLED_WITHIN_S, "usage")
    _see_usage(page, organization, language, [called_nanos], album)
    chatted_nanos = _chat_and_stop(page, organization, engine, model, language, album)
    wait_for(lambda: len(rows_of("quotas_usagerecord", tenant_id=tenant_id)) == 2, SETTLED_WITHIN_S, "usage")
    _see_usage(page, organization, language, [called_nanos, chatted_nanos], album)
    _check_statement(page, organization, language, [called_nanos, chatted_nanos], album)


def _sign_up_and_verify(page: Page, email: str, language: str, album: Album) -> None:
    page.goto("/")
    assert_speaks(page, language)
    album.take(page, "landing")
    page.locator(f'a[href^="{reverse("account_signup")}"]').first.click()
    assert_speaks(page, language)
    album.take(page, "sign-up")
    accounts.sign_up(page, email=email, name="Ada", organization=f"Company of {email}")
    expect(page).to_have_url(re.compile(re.escape(reverse("account_email_verification_sent"))))
    # The mailbox is linked from here, because this installation sends no mail.
    expect(page.locator(f'a[href="{reverse("accounts:mailbox")}"]').first).to_be_visible()
    album.take(page, "check-your-mail")
    accounts.verify(page, email)
    assert_speaks(page, language)
    expect(hook(page, "checklist")).to_be_visible()
    expect(hook(page, "checklist-verify")).to_have_attribute("data-done", "true")
    for step in ("model", "key", "request"):
        expect(hook(page, f"checklist-{step}")).to_have_attribute("data-done", "false")
    album.take(page, "overview-new")


def _enable(page: Page, organization: str, model: ModelFixture, language: str, album: Album) -> None:
    page.goto(f"{reverse('console:models', args=[organization])}?q={model.slug}")
    assert_speaks(page, language)
    row = hook(page, "model-row", slug=model.slug)
    expect(row).to_have_attribute("data-enabled", "false")
    hook(row, "model-enable").click()
    expect(hook(page, "model-row", slug=model.slug)).to_have_attribute("data-enabled", "true")
    album.take(page, "models")


def _create_key(
    page: Page,
    organization: str,
    gateway: RunningGateway,
    model: ModelFixture,
    language: str,
    album: Album,
) -> str:
    go(page, "console:keys", organization)
    assert_speaks(page, language)
    hook(page, "key-new").click()
    dialog = hook(page, "key-dialog")
    expect(dialog).to_be_visible()
    expect(field(dialog, "name")).to_be_focused()
    field(dialog, "name").fill("first program")
    hook(dialog, "key-create").click()
    shown = hook(page, "key-secret-dialog")
    expect(shown).to_be_visible()
    token = hook(shown, "key-secret").inner_text().strip()
    assert token.startswith("slc_")
    environment = hook(shown, "key-env").text_content() or ""
    assert token in environment
    assert gateway.api_base in environment
    curl = hook(shown, "key-curl").text_content() or ""
    assert model.slug in curl
    assert f"{gateway.api_base}/chat/completions" in curl
    # Neither a stray click nor Escape loses what is shown only once.
    page.keyboard.press("Escape")
    expect(shown).to_be_visible()
    hook(shown, "key-secret-copy").click()
    assert page.evaluate("() => navigator.clipboard.readText()") == token
    album.take(page, "key-secret")
    hook(shown, "key-secret-close").click()
    expect(hook(page, "key-row")).to_have_count(1)
    for _ in range(2):
        assert token not in page.content()
        page.reload()
    page.go_back()
    assert token not in page.content()
    album.take(page, "keys")
    return token


def _call(gateway: RunningGateway, token: str, model: ModelFixture) -> int:
    """One call with the official SDK, and what it costs."""
    with openai.OpenAI(base_url=gateway.api_base, api_key=token, max_retries=0, timeout=30) as sdk:
        answer = sdk.chat.completions.create(
            model=model.slug, messages=[{"role": "user", "content": f"Hello {sim(tokens=7, rate=0)}"}]
        )
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 7
    details = answer.usage.prompt_tokens_details
    cached = (details.cached_tokens or 0) if details else 0
    return cost_nanos(answer.usage.prompt_tokens, answer.usage.completion_tokens, cached=cached)


def _see_usage(page: Page, organization: str, language: str, costs: list[int], album: Album) -> None:
    go(page, "console:usage", organization)
    assert_speaks(page, language)
    rows = hook(page, "usage-row")
    expect(rows).to_have_count(len(costs))
    shown = sorted(nanos(hook(row, "usage-cost")) for row in rows.all())
    assert shown == sorted(costs)
    assert nanos(hook(page, "usage-total")) == sum(costs)
    with page.expect_download() as download:
        hook(page, "usage-csv").click()
    assert Path(download.value.path()).stat().st_size > 0
    album.take(page, f"usage-{len(costs)}")


def _chat_and_stop(
    page: Page, organization: str, engine: RunningEngine, model: ModelFixture, language: str, album: Album
) -> int:
    """Ask for a long answer, stop it in the middle, and read what it cost."""
    go(page, "playground:page", organization)
    assert_speaks(page, language)
    expect(hook(page, "playground")).to_have_attribute("data-connection", "open")
    hook(page, "model").select_option(model.slug)
    hook(page, "input").fill(f"Tell me a long story. {sim(tokens=400)}")
    hook(page, "send").click()
    answer = hook(page, "answer").last
    _wait_for_words(answer, 12)
    album.take(page, "playground-streaming")
    assert hook(page, "meter-out").inner_text().strip() != "–"
    hook(page, "stop").click()
    receipt = hook(page, "receipt").last
    expect(receipt.locator("a")).to_be_visible()
    engine.wait_idle()
    words = len(answer.inner_text().split())
    assert words < 400
    album.take(page, "playground-stopped")
    receipt.locator("a").click()
    total = nanos(hook(page, "receipt-total"))
    assert total > 0
    album.take(page, "receipt")
    return total


def _wait_for_words(answer: Locator, count: int) -> None:
    answer.page.wait_for_function(
        "([element, count]) => element.innerText.trim().split(/\\s+/).length >= count",
        arg=[answer.element_handle(), count],
    )


def _check_statement(page: Page, organization: str, language: str, costs: list[int], album: Album) -> None:
    """Opening balance, lines and closing balance, as the page shows them."""
    go(page, "console:statement", organization)
    assert_speaks(page, language)
    amounts = [nanos(hook(line, "statement-amount")) for line in hook(page, "statement-line").all()]
    assert sorted(amount for amount in amounts if amount < 0) == sorted(-cost for cost in costs)
    opening, closing = nanos(hook(page, "statement-opening")), nanos(hook(page, "statement-closing"))
    assert opening + sum(amounts) == closing
    assert closing > 0
    album.take(page, "statement")
    with page.expect_download() as download:
        hook(page, "statement-csv").click()
    assert Path(download.value.path()).stat().st_size > 0
