"""Which organization: the way in after signing in, and opening another one."""

from typing import Any

from django import forms
from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from portal.kit.ids import PREFIXES, public_id
from portal.pages.access import LAST_ORGANIZATION, organizations_of, sign_in_first
from portal.pages.answers import person_id, show
from quotas import operations as quota_operations
from tenants import operations
from tenants.scope import role_scope


class OrganizationForm(forms.Form):
    """Name and currency; the currency is not asked when there is only one."""

    name = forms.CharField(
        label=gettext_lazy("Name"),
        max_length=200,
        help_text=gettext_lazy("Your company or team. It can be changed later."),
        widget=forms.TextInput(attrs={"autocomplete": "organization"}),
    )
    currency = forms.ChoiceField(
        label=gettext_lazy("Currency"),
        help_text=gettext_lazy("Of the balance and of every price. It cannot be changed later."),
    )

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        currencies = settings.CURRENCIES
        self.fields["currency"].choices = [(code, code) for code in currencies]  # type: ignore[attr-defined]
        if len(currencies) == 1:
            self.fields["currency"].widget = forms.HiddenInput()
            self.fields["currency"].initial = currencies[0]


def chooser(request: HttpRequest) -> HttpResponse:
    """GET: to the organization visited last, the only one, a list, or the form to open the first
    (operators without one: to their pages).

    `?choose=1` shows the list in any case.
    """
    if not request.user.is_authenticated:
        return sign_in_first(request)
    if request.method not in ("GET", "HEAD"):
        return HttpResponseNotAllowed(["GET", "HEAD"])
    found = organizations_of(person_id(request))
    if not found:
        # An operator works for the service and needs no organization; the operators' pages are the way in.
        first = "backoffice:witness" if request.user.is_staff else "console:new"
        return HttpResponseRedirect(reverse(first))
    if "choose" not in request.GET:
        last = request.session.get(LAST_ORGANIZATION)
        visited = [one for one in found if one.public_id == last]
        if visited or len(found) == 1:
            target = (visited or found)[0]
            return HttpResponseRedirect(reverse("console:overview", args=[target.public_id]))
    return show(request, "console/chooser/list.html", {"choices": found})


def new_organization(request: HttpRequest) -> HttpResponse:
    """GET the form; POST name and currency. Whoever opens an organization owns it."""
    if not request.user.is_authenticated:
        return sign_in_first(request)
    if request.method not in ("GET", "HEAD", "POST"):
        return HttpResponseNotAllowed(["GET", "HEAD", "POST"])
    form = OrganizationForm(request.POST or None) if request.method == "POST" else OrganizationForm()
    if request.method == "POST" and form.is_valid():
        try:
            with role_scope("auth"):
                tenant_id = quota_operations.open_tenant(
                    name=form.cleaned_data["name"],
                    currency=form.cleaned_data["currency"],
                    currencies=settings.CURRENCIES,
                    owner_id=person_id(request),
                )
        except operations.InvalidName:
            form.add_error("name", _("A name has 1 to 200 characters that can be printed, and no link."))
        except operations.TooManyOrganizations:
            form.add_error(None, _("You own as many organizations as one person may."))
        else:
            opened = public_id(PREFIXES["organization"], tenant_id)
            return HttpResponseRedirect(reverse("console:overview", args=[opened]))
    is_first = not organizations_of(person_id(request))
    context = {"form": form, "is_first": is_first}
    return show(request, "console/chooser/new.html", context, status=422 if form.errors else 200)
