"""What waits for a second operator: credit orders and held welcome credits; and what was decided."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from django.forms import Form
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext as _

from portal.backoffice.orders import line_in_use_text, shown_orders, takes_too_much_text
from portal.backoffice.pages import note_refusal, operator_actor, operator_page, show_dialog
from portal.backoffice.tenants.forms import OptionalReasonForm, ReasonForm, WelcomeReasonForm
from portal.backoffice.words import ORDER_NAMES, ORDER_STATES
from portal.kit.clock import utc_now
from portal.kit.ids import PREFIXES, public_id
from portal.pages.access import optional_id, parse_id
from portal.pages.answers import done, person_id, show
from quotas import operations as quota_operations
from quotas.credit import operations
from quotas.credit.queries import CreditOrderRow, find_order, list_orders, waiting_orders
from quotas.models import WelcomeState
from quotas.welcome.queries import WelcomeRow, held_welcomes, welcome_of
from tenants.search import TenantRow, find_tenant

PAGE_ROWS: Final = 50
FORM_METHODS: Final = ("GET", "HEAD", "POST")
Decide = Callable[..., CreditOrderRow]


@operator_page()
def approvals(request: HttpRequest) -> HttpResponse:
    """What waits, and the history. In the address: before (the history's page further back)."""
    now, operator_id = utc_now(), person_id(request)
    history = list_orders(
        is_decided=True, before=optional_id("credit_order", request.GET.get("before", "")), limit=PAGE_ROWS
    )
    context = {
        "section": "approvals",
        "waiting": shown_orders(waiting_orders(), operator_id=operator_id, now=now),
        "welcomes": [(held, (now - held.created_at).total_seconds()) for held in held_welcomes()],
        "history": shown_orders(history.rows, operator_id=operator_id, now=now),
        "next": public_id(PREFIXES["credit_order"], history.next) if history.next else "",
        "is_first": not request.GET.get("before"),
    }
    return show(request, "backoffice/approvals/list.html", context)


@operator_page(methods=FORM_METHODS)
def approve(request: HttpRequest, order: str) -> HttpResponse:
    """GET the question; POST carries the order out, unless the same operator gave it."""
    form = OptionalReasonForm(_posted(request), auto_id="approve_%s")
    return _decide(request, order, form, "approve", _("Approve the order?"), operations.approve_order)


@operator_page(methods=FORM_METHODS)
def refuse(request: HttpRequest, order: str) -> HttpResponse:
    """GET the question; POST reason."""
    form = ReasonForm(_posted(request), auto_id="refuse_%s")
    return _decide(request, order, form, "refuse", _("Refuse the order?"), operations.refuse_order)


@operator_page(methods=FORM_METHODS)
def withdraw(request: HttpRequest, order: str) -> HttpResponse:
    """GET the question; POST takes one's own order back."""
    form = OptionalReasonForm(_posted(request), auto_id="withdraw_%s")
    return _decide(request, order, form, "withdraw", _("Withdraw your order?"), operations.withdraw_order)


def _decide(
    request: HttpRequest, order: str, form: Form, verb: str, title: str, decide: Decide
) -> HttpResponse:
    found = find_order(order_id=parse_id("credit_order", order))
    if found is None:
        raise Http404
    status = 200
    if request.method == "POST" and form.is_valid():
        try:
            decided = decide(
                order_id=found.id,
                actor=operator_actor(request),
                now=utc_now(),
                reason=form.cleaned_data["reason"],
            )
        except (operations.OwnOrder, operations.NotYourOrder) as error:
            status = 403
            form.add_error(None, _refused_text(error))
            note_refusal(
                request,
                action=f"credit.{verb}",
                reason=f"{error}.".capitalize(),
                tenant_id=found.tenant_id,
                target=found.public_id,
            )
        except operations.OrderDecided as error:
            form.add_error(None, _decided_text(error))
        except operations.CreditLineInUse as error:
            form.add_error(None, line_in_use_text(error.used_nanos, found.currency))
        except operations.TakesTooMuch as error:
            form.add_error(None, takes_too_much_text(error.most_nanos, found.currency))
        else:
            text = _("The order %(id)s: %(state)s.") % {
                "id": decided.public_id,
                "state": ORDER_STATES[decided.state][1],
            }
            return done(request, reverse("backoffice:approvals"), text)
    # Whoever ordered it comes here by address only, and can do something else about it.
    is_own = verb != "withdraw" and found.ordered_by_id == person_id(request)
    context = {
        "order": found,
        "name": ORDER_NAMES[found.kind],
        "form": form,
        "verb": verb,
        "post_url": request.path,
        "is_own": is_own,
    }
    title = _("Credit order") if is_own else title
    return _dialog(request, "_decide.html", form, title, context, status=status)


@operator_page(methods=FORM_METHODS)
def approve_welcome(request: HttpRequest, organization: str) -> HttpResponse:
    """GET the question; POST gives the welcome credit."""
    form = OptionalReasonForm(_posted(request), auto_id="welcome_approve_%s")
    said, title = _("The welcome credit is given."), _("Give the welcome credit?")
    return _decide_welcome(request, organization, form, quota_operations.approve_welcome, said, title)


@operator_page(methods=FORM_METHODS)
def refuse_welcome(request: HttpRequest, organization: str) -> HttpResponse:
    """GET the question; POST reason, which the organization reads."""
    form = WelcomeReasonForm(_posted(request), auto_id="welcome_refuse_%s")
    said, title = _("The welcome credit is refused."), _("Refuse the welcome credit?")
    return _decide_welcome(request, organization, form, quota_operations.refuse_welcome, said, title)


def _decide_welcome(
    request: HttpRequest,
    organization: str,
    form: Form,
    decide: Callable[..., object],
    said: str,
    title: str,
) -> HttpResponse:
    tenant, held = _held_welcome(organization)
    if request.method == "POST" and form.is_valid():
        try:
            decide(
                tenant_id=tenant.id,
                actor=operator_actor(request),
                reason=form.cleaned_data["reason"],
                now=utc_now(),
            )
        except quota_operations.WelcomeNotHeld:
            form.add_error(None, _("Another operator has decided meanwhile."))
        else:
            return done(request, reverse("backoffice:approvals"), said)
    verb = "approve" if decide is quota_operations.approve_welcome else "refuse"
    return _welcome_dialog(request, tenant, held, form, verb, title)


def _held_welcome(organization: str) -> tuple[TenantRow, WelcomeRow]:
    """The organization of an address with its welcome credit, which waits. Raises Http404."""
    tenant = find_tenant(tenant_id=parse_id("organization", organization))
    held = welcome_of(tenant_id=tenant.id) if tenant else None
    if tenant is None or held is None or held.state != WelcomeState.HELD:
        raise Http404
    return tenant, held


def _welcome_dialog(
    request: HttpRequest, tenant: TenantRow, held: WelcomeRow, form: Form, verb: str, title: str
) -> HttpResponse:
    context = {
        "tenant": tenant,
        "held": held,
        "form": form,
        "verb": verb,
        "post_url": request.path,
    }
    return _dialog(request, "_welcome.html", form, title, context)


def _dialog(
    request: HttpRequest, fragment: str, form: Form, title: str, context: dict[str, Any], *, status: int = 200
) -> HttpResponse:
    if status == 200 and form.errors:
        status = 422
    return show_dialog(
        request,
        f"backoffice/approvals/{fragment}",
        context,
        title=title,
        section="approvals",
        status=status,
    )


def _refused_text(error: Exception) -> str:
    if isinstance(error, operations.OwnOrder):
        return _("You gave this order; another operator decides about it. The attempt was written down.")
    return _("Somebody else gave this order. The attempt was written down.")


def _decided_text(error: operations.OrderDecided) -> str:
    return _("It is decided already: %(state)s.") % {"state": ORDER_STATES[error.state][1]}


def _posted(request: HttpRequest) -> Any:
    return request.POST if request.method == "POST" else None
