"""The playground in a real browser: what models may write, what ends a run, and what is said then."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from devstack.engines.testing import RunningEngine, sim, start_engine
from tests.database import rows_of
from tests.factories import ModelFixture, TenantFixture
from tests.journeys.accessibility import too_wide
from tests.journeys.backstage import Backstage
from tests.journeys.hooks import go, hook
from tests.journeys.scripted import Speaker, speaking
from tests.journeys.stages import make_customer, make_priced_model
from tests.journeys.visits import Visits
from tests.waiting import wait_for

SETTLED_WITHIN_S = 20.0
HOSTILE = (
    "<script>window.wasRun = 1</script>\n\n",
    "<img src=x onerror='window.wasRun = 2'>\n\n",
    "[click](javascript:window.wasRun=3) ![pixel](http://evil.example/pixel.png)\n\n",
    "<iframe srcdoc='<script>parent.wasRun = 4</script>'></iframe><svg onload='window.wasRun=5'>\n\n",
    "<style>body { display: none }</style> <a href='//evil.example' style='position:fixed'>x</a>\n\n",
    "safe \u202eevil\u202c \u2066hidden\u2069 end\n\n",
    "```html\n<b onclick='window.wasRun = 6'>code</b>\n```\n\n",
    "| a | b |\n|--:|:-:|\n| 1 | 2 |\n\n",
    "pay &#x202e;moc.live&#8236; now <https://evil.example/%E2%80%AEmoc.knab>\n\n",
    "[https://bank.example@evil.example/](https://bank.example@evil.example/)\n\n",
    "no\u200bth\u2060ing\ufeff to \U000e0041see\n\n",
)


@pytest.fixture(scope="module")
def engine() -> Iterator[RunningEngine]:
    with start_engine("llamacpp", tokens_per_s=40) as running:
        yield running


@pytest.fixture(scope="module")
def model(engine: RunningEngine, backstage: Backstage) -> ModelFixture:
    return backstage(make_priced_model, engine.url)


@pytest.fixture(scope="module")
def speaker() -> Iterator[Speaker]:
    with speaking() as running:
        yield running


def open_playground(
    visits: Visits, backstage: Backstage, model: ModelFixture, *, granted: str | None = "5.00"
) -> tuple[Page, TenantFixture]:
    tenant, _, session = backstage(make_customer, model, granted=granted)
    page = visits.open(session=session)
    go(page, "playground:page", tenant.public_id)
    expect(hook(page, "playground")).to_have_attribute("data-connection", "open")
    return page, tenant


def ask(page: Page, text: str) -> None:
    hook(page, "input").fill(text)
    hook(page, "send").click()


def wait_for_words(page: Page, count: int) -> None:
    page.wait_for_function(
        "(count) => [...document.querySelectorAll('[data-testid=answer]')].at(-1)"
        "?.innerText.trim().split(/\\s+/).length >= count",
        arg=count,
    )


def usage_of(tenant: TenantFixture) -> dict[str, object]:
    """The one usage record, once it is there."""
    rows = wait_for(
        lambda: rows_of("quotas_usagerecord", tenant_id=tenant.id), SETTLED_WITHIN_S, "the settlement"
    )
    assert len(rows) == 1
    return rows[0]


def test_whatever_a_model_writes_is_text(
    visits: Visits, backstage: Backstage, speaker: Speaker, artifacts: Path
) -> None:
    """The window complains when anything is fetched from elsewhere or against the page's policy."""
    speaker.says(*HOSTILE)
    page, _ = open_playground(visits, backstage, backstage(make_priced_model, speaker.url, flavour="generic"))
    ask(page, "Attack me")
    expect(hook(page, "receipt").last.locator("a")).to_be_visible()
    answer = hook(page, "answer").last
    assert page.evaluate("() => window.wasRun === undefined")
    for name in ("script", "img", "iframe", "svg", "style", "object", "form", "input"):
        expect(answer.locator(name)).to_have_count(0)
    expect(answer.locator("[onclick], [onerror], [onload], [style], a[href^=javascript]")).to_have_count(0)
    text = answer.inner_text()
    assert "<script>window.wasRun = 1</script>" in text
    assert "onerror='window.wasRun = 2'" in text
    # Characters that turn the direction of text are shown as what they are, or not at all.
    assert not set("\u202a\u202b\u202d\u202e\u2066\u2067\u2068") & set(text)
    assert not set("\u200b\u2060\ufeff\U000e0041") & set(text)
    assert "no⟦U+200B⟧th⟦U+2060⟧ing⟦U+FEFF⟧ to ⟦U+E0041⟧see" in text
    # Where a link leads stands behind it, unless it says so itself.
    assert "(evil.example)" in text
    expect(
        answer.get_by_role("link", name="https://bank.example@evil.example/ (evil.example)")
    ).to_be_visible()
    expect(answer.locator("table")).to_have_count(1)
    expect(answer.locator("pre code")).to_contain_text("onclick='window.wasRun = 6'")
    page.screenshot(path=artifacts / "playground-hostile.png", full_page=True)


def test_a_line_of_a_megabyte_leaves_the_page_usable(
    visits: Visits, backstage: Backstage, speaker: Speaker
) -> None:
    speaker.says(*["x" * 65_536] * 16, " the end")
    page, _ = open_playground(visits, backstage, backstage(make_priced_model, speaker.url, flavour="generic"))
    ask(page, "A long line, please")
    expect(hook(page, "receipt").last.locator("a")).to_be_visible(timeout=30_000)
    assert len(hook(page, "answer").last.text_content() or "") >= 2**20
    hook(page, "input").fill("still here")
    expect(hook(page, "send")).to_be_enabled()
    assert not too_wide(page)


def test_a_reload_in_mid_stream_ends_the_run_and_says_so(
    visits: Visits, backstage: Backstage, model: ModelFixture, engine: RunningEngine
) -> None:
    page, tenant = open_playground(visits, backstage, model)
    ask(page, f"The ziggurat {sim(tokens=2000)}")
    wait_for_words(page, 10)
    page.reload()
    expect(hook(page, "notice-ended")).to_be_visible()
    engine.wait_idle()
    record = usage_of(tenant)
    completion = record["completion_tokens"]
    assert isinstance(completion, int)
    assert 0 < completion < 2000
    # Nothing of the conversation was kept anywhere in the browser.
    expect(hook(page, "turn-assistant")).to_have_count(0)
    kept = page.evaluate("() => JSON.stringify([{...sessionStorage}, {...localStorage}])")
    assert "ziggurat" not in kept


def test_closing_the_window_stops_the_backend(
    visits: Visits, backstage: Backstage, model: ModelFixture, engine: RunningEngine
) -> None:
    page, tenant = open_playground(visits, backstage, model)
    ask(page, f"A story {sim(tokens=2000)}")
    wait_for_words(page, 5)
    page.close()
    engine.wait_idle()
    completion = usage_of(tenant)["completion_tokens"]
    assert isinstance(completion, int)
    assert 0 < completion < 2000


def test_an_empty_balance_is_told_before_and_after(
    visits: Visits, backstage: Backstage, model: ModelFixture
) -> None:
    page, tenant = open_playground(visits, backstage, model, granted=None)
    expect(hook(page, "balance-empty")).to_be_visible()
    ask(page, "Hello")
    expect(hook(page, "error")).to_have_attribute("data-code", "insufficient_balance")
    assert not rows_of("quotas_hold", tenant_id=tenant.id)


def test_too_little_balance_offers_the_cap_that_fits(
    visits: Visits, backstage: Backstage, model: ModelFixture
) -> None:
    page, _ = open_playground(visits, backstage, model, granted="0.001")
    hook(page, "max-tokens").fill("4000")
    ask(page, f"Hello {sim(tokens=3, rate=0)}")
    expect(hook(page, "error")).to_have_attribute("data-code", "insufficient_balance")
    hook(page, "use-cap").click()
    expect(hook(page, "receipt").last.locator("a")).to_be_visible()


def test_whoever_signs_out_leaves_no_prompt_behind(
    visits: Visits, backstage: Backstage, model: ModelFixture
) -> None:
    page, _ = open_playground(visits, backstage, model)
    page.evaluate(
        "() => { for (const store of [sessionStorage, localStorage]) {"
        " store.setItem('sluice.playground.settings.x', 'the secret prompt');"
        " store.setItem('other', '1'); } }"
    )
    go(page, "account_logout")
    page.locator("main form[data-signs-out] button").click()
    expect(page).not_to_have_url(re.compile("logout"))
    kept = page.evaluate("() => JSON.stringify([{...sessionStorage}, {...localStorage}])")
    assert "secret prompt" not in kept
    assert kept.count('"other"') == 2


def test_by_keyboard_alone(visits: Visits, backstage: Backstage, model: ModelFixture) -> None:
    page, _ = open_playground(visits, backstage, model)
    hook(page, "input").focus()
    page.keyboard.type("Hello")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type(f"there {sim(tokens=400)}")
    page.keyboard.press("Enter")
    wait_for_words(page, 5)
    page.keyboard.press("Escape")
    expect(hook(page, "receipt").last.locator("a")).to_be_visible()
    # What happened is said to those who do not see it.
    expect(hook(page, "said")).not_to_be_empty()
