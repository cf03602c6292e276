"""Auto-recharge: how it stands, what is bought when, with which card, and what it did this month."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote

from django import forms
from django.http import HttpRequest, HttpResponse, QueryDict
from django.urls import reverse
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from portal.console.billing import words
from portal.kit.clock import utc_now
from portal.kit.money import InvalidAmount, amount_to_decimal_text, parse_amount
from portal.pages.access import Organization, organization_page
from portal.pages.answers import done, leave_for, person_id, show
from portal.pages.tags import amount_text
from quotas.models import RechargeState, TopUpState
from quotas.payments import checkout, recharge
from quotas.payments.client import PaymentsNotConfigured, takes_cards
from quotas.payments.recharge import FieldProblem, Problem, RechargeView
from quotas.payments.sending import StripeRefused, StripeUnavailable
from tenants.operations import audit
from tenants.permissions import Permission
from tenants.scope import tenant_scope

MAX_SESSION_LENGTH: Final = 255
SESSION_PLACE: Final = "{CHECKOUT_SESSION_ID}"
STATES: Final = {
    RechargeState.OFF: (gettext_lazy("Off"), "badge-quiet"),
    RechargeState.ON: (gettext_lazy("On"), "badge-ok"),
    RechargeState.PAUSED: (gettext_lazy("Paused"), "badge-warn"),
}
_NOT_REACHED: Final = gettext_lazy(
    "The payment provider could not be reached. Nothing was charged; try again in a moment."
)


class AmountField(forms.CharField):
    """An amount of the organization's currency; its value is in nano-units."""

    def __init__(self, **options: Any) -> None:
        attributes = {"inputmode": "decimal", "autocomplete": "off"}
        super().__init__(max_length=32, widget=forms.TextInput(attrs=attributes), **options)

    def clean(self, value: Any) -> int:
        text = super().clean(value)
        try:
            return parse_amount(text.replace(",", ""))
        except InvalidAmount:
            raise forms.ValidationError(_("Give an amount such as 25 or 12.50.")) from None


class RechargeForm(forms.Form):
    """What is bought when. The names of the fields are those of set_recharge."""

    threshold_nanos = AmountField(
        label=gettext_lazy("When the balance falls below"),
        help_text=gettext_lazy("Paid and granted credit, less what running calls may cost."),
    )
    amount_nanos = AmountField(label=gettext_lazy("Buy credit of"))
    monthly_cap_nanos = AmountField(
        label=gettext_lazy("At most in a month"),
        help_text=gettext_lazy("Months begin at midnight UTC. What you add yourself does not count."),
    )

    def __init__(self, data: QueryDict | None, *, view: RechargeView) -> None:
        shown = {name: amount_to_decimal_text(getattr(view, name)) for name in self.base_fields}
        super().__init__(data, initial=shown, auto_id="recharge_%s")
        self.currency = view.currency

    def refuse(self, error: recharge.InvalidRecharge) -> None:
        """Say beside each field what is wrong with it."""
        for name, problem in error.problems.items():
            self.add_error(name, self._text(name, problem))

    def _text(self, name: str, found: FieldProblem) -> str:
        bound = amount_text(found.bound_nanos, self.currency)
        match found.problem:
            case Problem.NOT_WHOLE:
                return _("Give an amount with at most two decimals.")
            case Problem.NOT_OFFERED:
                return _("This amount is not offered; see under Balance which ones are.")
            case Problem.TOO_LOW if name == "monthly_cap_nanos":
                return _("It has to allow at least one recharge: %(bound)s.") % {"bound": bound}
            case Problem.TOO_HIGH if name == "threshold_nanos":
                return _("At most what one recharge buys: %(bound)s.") % {"bound": bound}
            case Problem.TOO_LOW:
                return _("At least %(bound)s.") % {"bound": bound}
        return _("At most %(bound)s.") % {"bound": bound}


@organization_page(Permission.SEE_BILLING, opens_scope=False)
def recharge_page(request: HttpRequest, organization: Organization) -> HttpResponse:
    """The whole page. In the address: session, of the page where a card was saved, which leads back here."""
    session_id = request.GET.get("session", "")
    waits = False
    if session_id.startswith("cs_") and len(session_id) <= MAX_SESSION_LENGTH:
        try:
            recharge.apply_setup(session_id=session_id, now=utc_now())
        except (PaymentsNotConfigured, StripeUnavailable):
            # The provider's own message brings what this answer would have said.
            waits = True
    with tenant_scope(organization.tenant_id):
        return _show(request, organization, waits=waits)


@organization_page(Permission.PAY, methods=("POST",), opens_scope=False)
def set_recharge(request: HttpRequest, organization: Organization) -> HttpResponse:
    """POST the amounts: it is on with them. Without a saved card this leads on to where one is saved."""
    with tenant_scope(organization.tenant_id):
        view = recharge.recharge_view(tenant_id=organization.tenant_id, now=utc_now())
        form = RechargeForm(request.POST, view=view)
        if not form.is_valid():
            return _show(request, organization, form=form)
        try:
            state = recharge.set_recharge(
                tenant_id=organization.tenant_id,
                **form.cleaned_data,
                actor=audit.member(person_id(request), organization.role),
                now=utc_now(),
            )
        except recharge.InvalidRecharge as error:
            form.refuse(error)
            return _show(request, organization, form=form)
    if state == RechargeState.OFF:
        return _save_method(request, organization)
    return done(request, recharge_url(organization), _("Auto-recharge is set."))


@organization_page(Permission.PAY, methods=("POST",))
def turn_off(request: HttpRequest, organization: Organization) -> HttpResponse:
    """POST: nothing is bought by itself any more."""
    actor = audit.member(person_id(request), organization.role)
    recharge.turn_off(tenant_id=organization.tenant_id, actor=actor, now=utc_now())
    return done(request, recharge_url(organization), _("Auto-recharge is off."))


@organization_page(Permission.PAY, methods=("POST",), opens_scope=False)
def save_method(request: HttpRequest, organization: Organization) -> HttpResponse:
    """POST; leads on to the page where a card is saved."""
    return _save_method(request, organization)


@organization_page(Permission.PAY, methods=("POST",), opens_scope=False)
def confirm_payment(request: HttpRequest, organization: Organization) -> HttpResponse:
    """POST; leads on to a page where what the bank asks for can be given, and the same amount is paid."""
    place = checkout.TOP_UP_PLACE
    landing = reverse("console:top-up", args=[organization.public_id, place]).replace(quote(place), place)
    landing_url = f"{request.scheme}://{request.get_host()}{landing}"
    try:
        started = recharge.confirm_on_session(
            tenant_id=organization.tenant_id,
            user_id=person_id(request),
            success_url=landing_url,
            cancel_url=f"{landing_url}?left=1",
            now=utc_now(),
        )
    except recharge.NothingToConfirm:
        return done(request, recharge_url(organization), _("There is nothing to confirm any more."))
    except checkout.OrganizationClosed:
        return _fail(request, organization, _("This organization is closed; no credit can be added."))
    except checkout.AmountNotOffered:
        return _fail(request, organization, _("This amount is no longer offered. Set another one below."))
    except checkout.TooManyOpenTopUps:
        return _fail(request, organization, _("Too many top-ups wait to be paid. Continue one of them."))
    except PaymentsNotConfigured:
        return _fail(request, organization, _("This installation takes no payments by card."))
    except (StripeUnavailable, StripeRefused):
        return _fail(request, organization, _NOT_REACHED)
    return leave_for(request, started.pay_url)


def recharge_url(organization: Organization) -> str:
    return reverse("console:recharge", args=[organization.public_id])


def _save_method(request: HttpRequest, organization: Organization) -> HttpResponse:
    back = request.build_absolute_uri(recharge_url(organization))
    try:
        address = recharge.start_setup(
            tenant_id=organization.tenant_id,
            user_id=person_id(request),
            success_url=f"{back}?session={SESSION_PLACE}",
            cancel_url=back,
            now=utc_now(),
        )
    except recharge.TooManySetups:
        return _fail(request, organization, _("This was tried too often; wait an hour."))
    except PaymentsNotConfigured:
        return _fail(request, organization, _("This installation takes no payments by card."))
    except (StripeUnavailable, StripeRefused):
        return _fail(request, organization, _NOT_REACHED)
    return leave_for(request, address)


def _fail(request: HttpRequest, organization: Organization, text: str | Promise) -> HttpResponse:
    with tenant_scope(organization.tenant_id):
        return _show(request, organization, problem=text)


def _show(
    request: HttpRequest,
    organization: Organization,
    *,
    form: RechargeForm | None = None,
    problem: str | Promise = "",
    waits: bool = False,
) -> HttpResponse:
    """In the tenant's scope."""
    view = recharge.recharge_view(tenant_id=organization.tenant_id, now=utc_now())
    state, lamp = STATES[view.state]
    context: dict[str, Any] = {
        "section": "billing",
        "view": view,
        "state": state,
        "lamp": lamp,
        "form": form or RechargeForm(None, view=view),
        "problem": problem,
        "takes_cards": takes_cards(),
        "waits_for_method": waits and not view.method,
        "attempts": [_shown(attempt) for attempt in view.attempts],
        "max_declines": recharge.MAX_DECLINES,
        "used_percent": min(100, view.used_nanos * 100 // view.monthly_cap_nanos),
    }
    status = 422 if problem or (form is not None and form.errors) else 200
    return show(request, "console/recharge/page.html", context, status=status, private=True)


def _shown(attempt: recharge.RechargeAttempt) -> dict[str, Any]:
    # One that is open waits for nobody: it is being paid.
    shown = TopUpState.PROCESSING if attempt.state == TopUpState.OPEN else attempt.state
    return {
        "row": attempt,
        "state": words.STATES[shown],
        "lamp": words.LAMPS[shown],
        "failure": words.failure_text(attempt.failure_code) if attempt.state == TopUpState.FAILED else "",
    }
