"""Effective limits: which value counts, against a plain reference; what is used; and what comes by itself."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from portal.kit.clock import utc_now
from quotas.limits.periods import period_start, resets_at
from quotas.limits.queries import LimitLine
from quotas.limits.tests.stage import begin, make_bounded, make_tier, spend
from quotas.limits.tiers import TierCeiling
from quotas.limits.values import LimitSource
from quotas.models import Limit, LimitKind, LimitOrigin
from quotas.models.limits import BUDGET_KINDS
from tenants.scope import role_scope
from tests.database import connected
from tests.factories import ModelFixture, enable, make_model

pytestmark = pytest.mark.usefixtures("database")

NOON = datetime(2027, 3, 10, 12, tzinfo=UTC)
KINDS = (LimitKind.REQUESTS_RPM, LimitKind.TOKENS_DAY, LimitKind.MONEY_MONTH)


def line_of(lines: tuple[LimitLine, ...], kind: LimitKind, **scope: UUID | None) -> LimitLine:
    (found,) = [
        line
        for line in lines
        if line.kind == kind
        and line.scope.model_id == scope.get("model_id")
        and line.scope.api_key_id == scope.get("api_key_id")
    ]
    return found


# --- The plain reference ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """A limit row: hours from NOON, None for open; in one of four scopes."""

    kind: LimitKind
    origin: LimitOrigin
    of_model: bool
    of_key: bool
    value: int
    is_hard: bool
    starts_h: int
    lasts_h: int | None

    @property
    def place(self) -> tuple[LimitKind, bool, bool]:
        return self.kind, self.of_model, self.of_key

    def holds_at(self, hour: int) -> bool:
        return self.starts_h <= hour and (self.lasts_h is None or hour < self.starts_h + self.lasts_h)


def rows() -> st.SearchStrategy[list[Row]]:
    row = st.builds(
        Row,
        kind=st.sampled_from(KINDS),
        origin=st.sampled_from(list(LimitOrigin)),
        of_model=st.booleans(),
        of_key=st.booleans(),
        value=st.integers(0, 50),
        is_hard=st.booleans(),
        starts_h=st.integers(-3, 1),
        lasts_h=st.none() | st.integers(1, 3),
    )

    def sound(made: list[Row]) -> bool:
        return all(one.is_hard or one.kind in BUDGET_KINDS for one in made)

    # One row a place and origin: the database refuses overlaps.
    return st.lists(row, max_size=10, unique_by=lambda one: (one.place, one.origin)).filter(sound)


tier_limits = st.lists(
    st.tuples(st.sampled_from(KINDS), st.booleans(), st.integers(0, 50)),
    max_size=4,
    unique_by=lambda one: one[:2],
)


def expected(
    made: list[Row], of_tier: list[tuple[LimitKind, bool, int]], hour: int
) -> dict[tuple[LimitKind, bool, bool], tuple[int, LimitSource]]:
    """Operator's before tier's; the organization's own when it is not higher; only hard ones refuse."""
    hard = [row for row in made if row.is_hard and row.holds_at(hour)]
    places = {row.place for row in hard} | {(kind, of_model, False) for kind, of_model, _ in of_tier}
    answer = {}
    for place in places:
        by_origin = {row.origin: row.value for row in hard if row.place == place}
        tiers = [value for kind, of_model, value in of_tier if (kind, of_model, False) == place]
        base = (tiers[0], LimitSource.TIER) if tiers else None
        if LimitOrigin.OPERATOR in by_origin:
            base = by_origin[LimitOrigin.OPERATOR], LimitSource.OPERATOR
        own = by_origin.get(LimitOrigin.TENANT)
        if own is not None and (base is None or own <= base[0]):
            base = own, LimitSource.TENANT
        assert base is not None
        answer[place] = base
    return answer


@pytest.fixture(scope="module")
def model(database: None) -> ModelFixture:
    return make_model()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(made=rows(), of_tier=tier_limits, hour=st.integers(-3, 4))
def test_precedence_is_that_of_a_plain_reference(
    model: ModelFixture, made: list[Row], of_tier: list[tuple[LimitKind, bool, int]], hour: int
) -> None:
    bounded = make_bounded(granted=None)
    ceilings = [
        TierCeiling(kind, value, model.id if of_model else None, "USD" if kind in BUDGET_KINDS else "")
        for kind, of_model, value in of_tier
    ]
    # A limit of another currency is not this organization's.
    bounded.assign(
        make_tier([*ceilings, TierCeiling(LimitKind.MONEY_DAY, 1, None, "CNY")]),
        now=NOON - timedelta(hours=100),
    )
    with role_scope("operator"):
        for row in made:
            starts_at = NOON + timedelta(hours=row.starts_h)
            Limit.objects.create(
                tenant_id=bounded.id,
                model_id=model.id if row.of_model else None,
                api_key_id=bounded.tenant.key.id if row.of_key else None,
                kind=row.kind,
                origin=row.origin,
                value=row.value,
                is_hard=row.is_hard,
                starts_at=starts_at,
                ends_at=None if row.lasts_h is None else starts_at + timedelta(hours=row.lasts_h),
                set_by_id=bounded.operator.id,
            )
    lines = bounded.limits(now=NOON + timedelta(hours=hour)).lines
    found = {
        (line.kind, line.scope.model_id is not None, line.scope.api_key_id is not None): (
            line.value,
            line.source,
        )
        for line in lines
        if line.is_hard
    }
    assert found == expected(made, of_tier, hour)
    soft = {row.place for row in made if not row.is_hard and row.holds_at(hour)}
    shown = {
        (line.kind, line.scope.model_id is not None, line.scope.api_key_id is not None) for line in lines
    }
    assert shown == set(found) | soft
    with role_scope("operator"):
        Limit.objects.filter(tenant_id=bounded.id, ends_at=None, starts_at__lte=utc_now()).update(
            ends_at=utc_now()
        )


# --- The installation's default -----------------------------------------------------------------------


def test_the_default_rate_applies_where_nobody_set_one() -> None:
    bounded = make_bounded()
    assert bounded.limits().lines == ()
    line = line_of(bounded.limits(default_rpm=60).lines, LimitKind.REQUESTS_RPM)
    assert (line.value, line.source, line.is_hard) == (60, LimitSource.INSTALLATION, True)
    bounded.set_own(LimitKind.REQUESTS_RPM, 20, default_rpm=60)
    line = line_of(bounded.limits(default_rpm=60).lines, LimitKind.REQUESTS_RPM)
    assert (line.value, line.source) == (20, LimitSource.TENANT)
    assert line.of_installation is not None
    bounded.set_operators(LimitKind.REQUESTS_RPM, 600)
    line = line_of(bounded.limits(default_rpm=60).lines, LimitKind.REQUESTS_RPM)
    assert (line.value, line.of_installation) == (20, None)


# --- Use ----------------------------------------------------------------------------------------------


def test_use_without_a_counter_is_that_of_rollups_and_open_holds(model: ModelFixture) -> None:
    """A soft budget never gets a counter."""
    bounded = make_bounded(granted="1.00")
    enable(bounded.tenant, model)
    spend(bounded.tenant, model, tokens=300)
    begin(bounded.tenant, model, tokens=100)
    bounded.set_own(LimitKind.MONEY_DAY, 1_000_000, is_hard=False, alert_percents=(50,))
    bounded.set_own(LimitKind.TOKENS_MONTH, 1000, model_id=model.id)
    bounded.set_own(LimitKind.TOKENS_DAY, 500, api_key_id=bounded.tenant.key.id)
    now = utc_now()
    lines = bounded.limits(now=now).lines
    money = line_of(lines, LimitKind.MONEY_DAY)
    assert (money.used, money.pending, money.is_hard, money.is_exhausted) == (300_000, 102_002, False, False)
    assert money.percent == 40
    assert money.resets_at == resets_at(LimitKind.MONEY_DAY, now)
    tokens = line_of(lines, LimitKind.TOKENS_MONTH, model_id=model.id)
    assert (tokens.used, tokens.pending) == (300, 101)
    assert tokens.scope.model_slug == model.slug
    of_key = line_of(lines, LimitKind.TOKENS_DAY, api_key_id=bounded.tenant.key.id)
    assert (of_key.used, of_key.pending, of_key.percent) == (300, 101, 80)


def test_use_with_a_counter_says_the_same(model: ModelFixture) -> None:
    bounded = make_bounded(granted="1.00")
    enable(bounded.tenant, model)
    spend(bounded.tenant, model, tokens=300)
    bounded.set_own(LimitKind.TOKENS_DAY, 500)
    begin(bounded.tenant, model, tokens=100)
    line = line_of(bounded.limits().lines, LimitKind.TOKENS_DAY)
    assert (line.used, line.pending, line.percent, line.is_exhausted) == (300, 101, 80, False)
    bounded.set_own(LimitKind.TOKENS_DAY, 400)
    limits = bounded.limits()
    assert limits.exhausted == (line_of(limits.lines, LimitKind.TOKENS_DAY),)
    assert line_of(bounded.limits(now=utc_now() + timedelta(days=1)).lines, LimitKind.TOKENS_DAY).used == 0


def test_nothing_is_exhausted_and_rates_have_no_period() -> None:
    bounded = make_bounded()
    bounded.set_own(LimitKind.CONCURRENCY, 0)
    bounded.set_own(LimitKind.MONEY_MONTH, 0)
    limits = bounded.limits()
    assert {line.kind for line in limits.exhausted} == {LimitKind.CONCURRENCY, LimitKind.MONEY_MONTH}
    line = line_of(limits.lines, LimitKind.CONCURRENCY)
    assert (line.used, line.pending, line.percent, line.resets_at) == (None, None, None, None)


@pytest.mark.parametrize(
    ("moment", "day", "month"),
    [
        ("2027-01-31T23:59:59.999999+00:00", "2027-02-01", "2027-02-01"),
        ("2028-02-29T00:00:00+00:00", "2028-03-01", "2028-03-01"),
        ("2027-12-31T23:00:00-05:00", "2028-01-02", "2028-02-01"),
    ],
)
def test_periods_are_those_of_utc(moment: str, day: str, month: str) -> None:
    at = datetime.fromisoformat(moment)
    for kind, wanted in ((LimitKind.TOKENS_DAY, day), (LimitKind.MONEY_MONTH, month)):
        following = resets_at(kind, at)
        assert following == datetime.fromisoformat(f"{wanted}T00:00:00+00:00")
        assert following is not None
        assert period_start(kind, following) == following.date()
        start = period_start(kind, at)
        assert start is not None
        assert start <= at.astimezone(UTC).date() < following.date()
    assert resets_at(LimitKind.TOKENS_TPM, at) is None


# --- What comes and goes by itself ----------------------------------------------------------------------


def test_a_dated_limit_ends_without_anybody_doing_something() -> None:
    bounded = make_bounded()
    now = utc_now()
    bounded.set_operators(LimitKind.TOKENS_DAY, 100, now=now, ends_at=now + timedelta(days=2))
    assert line_of(bounded.limits(now=now + timedelta(days=1)).lines, LimitKind.TOKENS_DAY).value == 100
    assert bounded.limits(now=now + timedelta(days=2)).lines == ()


def test_a_tier_override_begins_and_ends_without_anybody_doing_something() -> None:
    bounded = make_bounded()
    low, high = (make_tier([TierCeiling(LimitKind.CONCURRENCY, value)]) for value in (1, 9))
    now = utc_now()
    bounded.assign(low, now=now)
    bounded.assign(high, now=now, starts_at=now + timedelta(days=1), ends_at=now + timedelta(days=3))
    seen = [
        [line.value for line in bounded.limits(now=now + timedelta(hours=hour)).lines]
        for hour in (0, 23, 24, 71, 72)
    ]
    # The later one has taken the rest of the earlier one's time; afterwards neither counts.
    assert seen == [[1], [1], [9], [9], []]
    with connected("dataplane") as gateway:
        asked = "SELECT value FROM quotas_effective_limits(%s, %s)"
        (value,) = gateway.execute(asked, (bounded.id, now + timedelta(hours=30))).fetchone() or (None,)
    assert value == 9


def test_the_page_of_an_organization_is_read_in_its_own_scope(model: ModelFixture) -> None:
    """Another organization's limits are not among them."""
    mine, theirs = make_bounded(), make_bounded()
    theirs.set_own(LimitKind.TOKENS_DAY, 5)
    assert mine.limits().lines == ()
