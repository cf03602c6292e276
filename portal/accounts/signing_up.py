"""Sign-up: the person, the organization and the mail commit together, and two at once make one account."""

from typing import Any

from allauth.account.views import SignupView as BaseSignupView
from allauth.socialaccount.views import SignupView as BaseSocialSignupView
from django.contrib.auth.hashers import make_password
from django.db import IntegrityError, transaction
from django.http import HttpResponse
from django.utils.translation import gettext as _

from portal.accounts import invitations
from portal.accounts.adapter import ADDRESS_TO_CONFIRM
from tenants import operations


class OneTransaction:
    """What a valid form does commits together, or not at all."""

    def form_valid(self, form: Any) -> HttpResponse:
        response = self._sign_up(form)
        # Shown whether there was an account or not: the page must not tell.
        self.request.session[ADDRESS_TO_CONFIRM] = form.cleaned_data.get("email", "")  # type: ignore[attr-defined]
        return response

    def _sign_up(self, form: Any) -> HttpResponse:
        if not form.account_already_exists:
            try:
                with transaction.atomic():
                    response: HttpResponse = super().form_valid(form)  # type: ignore[misc]
                return response
            except (operations.InvitationNotFound, operations.InvitationExpired):
                form.add_error(None, _("The invitation ended in this moment. Ask for a new one."))
                invalid: HttpResponse = self.form_invalid(form)  # type: ignore[attr-defined]
                return invalid
            except IntegrityError as error:
                if "tenants_user_email" not in str(error):
                    raise
                # Somebody else signed up with this address at this moment.
                form.account_already_exists = True
        # A new account costs the time of a hash; that there is one already must not show by being quicker.
        make_password(form.cleaned_data.get("password1"))
        with transaction.atomic():
            pretended: HttpResponse = super().form_valid(form)  # type: ignore[misc]
        return pretended


class SignupView(OneTransaction, BaseSignupView):  # type: ignore[misc]
    """Sign-up with an address and a password."""

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        context: dict[str, Any] = super().get_context_data(**kwargs)
        remembered = invitations.remembered(self.request)
        return {**context, "invitation": remembered.invitation if remembered else None}


class SocialSignupView(OneTransaction, BaseSocialSignupView):  # type: ignore[misc]
    """Sign-up with an account elsewhere, whose address may be verified already: then it ends signed in, where
    the welcome credit is settled."""
