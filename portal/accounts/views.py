"""Pages of a person's own account, of invitations and terms, and the mailbox of a development instance."""

from typing import Any, Final
from uuid import UUID

from allauth.account.models import EmailAddress
from allauth.account.utils import get_next_redirect_url
from allauth.socialaccount.adapter import get_adapter as get_social_adapter
from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_safe

from portal.accounts import invitations
from portal.accounts.forms import NameForm, TermsForm
from portal.kit.clock import utc_now
from portal.kit.ids import InvalidPublicId, parse_public_id, public_id
from portal.pages.roles import ROLE_NAMES
from tenants import operations, queries
from tenants.models import User
from tenants.queries import InvitationOffer, MailRow
from tenants.scope import role_scope

MAILBOX_SHOWS: Final = 200


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def account_settings(request: HttpRequest) -> HttpResponse:
    """The person's name, and the ways to everything else of the account."""
    form = NameForm(request.POST or None, instance=_user(request))
    if request.method == "POST" and form.is_valid():
        form.save()
        messages.success(request, _("Your name is changed."))
        return redirect("accounts:settings")
    context = {"form": form, "has_providers": bool(get_social_adapter().list_apps(request))}
    return render(request, "accounts/settings.html", context, status=422 if form.is_bound else 200)


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def accept_terms(request: HttpRequest) -> HttpResponse:
    """Accept the present terms and go on to where one was going."""
    next_url = get_next_redirect_url(request) or settings.LOGIN_REDIRECT_URL
    form = TermsForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        with role_scope("auth"):
            operations.accept_terms(user_id=_user(request).id, version=settings.TERMS_VERSION)
        return redirect(next_url)
    context = {"form": form, "next": next_url, "terms_version": settings.TERMS_VERSION}
    return render(request, "accounts/accept_terms.html", context, status=422 if form.is_bound else 200)


@require_safe
def terms(request: HttpRequest) -> HttpResponse:
    return render(request, "accounts/terms.html", {"terms_version": settings.TERMS_VERSION})


@require_safe
def privacy(request: HttpRequest) -> HttpResponse:
    return render(request, "accounts/privacy.html")


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def invitation(request: HttpRequest, token: str) -> HttpResponse:
    """An invitation, to whoever has its link: what it offers, and what one can do with it."""
    offer = invitations.find(token)
    if offer is None:
        return render(request, "accounts/invitation_over.html", status=410)
    if request.method == "POST":
        return _answer_invitation(request, token, offer)
    return render(request, "accounts/invitation.html", _invitation_context(request, token, offer))


def _invitation_context(request: HttpRequest, token: str, offer: InvitationOffer) -> dict[str, Any]:
    is_for_you = request.user.is_authenticated and offer.email in _verified_emails(request.user.id)
    return {
        "invitation": offer,
        "role": ROLE_NAMES[offer.role],
        "token": token,
        "is_for_you": is_for_you,
    }


def _answer_invitation(request: HttpRequest, token: str, offer: InvitationOffer) -> HttpResponse:
    action = request.POST.get("action")
    if not request.user.is_authenticated:
        invitations.remember(request, token)
        return redirect("account_signup")
    if action == "decline":
        invitations.forget(request)
        messages.info(request, _("You did not join %(organization)s.") % {"organization": offer.organization})
        return redirect(settings.LOGIN_REDIRECT_URL)
    try:
        with role_scope("auth"):
            operations.accept_invitation(
                token=token,
                user_id=request.user.id,
                verified_emails=_verified_emails(request.user.id),
                now=utc_now(),
            )
    except operations.AlreadyMember:
        messages.info(
            request, _("You belong to %(organization)s already.") % {"organization": offer.organization}
        )
    except operations.WrongEmail:
        context = _invitation_context(request, token, offer)
        return render(request, "accounts/invitation.html", context, status=403)
    except (operations.InvitationNotFound, operations.InvitationExpired):
        return render(request, "accounts/invitation_over.html", status=410)
    else:
        messages.success(
            request, _("You are now a member of %(organization)s.") % {"organization": offer.organization}
        )
    return redirect(settings.LOGIN_REDIRECT_URL)


@never_cache
@require_safe
def mailbox(request: HttpRequest) -> HttpResponse:
    """The newest mails, which a development installation does not send."""
    mails = [(public_id("mail", one.id), one) for one in _mails()]
    return render(request, "accounts/mailbox.html", {"mails": mails})


@never_cache
@require_safe
def mail(request: HttpRequest, mail_id: str) -> HttpResponse:
    """One mail as text; its links can be followed."""
    try:
        wanted = parse_public_id("mail", mail_id)
    except InvalidPublicId:
        raise Http404 from None
    for one in _mails():
        if one.id == wanted:
            return render(request, "accounts/mail.html", {"mail": one})
    raise Http404


def _mails() -> list[MailRow]:
    """Raises Http404 where mails are really sent: nobody may read those here."""
    if not settings.MAILBOX:
        raise Http404
    with role_scope("auth"):
        return queries.list_mail(limit=MAILBOX_SHOWS)


def _verified_emails(user_id: UUID) -> list[str]:
    return list(EmailAddress.objects.filter(user_id=user_id, verified=True).values_list("email", flat=True))


def _user(request: HttpRequest) -> User:
    assert request.user.is_authenticated, "the view is for people who are signed in"
    return request.user
