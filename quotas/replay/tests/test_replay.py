"""The what-if is exact: to the nano-unit what a calculation by hand and a real publication say."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from models_catalog.models import PriceVersion
from models_catalog.pricing import drafts
from models_catalog.pricing.content import PriceLineContent
from models_catalog.pricing.publish import IncompleteDraft
from models_catalog.pricing.tests.reference import Tokens, cost
from models_catalog.pricing.tests.shops import line, make_draft, publish_from, some_operator, window
from models_catalog.pricing.weeks import DAYS
from models_catalog.tests.price_drafts import Line
from portal.kit.clock import utc_now
from quotas.models import PriceReplay, ReplayState
from quotas.replay import operations, queries
from quotas.replay.result import Sums
from quotas.tests.doors import admit, settle
from tenants.scope import role_scope
from tests.database import connected, rows_of
from tests.factories import (
    LineSpec,
    ModelFixture,
    TenantFixture,
    admission_row,
    enable,
    make_model,
    make_price,
    make_tenant,
    settlement_row,
    void_row,
)

pytestmark = pytest.mark.usefixtures("database")

TODAY = {"input": 333_333_333, "output": 1_234_567_891}
# Long inputs cost another price than short ones, and cached input has one of its own.
DRAFT = (
    line("input", 300_000_001, input_to_tokens=1000),
    line("input", 777_777_777, input_from_tokens=1000),
    line("cached_input", 11_111_113),
    line("output", 1_357_913_579),
    line("request", 2_500_000_000),
)
USES = [
    Tokens(999, 100, 0, 17, 5),
    Tokens(1000, 0, 0, 33, 0),
    Tokens(1001, 1001, 0, 1, 1),
    Tokens(7, 3, 2, 0, 0),
]


def use(tenant: TenantFixture, model: ModelFixture, uses: Iterable[Tokens]) -> list[UUID]:
    """Calls that are admitted and settled now; their ids."""
    rows = [
        (admission_row(tenant, model, prompt_bound_tokens=2000, output_cap_tokens=100), tokens)
        for tokens in uses
    ]
    with connected("dataplane") as dataplane:
        admit(dataplane, *(row for row, _ in rows))
        settle(
            dataplane,
            *(
                settlement_row(
                    row,
                    prompt_tokens=tokens.prompt,
                    cached_tokens=tokens.cached,
                    image_tokens=tokens.image,
                    completion_tokens=tokens.completion,
                    reasoning_tokens=tokens.reasoning,
                )
                for row, tokens in rows
            ),
        )
    return [row.request_id for row, _ in rows]


def shop(*, paid: str = "100.00") -> tuple[ModelFixture, TenantFixture]:
    model, tenant = make_model(prices=TODAY), make_tenant(paid=paid)
    enable(tenant, model)
    return model, tenant


def ask(version_id: UUID, now: datetime | None = None) -> UUID:
    with role_scope("operator"):
        return operations.request_replay(
            version_id=version_id, actor=some_operator(), now=now or utc_now() + timedelta(seconds=1)
        )


def run(replay_id: UUID, **options: object) -> bool:
    with role_scope("operator"):
        return operations.run_replay(replay_id=replay_id, now=utc_now(), **options)  # type: ignore[arg-type]


def replayed(version_id: UUID, **options: object) -> queries.Replay:
    assert run(ask(version_id), **options)
    return read(version_id)


def read(version_id: UUID) -> queries.Replay:
    with role_scope("operator"):
        replay = queries.replay_of(version_id=version_id)
    assert replay is not None
    return replay


def as_reference(lines: Iterable[PriceLineContent]) -> list[Line]:
    return [
        Line(
            one.token_class,
            one.price_nanos_per_million,
            one.service_tier,
            one.window,
            one.input_from_tokens,
            one.input_to_tokens,
        )
        for one in lines
    ]


def by_hand(lines: Iterable[PriceLineContent], uses: Iterable[Tokens]) -> int:
    reference = as_reference(lines)
    amounts = [cost(reference, "standard", None, tokens) for tokens in uses]
    return sum(amount for amount in amounts if amount is not None)


def test_it_says_what_a_calculation_by_hand_says() -> None:
    model, tenant = shop()
    use(tenant, model, USES)
    other = make_tenant(paid="100.00")
    enable(other, model)
    use(other, model, USES[:2] * 3)
    today = tuple(line(name, price) for name, price in TODAY.items())
    found = replayed(make_draft(model.id, DRAFT))
    assert (found.state, found.days_done, found.is_stale) == (ReplayState.DONE, 30, False)
    sums = {row.tenant_id: row.sums for row in found.rows}
    for one, uses in ((tenant, USES), (other, USES[:2] * 3)):
        assert sums[one.id] == Sums(
            requests=len(uses),
            prompt_tokens=sum(tokens.prompt for tokens in uses),
            cached_tokens=sum(tokens.cached for tokens in uses),
            image_tokens=sum(tokens.image for tokens in uses),
            completion_tokens=sum(tokens.completion for tokens in uses),
            reasoning_tokens=sum(tokens.reasoning for tokens in uses),
            charged_nanos=by_hand(today, uses),
            today_nanos=by_hand(today, uses),
            draft_nanos=by_hand(DRAFT, uses),
            refused=0,
            changed=len(uses),
        )
    assert found.total == sums[tenant.id] + sums[other.id]
    assert (found.tenants, found.dearer, found.cheaper, found.unchanged) == (2, 2, 0, 0)
    differences = [row.sums.difference_nanos for row in found.rows]
    assert differences == sorted(differences, reverse=True)


def test_a_real_publication_charges_what_it_said() -> None:
    """The same calls once more, after the draft has been published: each costs what the what-if said."""
    model, tenant = shop()
    use(tenant, model, USES)
    draft = make_draft(model.id, DRAFT)
    said = replayed(draft).total
    at = utc_now() + timedelta(milliseconds=700)
    publish_from(draft, at, lead=timedelta(milliseconds=500))
    with connected("operator") as connection:
        connection.execute("SELECT pg_sleep(greatest(0, extract(epoch FROM %s - clock_timestamp())))", (at,))
    again = use(tenant, model, USES)
    stored = [row for request in again for row in rows_of("quotas_usagerecord", request_id=request)]
    assert sum(row["cost_nanos"] for row in stored) == said.draft_nanos
    calls = [row for request in again for row in rows_of("quotas_inferencerequest", id=request)]
    assert {row["price_version_id"] for row in calls} == {draft}


def test_windows_are_those_of_the_moment_of_the_call() -> None:
    """In the draft's zone: its window is all of this weekday and its neighbours, or of the others."""
    model, tenant = shop()
    use(tenant, model, [Tokens(1_000)])
    weekday = utc_now().astimezone(ZoneInfo("Asia/Shanghai")).weekday()
    near = [DAYS[(weekday + offset) % 7] for offset in (-1, 0, 1)]
    lines = (line("input", 10**6), line("input", 5 * 10**6, window="some"), line("output", 0))
    for days, amount in ((near, 5_000), (sorted({*DAYS} - {*near}), 1_000)):
        some = window("some", *(f"{day} 00:00-24:00" for day in days))
        draft = make_draft(model.id, lines, windows=(some,), time_zone="Asia/Shanghai")
        assert replayed(draft).total.draft_nanos == amount


def test_private_and_list_prices_reach_their_own() -> None:
    model, listed = shop()
    agreed, later = make_tenant(paid="100.00"), make_tenant(paid="100.00")
    for tenant in (agreed, later):
        enable(tenant, model)
    private = make_price(model.id, tenant_id=agreed.id, prices={"input": 10**8, "output": 10**8})
    for tenant in (listed, agreed, later):
        use(tenant, model, USES)
    make_price(model.id, tenant_id=later.id, prices={"input": 10**8, "output": 10**8})
    assert [row.tenant_id for row in replayed(make_draft(model.id, DRAFT)).rows] == [listed.id]
    own = replayed(make_draft(model.id, DRAFT, tenant_id=agreed.id))
    assert [row.tenant_id for row in own.rows] == [agreed.id]
    assert own.total.today_nanos == by_hand([line("input", 10**8), line("output", 10**8)], USES)
    with role_scope("operator"):
        assert PriceVersion.objects.get(id=private).tenant_id == agreed.id


def test_other_models_currencies_and_calls_without_usage_do_not_count() -> None:
    model, tenant = shop()
    other_model, _ = shop()
    enable(tenant, other_model)
    in_yuan = make_tenant("CNY", paid="100.00")
    enable(in_yuan, model)
    make_price(model.id, currency="CNY")
    use(tenant, other_model, USES)
    use(in_yuan, model, USES)
    row = admission_row(tenant, model)
    with connected("dataplane") as dataplane:
        admit(dataplane, row)
        settle(dataplane, void_row(row))
    found = replayed(make_draft(model.id, DRAFT))
    assert (found.rows, found.total) == ((), Sums())


def test_calls_that_the_draft_has_no_price_for_are_counted() -> None:
    batch = [LineSpec("input", 10**6, "batch"), LineSpec("output", 10**6, "batch")]
    model, tenant = make_model(prices=TODAY, lines=batch), make_tenant(paid="1.00")
    enable(tenant, model)
    row = admission_row(tenant, model, service_tier="batch")
    with connected("dataplane") as dataplane:
        admit(dataplane, row)
        settle(dataplane, settlement_row(row, prompt_tokens=100))
    total = replayed(make_draft(model.id, DRAFT)).total
    assert (total.requests, total.refused, total.today_nanos, total.draft_nanos) == (1, 1, 100, 0)


def test_the_margin_takes_the_cost_and_all_that_the_model_earns() -> None:
    model, tenant = shop()
    agreed = make_tenant(paid="100.00")
    enable(agreed, model)
    make_price(model.id, tenant_id=agreed.id, prices={"input": 10**9, "output": 10**9})
    use(tenant, model, USES)
    use(agreed, model, [Tokens(1000)])
    asked: list[tuple[UUID, str]] = []

    def cost_of(model_id: UUID, from_: datetime, to: datetime, currency: str) -> int | None:
        assert to - from_ == timedelta(days=30)
        asked.append((model_id, currency))
        return 400_000

    found = replayed(make_draft(model.id, DRAFT), cost_of=cost_of)
    assert asked == [(model.id, "USD")]
    assert found.margin is not None
    assert found.margin.cost_nanos == 400_000
    assert found.margin.before_nanos == found.total.today_nanos + 1_000_000
    assert found.margin.after_nanos == found.total.draft_nanos + 1_000_000
    assert found.margin.after_margin_nanos - found.margin.before_margin_nanos == found.total.difference_nanos
    assert replayed(make_draft(model.id, DRAFT)).margin is None


def test_it_goes_on_where_it_stopped_and_twice_is_once() -> None:
    model, tenant = shop()
    use(tenant, model, USES)
    draft = make_draft(model.id, DRAFT)
    replay_id = ask(draft)
    assert not run(replay_id, budget_s=0)
    with role_scope("operator"):
        for _ in range(3):
            assert operations._next_day(replay_id, utc_now(), None)
    halfway = read(draft)
    assert (halfway.state, halfway.days_done, halfway.rows) == (ReplayState.RUNNING, 3, ())
    assert ask(draft) == replay_id
    assert run(replay_id)
    assert run(replay_id)
    done = read(draft)
    assert done.total.draft_nanos == by_hand(DRAFT, USES)
    assert ask(draft) != replay_id


def test_an_edited_draft_makes_the_result_stale_and_stops_the_run() -> None:
    model, tenant = shop()
    use(tenant, model, USES)
    draft = make_draft(model.id, DRAFT)
    assert not replayed(draft).is_stale

    def edit(price: int) -> None:
        with role_scope("operator"):
            drafts.update_draft(
                version_id=draft,
                time_zone="UTC",
                lines=[line("input", price), line("output", price)],
                windows=[],
                actor=some_operator(),
                now=utc_now(),
            )

    edit(1)
    assert read(draft).is_stale
    under_way = ask(draft)
    edit(2)
    assert run(under_way)
    assert read(draft).state == ReplayState.OUTDATED
    again = ask(draft)
    edit(3)
    newest = ask(draft)
    with role_scope("operator"):
        states = dict(PriceReplay.objects.filter(id__in=[again, newest]).values_list("id", "state"))
    assert states == {again: ReplayState.OUTDATED, newest: ReplayState.WAITING}
    assert run(newest)
    assert read(draft).total.draft_nanos == by_hand([line("input", 3), line("output", 3)], USES)


def test_what_nobody_gets_on_with_is_found() -> None:
    model, _ = shop()
    fresh, stalled, old = (ask(make_draft(model.id, DRAFT)) for _ in range(3))
    now = utc_now() + timedelta(seconds=1)
    with role_scope("operator"):
        PriceReplay.objects.filter(id=stalled).update(touched_at=now - timedelta(hours=1))
        PriceReplay.objects.filter(id=old).update(created_at=now - timedelta(days=2))
        found = operations.sweep_replays(now=now)
        assert stalled in found
        assert not {fresh, old} & set(found)
        assert PriceReplay.objects.get(id=old).state == ReplayState.FAILED
    for one in (fresh, stalled):
        assert run(one)


def test_a_discarded_draft_takes_its_replays_along() -> None:
    model, _ = shop()
    draft = make_draft(model.id, DRAFT)
    replayed(draft)
    with role_scope("operator"):
        drafts.discard_draft(version_id=draft, actor=some_operator(), now=utc_now())
        assert not PriceReplay.objects.filter(version_id=draft).exists()


def test_what_is_incomplete_cannot_be_asked_about() -> None:
    model, _ = shop()
    with pytest.raises(IncompleteDraft):
        ask(make_draft(model.id))
    assert model.price_version_id is not None
    with pytest.raises(drafts.DraftNotFound):
        ask(model.price_version_id)


def test_the_file_has_every_organization() -> None:
    model, tenant = shop()
    use(tenant, model, USES)
    draft = make_draft(model.id, DRAFT)
    with role_scope("operator"):
        assert "".join(queries.replay_csv(version_id=draft)).count("\r\n") == 1
    total = replayed(draft).total
    with role_scope("operator"):
        head, row = "".join(queries.replay_csv(version_id=draft)).splitlines()
    cells = dict(zip(head.split(","), row.split(","), strict=True))
    assert cells["organization"] == tenant.public_id
    assert cells["with_the_draft"] == f"{total.draft_nanos / 10**9:.9f}".rstrip("0")
