"""Deciding about discrepancies: one at a time, or those chosen in the list. Each time with a reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlencode
from uuid import UUID

from django.core.exceptions import BadRequest
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from portal.backoffice.pages import operator_actor, operator_page, show_dialog
from portal.backoffice.reconciliation.filters import DISCREPANCY_NAMES, given
from portal.backoffice.reconciliation.forms import CorrectForm
from portal.backoffice.reconciliation.queue import found_discrepancy, shown_discrepancies
from portal.backoffice.tenants.forms import ReasonForm
from portal.kit.clock import utc_now
from portal.pages.access import optional_id
from portal.pages.answers import done
from portal.pages.tags import amount_text, count_text
from quotas.reconciliation import corrections
from quotas.reconciliation.corrections import BulkAction, BulkAnswer, ByHand
from quotas.reconciliation.review.discrepancies import DiscrepancyRow, find_discrepancies
from quotas.reconciliation.review.evidence import evidence_of

FORM_METHODS: Final = ("GET", "HEAD", "POST")
ACTIONS: Final = {
    BulkAction.ACCEPT: (
        gettext_lazy("Accept"),
        gettext_lazy("The gateway's word stands: nothing is posted, and the difference is left as it is."),
    ),
    BulkAction.WAIVE: (
        gettext_lazy("Waive"),
        gettext_lazy("The bill stays as it is, and what the backend served beyond it is our expense."),
    ),
    BulkAction.APPROVE: (
        gettext_lazy("Approve"),
        gettext_lazy("The correction is posted as the backend's record says, once."),
    ),
}
_REFUSALS: Final[Mapping[type[Exception], Any]] = {
    corrections.UnknownDiscrepancy: gettext_lazy("It does not exist any more."),
    corrections.NotOpen: gettext_lazy("Somebody has decided about it already."),
    corrections.NothingToCorrect: gettext_lazy("There is nothing to correct: what is posted says the same."),
    corrections.CannotTell: gettext_lazy(
        "The records do not say how much it was. Correct it by hand, or accept it."
    ),
    corrections.TooOld: gettext_lazy(
        "It lies too far back to cost the organization more. Accept or waive it instead."
    ),
    corrections.NotNow: gettext_lazy(
        "The call is not settled yet, or its organization is busy. Try again in a moment."
    ),
}
_DOMAIN_ERRORS: Final[tuple[type[Exception], ...]] = (*_REFUSALS, corrections.OutOfBounds)


@operator_page(methods=FORM_METHODS, atomic=False)
def accept(request: HttpRequest, discrepancy: str) -> HttpResponse:
    """GET the question; POST reason."""
    return _decide(request, found_discrepancy(discrepancy), BulkAction.ACCEPT, corrections.accept)


@operator_page(methods=FORM_METHODS, atomic=False)
def waive(request: HttpRequest, discrepancy: str) -> HttpResponse:
    """GET the question; POST reason."""
    return _decide(request, found_discrepancy(discrepancy), BulkAction.WAIVE, corrections.waive)


@operator_page(methods=FORM_METHODS, atomic=False)
def approve(request: HttpRequest, discrepancy: str) -> HttpResponse:
    """GET the question; POST reason."""
    return _decide(request, found_discrepancy(discrepancy), BulkAction.APPROVE, corrections.approve)


def _decide(
    request: HttpRequest, row: DiscrepancyRow, action: BulkAction, operation: Callable[..., Any]
) -> HttpResponse:
    form = ReasonForm(request.POST if request.method == "POST" else None, auto_id="decide_%s")
    address = reverse("backoffice:discrepancy", args=[row.public_id])
    label, text = ACTIONS[action]
    if request.method == "POST" and form.is_valid():
        try:
            operation(
                discrepancy_id=row.id,
                actor=operator_actor(request),
                reason=form.cleaned_data["reason"],
                now=utc_now(),
            )
        except _DOMAIN_ERRORS as error:
            form.add_error(None, refusal_text(error))
        else:
            return done(request, address, _("The discrepancy %(id)s is decided.") % {"id": row.public_id})
    context = {
        "form": form,
        "text": f"{text} {_money_text(row, action)}".strip(),
        "label": label,
        "back_url": address,
        "post_url": request.path,
    }
    return show_dialog(
        request,
        "backoffice/reconciliation/_reason.html",
        context,
        title=_("%(action)s: %(id)s") % {"action": label, "id": row.public_id},
        section="reconciliation",
        status=422 if form.errors else 200,
    )


def _money_text(row: DiscrepancyRow, action: BulkAction) -> str:
    if action != BulkAction.APPROVE or row.delta_nanos is None:
        return ""
    amount = amount_text(row.delta_nanos, row.currency, sign=True)
    return _("The charge of %(organization)s changes by %(amount)s.") % {
        "organization": row.tenant_name,
        "amount": amount,
    }


@operator_page(methods=FORM_METHODS, atomic=False)
def correct(request: HttpRequest, discrepancy: str) -> HttpResponse:
    """GET the form, filled with what the record says, else with what was posted; POST it."""
    row = found_discrepancy(discrepancy)
    evidence = evidence_of(row=row)
    posted = evidence.newest
    proposed = row.feed if not row.feed.says_nothing else posted.counts if posted else row.gateway
    known = posted.counts if posted else row.gateway
    initial = {
        name: next((n for n in (getattr(proposed, name), getattr(known, name)) if n is not None), 0)
        for name in ("prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens")
    }
    form = CorrectForm(
        request.POST if request.method == "POST" else None, initial=initial, auto_id="correct_%s"
    )
    address = reverse("backoffice:discrepancy", args=[row.public_id])
    if request.method == "POST" and form.is_valid():
        values = dict(form.cleaned_data)
        reason = values.pop("reason")
        try:
            corrections.correct_by_hand(
                discrepancy_id=row.id,
                counts=ByHand(**values),
                actor=operator_actor(request),
                reason=reason,
                now=utc_now(),
            )
        except corrections.OutOfBounds as error:
            form.add_error(error.field if error.field in form.fields else None, refusal_text(error))
        except _DOMAIN_ERRORS as error:
            form.add_error(None, refusal_text(error))
        else:
            return done(request, address, _("The call %(id)s is corrected.") % {"id": row.request})
    context = {
        "form": form,
        "row": row,
        "call": evidence.call,
        "back_url": address,
        "post_url": request.path,
    }
    return show_dialog(
        request,
        "backoffice/reconciliation/_correct.html",
        context,
        title=_("Correct %(id)s by hand") % {"id": row.request},
        section="reconciliation",
        status=422 if form.errors else 200,
    )


@operator_page(methods=("POST",), atomic=False)
def decide_many(request: HttpRequest) -> HttpResponse:
    """POST action and id (several) to be asked for the reason; with is_asked and reason to do it, each one by
    itself. The answer says what happened to each."""
    chosen = _chosen(request)
    rows = find_discrepancies(ids=chosen[: corrections.MAX_BULK])
    action = _action(request.POST.get("action", ""))
    is_asked = "is_asked" in request.POST
    form = ReasonForm(request.POST if is_asked else None, auto_id="decide_%s")
    label, text = ACTIONS[action]
    context: dict[str, Any] = {
        "form": form,
        "action": action.value,
        "text": text,
        "label": label,
        "shown": shown_discrepancies(rows),
        "most": corrections.MAX_BULK,
        "is_cut": len(chosen) > corrections.MAX_BULK,
        "back_url": _back(request),
        "back_query": _filters(request),
        "post_url": request.path,
    }
    title = ngettext("%(action)s %(n)d discrepancy", "%(action)s %(n)d discrepancies", len(rows))
    fragment = "_decide_many"
    if rows and is_asked and form.is_valid():
        answers = corrections.decide_many(
            action=action,
            discrepancy_ids=[row.id for row in rows],
            actor=operator_actor(request),
            reason=form.cleaned_data["reason"],
            now=utc_now(),
        )
        context |= _told(rows, answers)
        fragment = "_decided_many"
    return show_dialog(
        request,
        f"backoffice/reconciliation/{fragment}.html",
        context,
        title=title % {"action": label, "n": len(rows)},
        section="reconciliation",
        status=422 if form.errors or not rows else 200,
    )


def _told(rows: list[DiscrepancyRow], answers: list[BulkAnswer]) -> dict[str, Any]:
    by_id = {row.id: row for row in rows}
    told = [
        (by_id[answer.discrepancy_id], refusal_text(answer.error) if answer.error else "")
        for answer in answers
    ]
    return {
        "told": sorted(told, key=lambda one: not one[1]),
        "done_count": sum(not answer.error for answer in answers),
        "refused_count": sum(bool(answer.error) for answer in answers),
    }


def refusal_text(error: Exception) -> str:
    """Why something was not done, and what to do instead."""
    if isinstance(error, corrections.OutOfBounds):
        return _("At most %(most)s: the call was admitted with no more.") % {"most": count_text(error.most)}
    known = next((text for kind, text in _REFUSALS.items() if isinstance(error, kind)), None)
    return str(known) if known else _("It could not be done just now. Try again in a moment.")


def _chosen(request: HttpRequest) -> list[UUID]:
    """The ids that were ticked, each once; what is none counts as not given."""
    found = (optional_id("discrepancy", text) for text in request.POST.getlist("id")[:1000])
    return list(dict.fromkeys(one for one in found if one is not None))


def _action(text: str) -> BulkAction:
    """Errors: BadRequest; nothing is done that was not asked for."""
    if text not in BulkAction.__members__:
        raise BadRequest("there is no such action")
    return BulkAction(text)


def _filters(request: HttpRequest) -> dict[str, str]:
    """Those of the list that was decided about, so that the way back leads to it."""
    return {name: value for name, value in given(request.POST, DISCREPANCY_NAMES).items() if value}


def _back(request: HttpRequest) -> str:
    query = urlencode(_filters(request))
    address = reverse("backoffice:discrepancies")
    return f"{address}?{query}" if query else address
