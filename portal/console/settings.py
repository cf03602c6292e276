"""Settings of an organization: its name, and what programs and support ask for."""

from django import forms
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from portal.pages.access import Organization, organization_page
from portal.pages.answers import done, show
from tenants import operations
from tenants.permissions import Permission


class NameForm(forms.Form):
    """What the organization is called."""

    name = forms.CharField(
        label=gettext_lazy("Name"),
        max_length=200,
        help_text=gettext_lazy("Members see it, and people whom you invite."),
        widget=forms.TextInput(attrs={"autocomplete": "organization"}),
    )


@organization_page(Permission.MANAGE_ORGANIZATION, methods=("GET", "HEAD", "POST"))
def settings_page(request: HttpRequest, organization: Organization) -> HttpResponse:
    """GET the settings; POST name. Errors: 422 with the form."""
    form = NameForm(request.POST if request.method == "POST" else None, initial={"name": organization.name})
    if request.method == "POST" and form.is_valid():
        try:
            operations.rename_tenant(tenant_id=organization.tenant_id, name=form.cleaned_data["name"])
        except operations.InvalidName:
            form.add_error("name", _("A name has 1 to 200 characters that can be printed, and no link."))
        else:
            text = _("The organization is called “%(name)s” now.") % form.cleaned_data
            return done(request, reverse("console:settings", args=[organization.public_id]), text)
    context = {"section": "settings", "form": form}
    return show(request, "console/settings/page.html", context, status=422 if form.errors else 200)
