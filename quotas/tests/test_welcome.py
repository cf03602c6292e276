"""Welcome credit: promised at sign-up, given once a person and organization, whoever asks how often."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import psycopg
import pytest
from django.db import IntegrityError, transaction

from portal.kit.clock import utc_now
from portal.kit.ids import uuid7
from quotas import operations
from quotas.ledger import operations as ledger
from quotas.models import WelcomeState
from quotas.operations import WelcomeCredit, WelcomeOffer, WelcomeOutcome
from quotas.welcome import policy, queries
from quotas.welcome.policy import WelcomePolicy
from tenants.models import User
from tenants.operations import audit
from tenants.scope import role_scope, scope_alias, tenant_scope
from tenants.tests.people import at_once, make_user
from tests.database import connected, money_of, rows_of
from tests.factories import make_tenant, unique_name

pytestmark = pytest.mark.usefixtures("database")

AMOUNT = 10**9
OPEN = WelcomePolicy(max_per_domain_day=1_000_000, max_per_hour=1_000_000)


def sign_up(user: User, *, offer: WelcomeOffer | None = WelcomeOffer(AMOUNT)) -> UUID:  # noqa: B008
    """What the door of sign-up does, as it does it."""
    with role_scope("auth"):
        return operations.open_tenant(
            name=unique_name("Newcomer"),
            currency="USD",
            currencies=("USD", "CNY"),
            owner_id=user.id,
            accepted_terms="2026-11",
            welcome=offer,
        )


def give(
    user: User, *, rules: WelcomePolicy = OPEN, email: str | None = None, now: datetime | None = None
) -> WelcomeOutcome:
    with role_scope("operator"):
        return operations.give_welcome_credit(
            user_id=user.id, verified_email=email or user.email, policy=rules, now=now or utc_now()
        )


def newcomer(email: str | None = None) -> tuple[User, UUID]:
    user = make_user(email)
    return user, sign_up(user)


def address(domain: str = "people.example") -> str:
    return f"{uuid7().hex}@{domain}"


def domain() -> str:
    return f"{uuid7().hex}.example"


def grant_of(tenant_id: UUID) -> dict[str, Any]:
    (row,) = rows_of("quotas_welcomegrant", tenant_id=tenant_id)
    return row


def test_sign_up_makes_everything_at_once_under_the_auth_role() -> None:
    user, tenant_id = newcomer()
    (membership,) = rows_of("tenants_membership", tenant_id=tenant_id)
    assert (membership["user_id"], membership["role"]) == (user.id, "OWNER")
    (terms,) = rows_of("tenants_termsacceptance", user_id=user.id)
    assert (terms["version"], terms["tenant_id"]) == ("2026-11", tenant_id)
    grant = grant_of(tenant_id)
    assert (grant["state"], grant["amount_nanos"], grant["user_id"]) == ("WAITING", AMOUNT, user.id)
    assert grant["person_key"] is None
    assert money_of(tenant_id).granted == 0


def test_sign_up_makes_nothing_when_a_part_of_it_fails() -> None:
    user = make_user()
    with (
        pytest.raises(IntegrityError, match="welcome_amount_positive"),
        role_scope("auth"),
        transaction.atomic(using=scope_alias()),
    ):
        sign_up(user, offer=WelcomeOffer(0))
    assert rows_of("tenants_membership", user_id=user.id) == []
    assert rows_of("tenants_termsacceptance", user_id=user.id) == []


def test_signing_up_gives_no_credit_by_itself() -> None:
    """The auth role cannot post into the ledger, whatever it is told."""
    with (
        pytest.raises(Exception, match="permission denied"),
        role_scope("auth"),
        transaction.atomic(using=scope_alias()),
    ):
        operations.open_tenant(
            name="x",
            currency="USD",
            currencies=("USD",),
            owner_id=make_user().id,
            welcome_credit=WelcomeCredit(AMOUNT, "no"),
        )


def test_terms_and_welcome_belong_to_an_owner() -> None:
    for options in ({"accepted_terms": "1"}, {"welcome": WelcomeOffer(1)}):
        with role_scope("operator"), pytest.raises(ValueError, match="owner"):
            operations.open_tenant(name="x", currency="USD", currencies=("USD",), owner_id=None, **options)


def test_it_is_given_after_the_verification_and_once() -> None:
    user, tenant_id = newcomer()
    outcome = give(user)
    assert outcome == WelcomeOutcome(WelcomeState.GIVEN, tenant_id, "USD", AMOUNT, "")
    assert give(user) == outcome
    assert money_of(tenant_id).granted == AMOUNT
    (transfer,) = rows_of("quotas_ledgertransfer", tenant_id=tenant_id)
    assert (transfer["kind"], transfer["reason"]) == ("GRANT", "Welcome credit")
    with tenant_scope(tenant_id):
        row = queries.welcome_of(tenant_id=tenant_id)
    assert row is not None
    assert (row.state, row.amount_nanos) == (WelcomeState.GIVEN, AMOUNT)


def test_calls_at_once_give_it_once() -> None:
    user, tenant_id = newcomer()
    answers = at_once([partial(give, user)] * 8)
    assert answers == [WelcomeOutcome(WelcomeState.GIVEN, tenant_id, "USD", AMOUNT, "")] * 8
    assert money_of(tenant_id).granted == AMOUNT
    assert len(rows_of("quotas_ledgertransfer", tenant_id=tenant_id)) == 1


def test_nobody_was_promised_anything() -> None:
    user = make_user()
    sign_up(user, offer=None)
    assert give(user) == WelcomeOutcome(None)
    with role_scope("operator"):
        assert queries.welcome_of(tenant_id=uuid7()) is None


def test_a_second_organization_is_promised_no_second_one() -> None:
    user, first = newcomer()
    second = sign_up(user)
    assert rows_of("quotas_welcomegrant", tenant_id=second) == []
    assert give(user).tenant_id == first


def test_the_same_person_under_another_spelling_is_refused() -> None:
    stem = uuid7().hex
    first, _ = newcomer(f"{stem}@people.example")
    second, tenant_id = newcomer(f"{stem}+again@people.example")
    assert give(first).state == WelcomeState.GIVEN
    outcome = give(second)
    assert (outcome.state, outcome.reason) == (WelcomeState.REFUSED, policy.ALREADY_GIVEN)
    assert money_of(tenant_id).granted == 0


def test_spellings_of_one_person_at_once_get_one() -> None:
    stem = uuid7().hex
    users = [newcomer(f"{stem}+{number}@people.example") for number in range(6)]
    answers = at_once([partial(give, user) for user, _ in users])
    states = sorted(str(answer.state) for answer in answers if isinstance(answer, WelcomeOutcome))
    assert states == ["GIVEN"] + ["REFUSED"] * 5
    assert sum(money_of(tenant_id).granted for _, tenant_id in users) == AMOUNT


def test_who_never_verifies_takes_nobodys_credit() -> None:
    stem = uuid7().hex
    newcomer(f"{stem}+thief@people.example")
    user, _ = newcomer(f"{stem}@people.example")
    assert give(user).state == WelcomeState.GIVEN


def test_disposable_addresses_are_refused() -> None:
    user, tenant_id = newcomer(address("sub.trash.example"))
    rules = WelcomePolicy(disposable_domains=frozenset({"trash.example"}))
    outcome = give(user, rules=rules)
    assert (outcome.state, outcome.reason) == (WelcomeState.REFUSED, policy.DISPOSABLE_ADDRESS)
    assert give(user).state == WelcomeState.REFUSED
    assert money_of(tenant_id).granted == 0


def test_a_domain_gets_so_many_a_day_and_then_an_operator_looks() -> None:
    host = domain()
    rules = WelcomePolicy(max_per_domain_day=2, max_per_hour=1_000_000)
    people = [newcomer(address(host))[0] for _ in range(5)]
    answers = at_once([partial(give, user, rules=rules) for user in people[:4]])
    outcomes = [answer for answer in answers if isinstance(answer, WelcomeOutcome)]
    assert sorted(str(outcome.state) for outcome in outcomes) == ["GIVEN", "GIVEN", "HELD", "HELD"]
    assert {outcome.reason for outcome in outcomes} == {"", policy.MANY_FROM_DOMAIN}
    tomorrow = utc_now() + timedelta(days=1, minutes=1)
    assert give(people[4], rules=rules, now=tomorrow).state == WelcomeState.GIVEN


def test_below_a_domain_there_are_no_further_domains() -> None:
    """Whoever has one makes as many names below it as wanted."""
    host = domain()
    rules = WelcomePolicy(max_per_domain_day=2, max_per_hour=1_000_000)
    names = [host, f"a.{host}", f"b.{host}", f"x.y.{host}"]
    outcomes = [give(newcomer(address(name))[0], rules=rules) for name in names]
    assert [outcome.state for outcome in outcomes] == ["GIVEN", "GIVEN", "HELD", "HELD"]
    assert give(newcomer(address(f"not{host}"))[0], rules=rules).state == WelcomeState.GIVEN


@pytest.mark.parametrize(
    ("host", "owned"),
    [
        ("mail.acme.com", "acme.com"),
        ("acme.com", "acme.com"),
        ("acme.com.cn", "acme.com.cn"),
        ("cs.tsinghua.edu.cn", "tsinghua.edu.cn"),
        ("a.b.acme.co.uk", "acme.co.uk"),
        ("co.uk", "co.uk"),
        ("localhost", "localhost"),
    ],
)
def test_what_somebody_owns_of_a_domain(host: str, owned: str) -> None:
    assert policy.owned_domain(host) == owned


def test_public_providers_are_exempt() -> None:
    host = domain()
    rules = WelcomePolicy(max_per_domain_day=0, public_domains=frozenset({host}), max_per_hour=1_000_000)
    user, _ = newcomer(address(host))
    assert give(user, rules=rules).state == WelcomeState.GIVEN


def test_an_hour_gives_so_many() -> None:
    # A moment far from all that other tests gave.
    now = utc_now() + timedelta(days=365)
    rules = WelcomePolicy(max_per_domain_day=1_000_000, max_per_hour=1)
    first, second, third = (newcomer()[0] for _ in range(3))
    assert give(first, rules=rules, now=now).state == WelcomeState.GIVEN
    outcome = give(second, rules=rules, now=now + timedelta(minutes=59))
    assert (outcome.state, outcome.reason) == (WelcomeState.HELD, policy.MANY_THIS_HOUR)
    assert give(third, rules=rules, now=now + timedelta(minutes=61)).state == WelcomeState.GIVEN


def held() -> tuple[User, UUID]:
    user, tenant_id = newcomer()
    outcome = give(user, rules=WelcomePolicy(needs_operator=True))
    assert (outcome.state, outcome.reason) == (WelcomeState.HELD, policy.NEEDS_OPERATOR)
    assert money_of(tenant_id).granted == 0
    return user, tenant_id


def approve(tenant_id: UUID, operator: User) -> WelcomeOutcome:
    with role_scope("operator"):
        return operations.approve_welcome(
            tenant_id=tenant_id, actor=audit.operator(operator.id), now=utc_now()
        )


def refuse(tenant_id: UUID, operator: User) -> WelcomeOutcome:
    with role_scope("operator"):
        return operations.refuse_welcome(
            tenant_id=tenant_id, actor=audit.operator(operator.id), reason="not now", now=utc_now()
        )


def test_an_operator_gives_what_was_held() -> None:
    user, tenant_id = held()
    operator = make_user()
    with role_scope("operator"):
        (waiting,) = [row for row in queries.held_welcomes() if row.tenant_id == tenant_id]
    assert (waiting.user_email, waiting.reason) == (user.email, policy.NEEDS_OPERATOR)
    assert waiting.public_id.startswith("org_")
    assert approve(tenant_id, operator).state == WelcomeState.GIVEN
    assert money_of(tenant_id).granted == AMOUNT
    assert grant_of(tenant_id)["decided_by_id"] == operator.id
    for again in (approve, refuse):
        with pytest.raises(operations.WelcomeNotHeld):
            again(tenant_id, operator)
    assert give(user).state == WelcomeState.GIVEN


def test_an_operator_refuses_what_was_held_for_good() -> None:
    user, tenant_id = held()
    outcome = refuse(tenant_id, make_user())
    assert (outcome.state, outcome.reason) == (WelcomeState.REFUSED, "not now")
    assert give(user).state == WelcomeState.REFUSED
    # Nor under another spelling.
    other, _ = newcomer(user.email.replace("@", "+x@"))
    assert give(other).reason == policy.ALREADY_GIVEN


def test_two_operators_at_once_decide_once() -> None:
    for _ in range(3):
        _, tenant_id = held()
        calls: list[Callable[[], WelcomeOutcome]] = [
            partial(approve, tenant_id, make_user()),
            partial(refuse, tenant_id, make_user()),
            partial(approve, tenant_id, make_user()),
        ]
        answers = at_once(calls)
        (decided,) = [answer for answer in answers if isinstance(answer, WelcomeOutcome)]
        expected = AMOUNT if decided.state == WelcomeState.GIVEN else 0
        assert money_of(tenant_id).granted == expected


def test_what_an_operator_gives_holds_nobody_else() -> None:
    host = domain()
    rules = WelcomePolicy(max_per_domain_day=1, max_per_hour=1_000_000)
    one, two, three = (newcomer(address(host)) for _ in range(3))
    give(one[0], rules=WelcomePolicy(needs_operator=True))
    approve(one[1], make_user())
    assert give(two[0], rules=rules).state == WelcomeState.GIVEN
    assert give(three[0], rules=rules).state == WelcomeState.HELD


def test_the_direct_credit_and_the_promised_one_are_one() -> None:
    """Both go by one key of the ledger, so an organization cannot have both amounts."""
    user, tenant_id = newcomer()
    with role_scope("operator"):
        assert ledger.grant_credit(
            tenant_id=tenant_id, amount_nanos=AMOUNT, key=f"welcome:{tenant_id}", reason="seed"
        )
    assert give(user).state == WelcomeState.GIVEN
    assert money_of(tenant_id).granted == AMOUNT


# --- What the database itself refuses ----------------------------------------------------------------

INSERT = (
    "INSERT INTO quotas_welcomegrant (tenant_id, user_id, currency, amount_nanos, state, reason, "
    "email_domain) VALUES (%s, %s, %s, %s, %s, '', '')"
)


@pytest.mark.parametrize(
    ("currency", "amount_nanos", "state", "error"),
    [
        ("USD", 1, "GIVEN", psycopg.errors.CheckViolation),
        ("USD", 1, "HELD", psycopg.errors.CheckViolation),
        ("USD", 0, "WAITING", psycopg.errors.CheckViolation),
        ("USD", 1, "OTHER", psycopg.errors.CheckViolation),
        ("CNY", 1, "WAITING", psycopg.errors.ForeignKeyViolation),
    ],
)
def test_it_begins_as_a_promise(
    currency: str, amount_nanos: int, state: str, error: type[psycopg.Error]
) -> None:
    tenant, user = make_tenant(granted=None), make_user()
    with connected("auth") as connection, pytest.raises(error):
        connection.execute(INSERT, (tenant.id, user.id, currency, amount_nanos, state))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ("amount_nanos = 5", psycopg.errors.RestrictViolation),
        ("currency = 'CNY'", psycopg.errors.RestrictViolation),
        ("state = 'WAITING'", psycopg.errors.RestrictViolation),
        ("state = 'GIVEN', decided_at = now()", psycopg.errors.CheckViolation),
        ("state = 'REFUSED'", psycopg.errors.CheckViolation),
    ],
)
def test_it_does_not_change_on_the_way(change: str, error: type[psycopg.Error]) -> None:
    _, tenant_id = newcomer()
    with connected("owner") as connection, pytest.raises(error):
        connection.execute(f"UPDATE quotas_welcomegrant SET {change} WHERE tenant_id = %s", (tenant_id,))


def test_what_is_decided_stays_and_is_not_deleted() -> None:
    user, tenant_id = newcomer()
    give(user)
    with connected("owner") as connection:
        for change in (
            "UPDATE quotas_welcomegrant SET reason = 'x'",
            "UPDATE quotas_welcomegrant SET person_key = NULL, state = 'REFUSED'",
            "DELETE FROM quotas_welcomegrant",
        ):
            with pytest.raises(psycopg.errors.RestrictViolation):
                connection.execute(f"{change} WHERE tenant_id = %s", (tenant_id,))


def test_a_person_is_claimed_once_in_the_database_too() -> None:
    (first, _), (_, second_id) = newcomer(), newcomer()
    give(first)
    with connected("owner") as connection, pytest.raises(psycopg.errors.UniqueViolation, match="person_key"):
        connection.execute(
            "UPDATE quotas_welcomegrant SET state = 'HELD', decided_at = now(), person_key = %s "
            "WHERE tenant_id = %s",
            (policy.person_key(first.email), second_id),
        )


def test_who_may_not_decide() -> None:
    user, tenant_id = newcomer()
    change = "UPDATE quotas_welcomegrant SET state = 'REFUSED', decided_at = now() WHERE tenant_id = %s"
    for role in ("tenant", "auth", "dataplane", "ingest"):
        with connected(role) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(change, (tenant_id,))
    with role_scope("auth"), pytest.raises(Exception, match="permission denied"):
        operations.give_welcome_credit(user_id=user.id, verified_email=user.email, policy=OPEN, now=utc_now())


def test_an_organization_sees_its_own_and_not_how_people_are_told_apart() -> None:
    _, tenant_id = newcomer()
    _, other_id = newcomer()
    with tenant_scope(tenant_id):
        assert queries.welcome_of(tenant_id=other_id) is None
        own = queries.welcome_of(tenant_id=tenant_id)
    assert own is not None
    assert own.state == WelcomeState.WAITING
    with connected("tenant", autocommit=False) as connection:
        connection.execute("SELECT set_config('app.tenant_id', %s, true)", (str(tenant_id),))
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT person_key FROM quotas_welcomegrant")
