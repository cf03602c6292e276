"""The order of a refund: what is left of a top-up, why not more, and a reason."""

from __future__ import annotations

from typing import Any, Final

from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from portal.backoffice.pages import note_refusal, operator_actor, operator_page, show_dialog
from portal.backoffice.payments.forms import RefundForm
from portal.backoffice.payments.top_ups import found_top_up
from portal.kit.clock import utc_now
from portal.pages.answers import done
from portal.pages.tags import amount_text
from quotas.models import RefundState
from quotas.payments.backoffice_queries import TopUpRow
from quotas.payments.client import PaymentsNotConfigured
from quotas.payments.giving_back import AboveLimit
from quotas.payments.moneyback_queries import Obstacle, Refundable, refundable
from quotas.payments.refunds import InvalidRefund, NotRefundable, Ordered, order_refund

FORM_METHODS: Final = ("GET", "HEAD", "POST")
OBSTACLES: Final[dict[Obstacle, str | Promise]] = {
    Obstacle.NOT_PAID: gettext_lazy("It is not paid, so there is nothing to pay back."),
    Obstacle.BY_BANK: gettext_lazy("It came by bank transfer, and goes back that way only."),
    Obstacle.GONE: gettext_lazy("All of it went back already, or a dispute has it."),
    Obstacle.SPENT: gettext_lazy(
        "The organization has no paid credit left that is free: it is spent, held by calls under way, or "
        "needed for what the organization owes."
    ),
}


@operator_page(methods=FORM_METHODS, atomic=False)
def refund(request: HttpRequest, top_up: str) -> HttpResponse:
    """GET the form, with what is left; POST share (all or a part), amount and reason."""
    found = found_top_up(top_up)
    left = refundable(top_up_id=found.id)
    assert left is not None
    form = RefundForm(
        request.POST if request.method == "POST" else None, currency=found.currency, auto_id="refund_%s"
    )
    address = reverse("backoffice:top-up", args=[found.public_id])
    if request.method == "POST" and form.is_valid():
        ordered = _order(request, found, form)
        if ordered is not None:
            return done(request, address, _ordered_text(ordered))
    context: dict[str, Any] = {
        "form": form,
        "found": found,
        "left": left,
        "obstacle": OBSTACLES[left.obstacle] if left.obstacle else "",
        "back_url": address,
        "post_url": request.path,
    }
    return show_dialog(
        request,
        "backoffice/payments/_refund.html",
        context,
        title=_("Refund %(id)s") % {"id": found.public_id},
        section="payments",
        status=422 if form.errors else 200,
    )


def _order(request: HttpRequest, found: TopUpRow, form: RefundForm) -> Ordered | None:
    """What was ordered; None when the form says why not."""
    try:
        return order_refund(
            top_up_id=found.id,
            amount_nanos=form.cleaned_data["amount_nanos"],
            reason=form.cleaned_data["reason"],
            actor=operator_actor(request),
            now=utc_now(),
        )
    except NotRefundable as error:
        form.add_error(None, _not_refundable_text(error.refundable))
    except InvalidRefund:
        form.add_error("amount", _("It has to be a whole number of the currency's smallest coin."))
    except AboveLimit as error:
        note_refusal(
            request,
            action="refund.order",
            reason="Above what one operator refunds within a day.",
            tenant_id=found.tenant_id,
            target=found.public_id,
        )
        form.add_error(None, _above_limit_text(error.left_nanos, found.currency))
    except PaymentsNotConfigured:
        form.add_error(None, _("This installation has no key of Stripe."))
    return None


def _not_refundable_text(left: Refundable) -> str:
    if left.obstacle is not None:
        return str(OBSTACLES[left.obstacle])
    most = amount_text(left.amount_nanos, left.currency)
    return _("At most %(most)s can be refunded now.") % {"most": most}


def _above_limit_text(left_nanos: int, currency: str) -> str:
    left = amount_text(left_nanos, currency)
    return _("That is more than one operator refunds within a day: %(left)s, with tax, is left of yours.") % {
        "left": left
    }


def _ordered_text(ordered: Ordered) -> str:
    if ordered.state == RefundState.SUCCEEDED:
        return _("The refund is paid back.")
    if ordered.state == RefundState.FAILED:
        return _("Stripe refused the refund (%(code)s). The credit is the organization's again.") % {
            "code": ordered.failure_code
        }
    return _("The refund is on its way.")
