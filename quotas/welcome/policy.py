"""Who gets welcome credit: pure functions of an address, of what was given lately, and of the rules."""

import hashlib
import unicodedata
from dataclasses import dataclass
from typing import Final

from quotas.models import WelcomeState

# Everybody can have an address there, so many newcomers of one day mean nothing.
PUBLIC_PROVIDERS: Final = frozenset(
    {
        "126.com",
        "139.com",
        "163.com",
        "189.cn",
        "aliyun.com",
        "fastmail.com",
        "foxmail.com",
        "gmail.com",
        "gmx.com",
        "gmx.de",
        "gmx.net",
        "googlemail.com",
        "hotmail.com",
        "icloud.com",
        "live.com",
        "mac.com",
        "mail.ru",
        "me.com",
        "msn.com",
        "outlook.com",
        "proton.me",
        "protonmail.com",
        "qq.com",
        "sina.cn",
        "sina.com",
        "sohu.com",
        "web.de",
        "yahoo.com",
        "yandex.com",
        "yandex.ru",
        "yeah.net",
    }
)
_GMAIL: Final = frozenset({"gmail.com", "googlemail.com"})
# Below country codes, what countries hand out names under.
_SECOND_LEVELS: Final = frozenset(
    {"ac", "co", "com", "edu", "go", "gob", "gov", "gv", "ne", "net", "or", "org"}
)

ALREADY_GIVEN: Final = "ALREADY_GIVEN"
DISPOSABLE_ADDRESS: Final = "DISPOSABLE_ADDRESS"
NEEDS_OPERATOR: Final = "NEEDS_OPERATOR"
MANY_FROM_DOMAIN: Final = "MANY_FROM_DOMAIN"
MANY_THIS_HOUR: Final = "MANY_THIS_HOUR"


@dataclass(frozen=True, slots=True)
class WelcomePolicy:
    """The rules of an installation. Domains are in lower case.

    needs_operator: an operator decides about each. disposable_domains: refused, with everything below
    them. max_per_domain_day: credits given automatically within 24 hours to addresses of one domain and of
    all below it; public_domains are exempt. max_per_hour: the same of the whole installation within an
    hour. Beyond these an operator decides.
    """

    needs_operator: bool = False
    disposable_domains: frozenset[str] = frozenset()
    public_domains: frozenset[str] = PUBLIC_PROVIDERS
    max_per_domain_day: int = 5
    max_per_hour: int = 100


@dataclass(frozen=True, slots=True)
class WelcomeFacts:
    """What is known when the decision is made. The counts are of credits given automatically.

    has_claimed: the same person had, or is promised, a welcome credit already.
    """

    domain: str
    has_claimed: bool
    given_to_domain_today: int
    given_this_hour: int


@dataclass(frozen=True, slots=True)
class WelcomeDecision:
    """reason: one of the words of this module, empty when the credit is given."""

    state: WelcomeState
    reason: str


def decide(policy: WelcomePolicy, facts: WelcomeFacts) -> WelcomeDecision:
    """GIVEN, HELD for an operator, or REFUSED. What refuses comes before what holds."""
    if facts.has_claimed:
        return WelcomeDecision(WelcomeState.REFUSED, ALREADY_GIVEN)
    if _is_listed(facts.domain, policy.disposable_domains):
        return WelcomeDecision(WelcomeState.REFUSED, DISPOSABLE_ADDRESS)
    if policy.needs_operator:
        return WelcomeDecision(WelcomeState.HELD, NEEDS_OPERATOR)
    is_public = facts.domain in policy.public_domains
    if not is_public and facts.given_to_domain_today >= policy.max_per_domain_day:
        return WelcomeDecision(WelcomeState.HELD, MANY_FROM_DOMAIN)
    if facts.given_this_hour >= policy.max_per_hour:
        return WelcomeDecision(WelcomeState.HELD, MANY_THIS_HOUR)
    return WelcomeDecision(WelcomeState.GIVEN, "")


def normalized_email(email: str) -> str:
    """One spelling for the addresses that reach one mailbox: lower case, without what follows a plus sign,
    and at Gmail without dots. Normalising again changes nothing. Errors: ValueError without a domain."""
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", email).casefold()).strip()
    local, at, domain = text.rpartition("@")
    domain = domain.strip(". \t\n")
    if not at or not local or not domain:
        raise ValueError("an e-mail address has a name and a domain")
    # A plus sign at the very beginning separates nothing.
    local = local[0] + local[1:].split("+", 1)[0]
    if domain in _GMAIL:
        domain = "gmail.com"
        local = local.replace(".", "") or local
    return f"{local}@{domain}"


def domain_of(email: str) -> str:
    """The domain of an address, normalised. Errors: ValueError."""
    return normalized_email(email).rpartition("@")[2]


def owned_domain(domain: str) -> str:
    """The part of a domain that somebody has registered, and makes names below as they like: two labels, or
    three below com.cn, co.uk and the like. Where it takes too much together, an operator looks at more."""
    labels = domain.split(".")
    count = 3 if len(labels[-1]) == 2 and labels[-2:-1] and labels[-2] in _SECOND_LEVELS else 2
    return ".".join(labels[-count:])


def person_key(email: str) -> bytes:
    """Who an address belongs to, as a SHA-256 (32 bytes) of the normalised address. Errors: ValueError."""
    return hashlib.sha256(normalized_email(email).encode("utf-8", "surrogatepass")).digest()


def _is_listed(domain: str, listed: frozenset[str]) -> bool:
    labels = domain.split(".")
    return any(".".join(labels[start:]) in listed for start in range(len(labels)))
