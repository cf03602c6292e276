"""Who gets welcome credit: one spelling a mailbox, and rules that only ever get stricter."""

from __future__ import annotations

import string
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quotas.models import WelcomeState
from quotas.welcome import policy
from quotas.welcome.policy import WelcomeFacts, WelcomePolicy, decide, domain_of, normalized_email, person_key

NAMES = st.text(string.ascii_letters + string.digits + "._-", min_size=1, max_size=20).filter(
    lambda name: name.strip(".") != ""
)
TAGS = st.text(string.ascii_letters + string.digits + "+.-_", max_size=10)
DOMAINS = st.from_regex(r"[a-z0-9]{1,10}(\.[a-z]{2,5}){1,3}", fullmatch=True)
COUNTS = st.integers(0, 20)
POLICIES = st.builds(
    WelcomePolicy,
    needs_operator=st.booleans(),
    disposable_domains=st.frozensets(DOMAINS, max_size=3),
    public_domains=st.frozensets(DOMAINS, max_size=3),
    max_per_domain_day=COUNTS,
    max_per_hour=COUNTS,
)
FACTS = st.builds(
    WelcomeFacts,
    domain=DOMAINS,
    has_claimed=st.booleans(),
    given_to_domain_today=COUNTS,
    given_this_hour=COUNTS,
)
STRICTNESS = {WelcomeState.GIVEN: 0, WelcomeState.HELD: 1, WelcomeState.REFUSED: 2}


@given(NAMES, TAGS, DOMAINS)
def test_one_person_has_one_spelling(name: str, tag: str, domain: str) -> None:
    address = f"{name}@{domain}"
    for other in (
        f"{name}+{tag}@{domain}",
        f"{name}+@{domain}",
        address.upper(),
        f"  {address}\n",
        f"{address}.",
        f"{name}＠{domain}",  # a full-width sign, as Chinese keyboards write it
    ):
        assert person_key(other) == person_key(address)
    assert domain_of(address) == domain


@given(NAMES, NAMES, DOMAINS)
def test_two_people_have_two(one: str, other: str, domain: str) -> None:
    is_same = one.lower() == other.lower()
    assert (person_key(f"{one}@{domain}") == person_key(f"{other}@{domain}")) == is_same
    assert person_key(f"{one}@{domain}") != person_key(f"{one}@x{domain}")


@given(st.text(st.characters(codec="utf-8"), max_size=40))
def test_normalising_again_changes_nothing(text: str) -> None:
    try:
        once = normalized_email(text)
    except ValueError:
        return
    assert normalized_email(once) == once
    assert len(person_key(text)) == 32


@given(NAMES, st.data())
def test_gmail_knows_no_dots(name: str, data: st.DataObject) -> None:
    dotted = name[0] + "".join(data.draw(st.sampled_from(["", "."])) + letter for letter in name[1:])
    for domain in ("gmail.com", "googlemail.com", "GMail.com"):
        assert person_key(f"{dotted}@{domain}") == person_key(f"{name}@gmail.com")


def test_elsewhere_dots_tell_people_apart() -> None:
    assert person_key("a.b@corp.example") != person_key("ab@corp.example")


@pytest.mark.parametrize("wrong", ["", "nobody", "@corp.example", "a@", "a@ . "])
def test_what_is_no_address_has_no_key(wrong: str) -> None:
    with pytest.raises(ValueError, match="address"):
        person_key(wrong)


@given(POLICIES, FACTS)
def test_nobody_gets_a_second_one(rules: WelcomePolicy, facts: WelcomeFacts) -> None:
    decision = decide(rules, replace(facts, has_claimed=True))
    assert (decision.state, decision.reason) == (WelcomeState.REFUSED, policy.ALREADY_GIVEN)


@given(POLICIES, FACTS)
def test_what_is_given_broke_no_rule(rules: WelcomePolicy, facts: WelcomeFacts) -> None:
    decision = decide(rules, facts)
    assert (decision.state == WelcomeState.GIVEN) == (decision.reason == "")
    if decision.state != WelcomeState.GIVEN:
        return
    assert not facts.has_claimed
    assert not rules.needs_operator
    assert facts.given_this_hour < rules.max_per_hour
    assert not any(
        facts.domain == listed or facts.domain.endswith(f".{listed}") for listed in rules.disposable_domains
    )
    assert facts.domain in rules.public_domains or facts.given_to_domain_today < rules.max_per_domain_day


@given(POLICIES, FACTS, COUNTS, COUNTS)
def test_more_given_never_makes_it_easier(
    rules: WelcomePolicy, facts: WelcomeFacts, to_domain: int, this_hour: int
) -> None:
    more = replace(
        facts,
        given_to_domain_today=facts.given_to_domain_today + to_domain,
        given_this_hour=facts.given_this_hour + this_hour,
    )
    assert STRICTNESS[decide(rules, more).state] >= STRICTNESS[decide(rules, facts).state]


@given(POLICIES, FACTS)
def test_an_operator_decides_where_the_policy_says_so(rules: WelcomePolicy, facts: WelcomeFacts) -> None:
    decision = decide(replace(rules, needs_operator=True), facts)
    assert decision.state != WelcomeState.GIVEN


@pytest.mark.parametrize(
    ("domain", "state"),
    [
        ("trash.example", WelcomeState.REFUSED),
        ("a.b.trash.example", WelcomeState.REFUSED),
        ("nottrash.example", WelcomeState.GIVEN),
        ("example", WelcomeState.GIVEN),
    ],
)
def test_listed_domains_are_refused_with_all_below_them(domain: str, state: WelcomeState) -> None:
    rules = WelcomePolicy(disposable_domains=frozenset({"trash.example"}))
    assert decide(rules, WelcomeFacts(domain, False, 0, 0)).state == state
