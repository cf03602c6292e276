"""What a person is told, in the language of the page: what happened, what it means, what to do next."""

from collections.abc import Callable, Mapping
from typing import Any

from django.urls import NoReverseMatch, reverse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from portal.inference.errors import CallError
from portal.kit.money import format_nanos, parse_amount
from portal.pages.access import Organization
from portal.playground.messages import Action, Error
from portal.playground.receipts import Receipt
from tenants.permissions import Permission


def call_error(error: CallError, *, run_number: int, organization: Organization, request_id: str) -> Error:
    """The message for a call that was refused or failed before anything was delivered."""
    code = error.code
    tell = _KIND.get(code, _other)
    message, detail, action = tell(error.message, error.details, organization)
    return Error(run_number, code, message, detail, action, error.retry_after_s, request_id)


def stream_error(
    failure: Mapping[str, Any], *, run_number: int, organization: Organization, request_id: str
) -> Error:
    """The message for a call that broke off. `failure` is the error object of the stream's last event."""
    code = str(failure.get("code") or "backend_failed")
    told = _("The answer broke off. What you have received is billed, and nothing else. Send again to go on.")
    return Error(run_number, code, told, str(failure.get("message") or ""), request_id=request_id)


def simple(code: str, *, run_number: int | None = None, detail: str = "") -> Error:
    """Errors that no call is behind."""
    return Error(run_number, code, _SIMPLE[code](), detail)


def ended(receipt: Receipt) -> str:
    """What became of the run that a reload or a lost connection ended."""
    if not receipt.is_settled:
        return _("Your last run was ended when the page was left. Its cost will be in the usage shortly.")
    if not receipt.charged_nanos and not receipt.completion_tokens:
        return _("Your last run was ended when the page was left. Nothing was delivered, nothing is billed.")
    amount = format_nanos(receipt.charged_nanos, receipt.currency)
    count = receipt.completion_tokens
    if not receipt.client_left:
        return ngettext(
            "Your last run went on to its end: %(count)d token was billed with %(amount)s. Its text is not "
            "kept anywhere.",
            "Your last run went on to its end: %(count)d tokens were billed with %(amount)s. Its text is not "
            "kept anywhere.",
            count,
        ) % {"count": count, "amount": amount}
    return ngettext(
        "Your last run was ended by the reload: %(count)d token was delivered and billed with %(amount)s.",
        "Your last run was ended by the reload: %(count)d tokens were delivered and billed with %(amount)s.",
        count,
    ) % {"count": count, "amount": amount}


def receipt_url(organization: Organization, request_id: str) -> str:
    """The page that shows what the request cost; empty where there is none."""
    try:
        return reverse("console:request", args=[organization.public_id, request_id])
    except NoReverseMatch:
        return ""


Told = tuple[str, str, Action | None]


def _insufficient(_message: str, details: Mapping[str, Any], organization: Organization) -> Told:
    currency = str(details.get("currency") or organization.currency)
    needed, available = (
        format_nanos(parse_amount(str(details.get(name) or "0")), currency)
        for name in ("needed", "available")
    )
    fits = int(details.get("max_tokens_that_fit") or 0)
    pending_nanos = parse_amount(str(details.get("pending") or "0"))
    detail = ""
    if pending_nanos:
        detail = _(
            "%(pending)s is held by calls in progress and comes back as far as they do not use it."
        ) % {"pending": format_nanos(pending_nanos, currency)}
    facts = {"needed": needed, "available": available, "count": fits}
    if fits > 0:
        told = _(
            "Balance too low: this call needs up to %(needed)s, %(available)s is available. "
            "Lower max tokens to %(count)d or add credit."
        )
        label = _("Use %(count)d tokens at most") % facts
        return told % facts, detail, Action(label, max_tokens=fits)
    told = _(
        "Balance too low: this call needs up to %(needed)s, %(available)s is available. "
        "Add credit, or shorten the conversation."
    )
    return (
        told % facts,
        detail,
        _go(_("Add credit"), "console:billing", organization, Permission.PAY),
    )


def _limit_reached(message: str, details: Mapping[str, Any], organization: Organization) -> Told:
    fits = int(details.get("max_tokens_that_fit") or 0)
    if fits > 0:
        told = _("A limit is reached, so nothing was run. Lower max tokens to %(count)d to stay within it.")
        label = _("Use %(count)d tokens at most") % {"count": fits}
        return told % {"count": fits}, message, Action(label, max_tokens=fits)
    told = _("A limit is reached, so nothing was run. Wait until it resets, or have it raised.")
    return told, message, _go(_("Limits"), "console:limits", organization, Permission.SEE_LIMITS)


def _not_enabled(_message: str, _details: Mapping[str, Any], organization: Organization) -> Told:
    told = _("This model is not enabled for %(organization)s. Enable it, or pick another one.")
    action = _go(_("Models"), "console:models", organization, Permission.SEE_MODELS)
    return told % {"organization": organization.name}, "", action


def _suspended(_message: str, _details: Mapping[str, Any], organization: Organization) -> Told:
    told = _("%(organization)s is suspended, so it cannot run anything. An owner can ask us why.")
    return told % {"organization": organization.name}, "", None


def _key_gone(_message: str, _details: Mapping[str, Any], _organization: Organization) -> Told:
    return _("Your access to the playground was ended. Reload the page to go on."), "", None


def _busy(message: str, _details: Mapping[str, Any], _organization: Organization) -> Told:
    return _("The model is busy. Nothing was billed; try again in a moment."), message, None


def _rate(message: str, _details: Mapping[str, Any], _organization: Organization) -> Told:
    return _("Your organization sends more requests than it may. Try again in a moment."), message, None


def _slow(message: str, _details: Mapping[str, Any], _organization: Organization) -> Told:
    return _("The model did not answer in time. Nothing was billed; try again."), message, None


def _gone(message: str, _details: Mapping[str, Any], _organization: Organization) -> Told:
    return _("This model cannot be used right now. Pick another one."), message, None


def _invalid(message: str, _details: Mapping[str, Any], _organization: Organization) -> Told:
    return _("The model does not accept these settings."), message, None


def _other(message: str, _details: Mapping[str, Any], _organization: Organization) -> Told:
    return _("The call failed and nothing was billed. Try again."), message, None


def _go(label: str, name: str, organization: Organization, permission: Permission) -> Action | None:
    if not organization.may(permission):
        return None
    try:
        return Action(label, reverse(name, args=[organization.public_id]))
    except NoReverseMatch:
        return None


_KIND: Mapping[str, Callable[[str, Mapping[str, Any], Organization], Told]] = {
    "insufficient_balance": _insufficient,
    "quota_exceeded": _limit_reached,
    "budget_exceeded": _limit_reached,
    "model_not_enabled": _not_enabled,
    "model_not_allowed": _not_enabled,
    "organization_suspended": _suspended,
    "invalid_api_key": _key_gone,
    "api_key_revoked": _key_gone,
    "api_key_expired": _key_gone,
    "overloaded": _busy,
    "backend_unavailable": _busy,
    "backend_failed": _busy,
    "backend_timeout": _slow,
    "call_timeout": _slow,
    "rate_limit_exceeded": _rate,
    "concurrency_limit_exceeded": _rate,
    "model_not_found": _gone,
    "not_for_sale": _gone,
    "invalid_value": _invalid,
    "unsupported_field": _invalid,
    "context_length_exceeded": _invalid,
}

_SIMPLE: Mapping[str, Callable[[], str]] = {
    "unreadable": lambda: _("The page sent something that is not understood. Reload it."),
    "too_large": lambda: _("The conversation is too long to be sent. Clear it or shorten it."),
    "too_many_messages": lambda: _("That is too much at once. Wait a minute."),
    "too_many_runs": lambda: _("You have as many runs going as possible. Stop one, or wait for it."),
    "busy": lambda: _("The last run is still going. Stop it first."),
    "not_ready": lambda: _("The playground is starting. Try again in a moment."),
    "not_allowed": lambda: _("You may not use the playground of this organization any more."),
    "signed_out": lambda: _("You are signed out. Sign in again to go on."),
    "internal": lambda: _("Something went wrong on our side. Try again."),
}
