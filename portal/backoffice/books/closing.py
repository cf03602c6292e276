"""The question whether a month is to be closed, and closing it."""

from __future__ import annotations

from typing import Any, Final

from django import forms
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from portal.backoffice.pages import operator_actor, operator_page, show_dialog
from portal.backoffice.tenants.forms import reason_field
from portal.kit.clock import utc_now
from portal.pages.answers import done
from quotas.books.closing import BooksDisagree, ClosingBusy, Month, MonthNotClosable, close_month, next_month

FORM_METHODS: Final = ("GET", "HEAD", "POST")


class CloseForm(forms.Form):
    """month: its first day; what the question was about."""

    month = forms.DateField(widget=forms.HiddenInput)
    reason = reason_field(gettext_lazy("Stands in the audit log and beside the month."))


@operator_page(methods=FORM_METHODS)
def close(request: HttpRequest) -> HttpResponse:
    """GET the question about the month that is next; POST month and reason."""
    following = next_month(now=utc_now())
    if following is None:
        raise Http404
    form = CloseForm(
        request.POST if request.method == "POST" else None,
        initial={"month": following.month.day},
        auto_id="close_%s",
    )
    address = reverse("backoffice:books")
    if request.method == "POST" and form.is_valid():
        closed = _close(request, form)
        if closed is not None:
            return done(request, address, _("%(month)s is closed.") % {"month": closed})
    context: dict[str, Any] = {
        "form": form,
        "next": following,
        "back_url": address,
        "post_url": request.path,
    }
    return show_dialog(
        request,
        "backoffice/books/_close.html",
        context,
        title=_("Close %(month)s?") % {"month": following.month},
        section="books",
        status=422 if form.errors else 200,
    )


def _close(request: HttpRequest, form: CloseForm) -> Month | None:
    """The month that was closed; None when the form says why not."""
    try:
        return close_month(
            month=form.cleaned_data["month"],
            reason=form.cleaned_data["reason"],
            actor=operator_actor(request),
            now=utc_now(),
        )
    except MonthNotClosable:
        form.add_error(None, _("This month cannot be closed now. It may be closed already."))
    except ClosingBusy:
        form.add_error(None, _("Somebody is still posting. Try again in a moment."))
    except BooksDisagree as error:
        form.add_error(
            None,
            _("The ledger does not add up: %(transfers)d transfers, %(wallets)d wallets. Run the audit.")
            % {"transfers": error.transfers, "wallets": error.wallets},
        )
    return None
