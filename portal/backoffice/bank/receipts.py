"""Money that came in by bank transfer: recorded by one operator, credited by another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from django.forms import Form
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext as _

from portal.backoffice.bank.forms import ReceiptForm
from portal.backoffice.bank.words import RECEIPT_STATES
from portal.backoffice.pages import note_refusal, operator_actor, operator_page, show_dialog
from portal.backoffice.tenants.forms import OptionalReasonForm, ReasonForm
from portal.kit.clock import utc_now
from portal.kit.ids import PREFIXES, public_id
from portal.pages.access import optional_id, parse_id
from portal.pages.answers import done, person_id, show
from portal.pages.tags import amount_text
from quotas.payments import bank
from quotas.payments.bank_queries import ReceiptRow, decided_receipts, find_receipt, waiting_receipts

PAGE_ROWS: Final = 50
FORM_METHODS: Final = ("GET", "HEAD", "POST")


@operator_page()
def receipts(request: HttpRequest) -> HttpResponse:
    """What waits for a second operator, and the history. In the address: before (further back)."""
    now, operator_id = utc_now(), person_id(request)
    history = decided_receipts(
        before=optional_id("bank_receipt", request.GET.get("before", "")), limit=PAGE_ROWS
    )
    context = {
        "section": "bank",
        "tab": "receipts",
        "waiting": [
            (row, row.recorded_by_id == operator_id, (now - row.recorded_at).total_seconds())
            for row in waiting_receipts()
        ],
        "history": [(row, *RECEIPT_STATES[row.state]) for row in history.rows],
        "next": public_id(PREFIXES["bank_receipt"], history.next) if history.next else "",
        "is_first": not request.GET.get("before"),
    }
    return show(request, "backoffice/bank/receipts.html", context)


@operator_page(methods=FORM_METHODS)
def record(request: HttpRequest) -> HttpResponse:
    """GET the form; POST a line of the bank's statement. Errors: 422 with the form."""
    now = utc_now()
    form = ReceiptForm(_posted(request), initial={"value_date": now.date()}, auto_id="receipt_%s")
    if request.method == "POST" and form.is_valid():
        row = _recorded(request, form)
        if row is not None:
            text = _("Recorded for %(organization)s: %(amount)s. It waits for a second operator.") % {
                "organization": row.organization,
                "amount": amount_text(row.amount_nanos, row.currency),
            }
            return done(request, reverse("backoffice:bank"), text)
    context = {"form": form, "post_url": request.path}
    return _dialog(request, "_record.html", context, _("Record a bank transfer"), 422 if form.errors else 200)


def _recorded(request: HttpRequest, form: ReceiptForm) -> ReceiptRow | None:
    values = form.cleaned_data
    line = bank.BankLine(
        currency=values["currency"],
        amount_nanos=values["amount"],
        tax_nanos=values["tax"],
        value_date=values["value_date"],
        transaction_id=values["transaction_id"],
        payer_name=values["payer_name"],
    )
    try:
        return bank.record_receipt(
            payee=values["payee"],
            line=line,
            reason=values["reason"],
            actor=operator_actor(request),
            now=utc_now(),
        )
    except bank.PayerUnknown:
        form.add_error("payee", _("No organization has this reference, or several are named."))
    except bank.WrongCurrency as error:
        form.add_error("currency", _("The organization's currency is %(one)s.") % {"one": error.currency})
    except bank.AlreadyRecorded as error:
        same = public_id(PREFIXES["bank_receipt"], error.receipt_id) if error.receipt_id else ""
        form.add_error("transaction_id", _("This line is recorded already: %(same)s") % {"same": same})
    except bank.InvalidReceipt:
        form.add_error(None, _("The line cannot be right: look at its date, amounts and names again."))
    return None


@operator_page(methods=FORM_METHODS)
def approve(request: HttpRequest, bank_receipt: str) -> HttpResponse:
    """GET the question; POST credits it, unless the same operator recorded it."""
    form = OptionalReasonForm(_posted(request), auto_id="approve_%s")
    return _decide(request, bank_receipt, form, "approve", _("Credit the transfer?"), bank.approve_receipt)


@operator_page(methods=FORM_METHODS)
def refuse(request: HttpRequest, bank_receipt: str) -> HttpResponse:
    """GET the question; POST reason."""
    form = ReasonForm(_posted(request), auto_id="refuse_%s")
    return _decide(request, bank_receipt, form, "refuse", _("Refuse the receipt?"), bank.refuse_receipt)


@operator_page(methods=FORM_METHODS)
def withdraw(request: HttpRequest, bank_receipt: str) -> HttpResponse:
    """GET the question; POST takes one's own receipt back."""
    form = OptionalReasonForm(_posted(request), auto_id="withdraw_%s")
    return _decide(
        request, bank_receipt, form, "withdraw", _("Withdraw your receipt?"), bank.withdraw_receipt
    )


def _decide(
    request: HttpRequest,
    bank_receipt: str,
    form: Form,
    verb: str,
    title: str,
    decide: Callable[..., ReceiptRow],
) -> HttpResponse:
    found = find_receipt(receipt_id=parse_id("bank_receipt", bank_receipt))
    if found is None:
        raise Http404
    status = 200
    if request.method == "POST" and form.is_valid():
        try:
            decided = decide(
                receipt_id=found.id,
                actor=operator_actor(request),
                now=utc_now(),
                reason=form.cleaned_data["reason"],
            )
        except (bank.OwnReceipt, bank.NotYourReceipt) as error:
            status = 403
            form.add_error(None, _refused_text(error))
            note_refusal(
                request,
                action=f"bank.{verb}",
                reason=f"{error}.".capitalize(),
                tenant_id=found.tenant_id,
                target=found.public_id,
            )
        except bank.ReceiptDecided as error:
            form.add_error(
                None, _("It is decided already: %(state)s.") % {"state": RECEIPT_STATES[error.state][1]}
            )
        else:
            text = _("The receipt %(id)s: %(state)s.") % {
                "id": decided.public_id,
                "state": RECEIPT_STATES[decided.state][1],
            }
            return done(request, reverse("backoffice:bank"), text)
    # Whoever recorded it comes here by address only, and can do something else about it.
    is_own = verb != "withdraw" and found.recorded_by_id == person_id(request)
    context = {"row": found, "form": form, "verb": verb, "post_url": request.path, "is_own": is_own}
    if status == 200 and form.errors:
        status = 422
    return _dialog(request, "_decide.html", context, _("Bank receipt") if is_own else title, status)


def _refused_text(error: Exception) -> str:
    if isinstance(error, bank.OwnReceipt):
        return _(
            "You recorded this receipt; another operator decides about it. The attempt was written down."
        )
    return _("Somebody else recorded it. The attempt was written down.")


def _dialog(
    request: HttpRequest, fragment: str, context: dict[str, Any], title: str, status: int
) -> HttpResponse:
    return show_dialog(
        request, f"backoffice/bank/{fragment}", context, title=title, section="bank", status=status
    )


def _posted(request: HttpRequest) -> Any:
    return request.POST if request.method == "POST" else None
