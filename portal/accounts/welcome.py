"""Welcome credit: what sign-up promises, when it is settled, and how people are told."""

import logging
from uuid import UUID

from django.conf import settings
from django.contrib import messages
from django.db import DatabaseError
from django.http import HttpRequest
from django.utils.translation import gettext as _

from portal.kit.clock import utc_now
from portal.pages.tags import amount_text
from quotas import operations
from quotas.models import WelcomeGrant, WelcomeState
from quotas.welcome import policy
from tenants.scope import role_scope

logger = logging.getLogger(__name__)


def offer(currency: str) -> operations.WelcomeOffer | None:
    """What a new organization with this currency is promised, if anything."""
    amount_nanos = settings.WELCOME_AMOUNTS.get(currency, 0)
    return (
        operations.WelcomeOffer(amount_nanos=amount_nanos, lasts_days=settings.WELCOME_DAYS)
        if amount_nanos
        else None
    )


def current_policy() -> policy.WelcomePolicy:
    """The rules of this installation, as its settings say."""
    return policy.WelcomePolicy(
        needs_operator=settings.WELCOME_APPROVAL == "operator",
        disposable_domains=settings.WELCOME_DISPOSABLE_DOMAINS,
        max_per_domain_day=settings.WELCOME_PER_DOMAIN_DAY,
        max_per_hour=settings.WELCOME_PER_HOUR,
    )


def give(request: HttpRequest, *, user_id: UUID, verified_email: str) -> None:
    """Settle what a person with a verified address was promised and has not got, and say how it went.

    Done at the verification and again at each sign-in, which makes up for one that failed.
    """
    try:
        with role_scope("operator"):
            waits = WelcomeGrant.objects.filter(user_id=user_id, state=WelcomeState.WAITING)
            if not waits.exists():
                return
            outcome = operations.give_welcome_credit(
                user_id=user_id, verified_email=verified_email, policy=current_policy(), now=utc_now()
            )
    except DatabaseError:
        # Whoever has verified the address is not to see an error for it: the next sign-in tries again.
        logger.warning("accounts.welcome.not_settled", exc_info=True)
        return
    messages.add_message(request, *_told(outcome))


def _told(outcome: operations.WelcomeOutcome) -> tuple[int, str]:
    amount = {"amount": amount_text(outcome.amount_nanos, outcome.currency)}
    if outcome.state == WelcomeState.GIVEN:
        return messages.SUCCESS, _("%(amount)s of welcome credit is in your balance.") % amount
    if outcome.state == WelcomeState.HELD:
        return messages.INFO, _(
            "Your welcome credit of %(amount)s waits for an operator to look at it. The rest works already."
        ) % amount
    if outcome.reason == policy.ALREADY_GIVEN:
        return messages.INFO, _(
            "Welcome credit is given once a person, and you had yours with another account."
        )
    if outcome.reason == policy.DISPOSABLE_ADDRESS:
        return messages.INFO, _("There is no welcome credit for addresses that are made to be thrown away.")
    return messages.INFO, _("There is no welcome credit for this organization.")
