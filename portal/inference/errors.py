"""What a caller is told when a call is refused or fails. The shape is OpenAI's."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import msgspec

from portal.kit.clock import utc_now
from portal.kit.money import amount_to_decimal_text, format_nanos
from quotas.admission import AdmissionAnswer, LimitHit, Refusal
from quotas.limits.rate import RateRefusal
from quotas.models import LimitKind


@dataclass(eq=False)
class CallError(Exception):
    """A refusal or failure with its HTTP status. `code` is stable, `message` is for people.

    details: further members of the error object. retry_after_s: when trying again makes sense.
    """

    status: int
    code: str
    message: str
    type: str = "invalid_request_error"
    param: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    retry_after_s: int | None = None

    def body(self, request_id: str) -> bytes:
        return msgspec.json.encode(
            {
                "error": {
                    "message": self.message,
                    "type": self.type,
                    "param": self.param,
                    "code": self.code,
                    "request_id": request_id,
                    **self.details,
                }
            }
        )

    def event(self, request_id: str) -> bytes:
        """As the last event of a stream that has begun."""
        return b"data: " + self.body(request_id) + b"\n\n"


def bad_request(message: str, *, param: str | None = None, code: str = "invalid_value") -> CallError:
    return CallError(400, code, message, param=param)


def wrong_key() -> CallError:
    return CallError(
        401,
        "invalid_api_key",
        "The API key is missing, malformed or unknown. Send it as 'Authorization: Bearer slc_…'.",
        type="authentication_error",
    )


def management_key() -> CallError:
    return CallError(
        401,
        "management_key",
        "This is a management key (slm_…). Calls to models need an API key (slc_…).",
        type="authentication_error",
    )


def unknown_model(slug: str) -> CallError:
    shown = slug if len(slug) <= 120 else slug[:119] + "…"
    return CallError(404, "model_not_found", f"The model '{shown}' does not exist.", param="model")


def retired_model(slug: str, successor: str | None) -> CallError:
    advice = f" Use '{successor}' instead." if successor else ""
    return CallError(
        410,
        "model_retired",
        f"The model '{slug}' is no longer served.{advice}",
        param="model",
        details={"successor": successor},
    )


def endpoint_not_offered(slug: str, path: str, offered: Sequence[str]) -> CallError:
    """offered: the paths at which the model can be called."""
    where = f"It can be called at {', '.join(offered)}." if offered else "It cannot be called right now."
    return CallError(
        400,
        "endpoint_not_offered",
        f"The model '{slug}' is not offered at {path}. {where}",
        param="model",
        details={"endpoints": list(offered)},
    )


def endpoint_not_served(path: str) -> CallError:
    """The catalog offers a model at an endpoint that its backend turns out not to have."""
    return CallError(
        400, "endpoint_not_offered", f"The model's backend does not serve {path}.", param="model"
    )


def overloaded(message: str = "The service is overloaded. Try again shortly.") -> CallError:
    return CallError(503, "overloaded", message, type="service_unavailable", retry_after_s=1)


def suspended() -> CallError:
    return CallError(
        403, "organization_suspended", "This organization is suspended.", type="permission_error"
    )


def too_many_requests(
    refusal: RateRefusal, *, slug: str, prompt_tokens: int, output_cap_tokens: int, choices: int
) -> CallError:
    """The error of a call that a rate limit refuses. The cap is per choice."""
    limit = refusal.limit
    who = "This API key" if limit.scope in ("key", "model_and_key") else "This organization"
    where = f" with the model '{slug}'" if limit.scope in ("model", "model_and_key") else ""
    told: dict[str, Any] = {"kind": limit.kind.value, "scope": limit.scope, "value": limit.value}
    details: dict[str, Any] = {"limit": told}
    code, retry_after_s = "rate_limit_exceeded", None
    if limit.kind == LimitKind.CONCURRENCY:
        code = "concurrency_limit_exceeded"
        may = f"{who} may have {limit.value} calls in progress at a time{where}."
    elif limit.kind == LimitKind.REQUESTS_RPM:
        may = f"{who} may send {limit.value} requests a minute{where}."
    else:
        may = f"{who} may use {limit.value} tokens a minute{where}."
    if refusal.wait_s == math.inf:
        advice = "Calls like this one are refused until the limit is raised."
        if limit.kind == LimitKind.TOKENS_TPM and limit.value:
            fits = max(0, limit.value - prompt_tokens) // choices if output_cap_tokens else 0
            needed = prompt_tokens + choices * output_cap_tokens
            remedy = f"Lower max_tokens to {fits}." if fits else "Shorten the prompt."
            advice = f"This call may need up to {needed}. {remedy}"
            details["max_tokens_that_fit"] = fits
    elif refusal.wait_s == 0:
        retry_after_s = told["retry_after_s"] = 1
        advice = "Try again when one of them has ended."
    else:
        retry_after_s = told["retry_after_s"] = max(1, math.ceil(refusal.wait_s))
        told["resets_at"] = _moment(utc_now() + timedelta(seconds=refusal.wait_s))
        advice = f"Try again in {retry_after_s} s."
    return CallError(
        429,
        code,
        f"{may} {advice}",
        type="rate_limit_error",
        details=details,
        retry_after_s=retry_after_s,
    )


def _moment(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def backend_failed(message: str = "The model's backend failed to answer.") -> CallError:
    return CallError(502, "backend_failed", message, type="backend_error", retry_after_s=1)


def backend_unavailable() -> CallError:
    return CallError(
        503,
        "backend_unavailable",
        "No backend can serve this model right now.",
        type="service_unavailable",
        retry_after_s=5,
    )


def backend_timeout() -> CallError:
    return CallError(
        504, "backend_timeout", "The model's backend did not answer in time.", type="backend_error"
    )


def refusal(answer: AdmissionAnswer, *, slug: str, output_cap_tokens: int) -> CallError:
    """The error of a refused admission."""
    match answer.reason:
        case Refusal.KEY_UNKNOWN:
            return wrong_key()
        case Refusal.KEY_REVOKED:
            return CallError(401, "api_key_revoked", "This API key was revoked.", type="authentication_error")
        case Refusal.KEY_EXPIRED:
            return CallError(401, "api_key_expired", "This API key has expired.", type="authentication_error")
        case Refusal.TENANT_SUSPENDED:
            return suspended()
        case Refusal.MODEL_UNKNOWN:
            return unknown_model(slug)
        case Refusal.MODEL_NOT_ENABLED:
            return CallError(
                403,
                "model_not_enabled",
                f"The model '{slug}' is not enabled for this organization. Enable it in the portal.",
                type="permission_error",
                param="model",
            )
        case Refusal.MODEL_NOT_ON_KEY:
            return CallError(
                403,
                "model_not_allowed",
                f"This API key may not use the model '{slug}'.",
                type="permission_error",
                param="model",
            )
        case Refusal.NOT_DEPLOYED:
            return backend_unavailable()
        case Refusal.QUOTA_EXCEEDED if answer.limit is not None:
            return _over_quota(answer, answer.limit, slug=slug, output_cap_tokens=output_cap_tokens)
        case Refusal.BUDGET_EXCEEDED if answer.limit is not None:
            return _over_budget(answer, answer.limit, slug=slug, output_cap_tokens=output_cap_tokens)
        case Refusal.INSUFFICIENT_FUNDS | Refusal.MAX_COST_TOO_LOW:
            is_short = answer.reason == Refusal.INSUFFICIENT_FUNDS
            return _insufficient(answer, output_cap_tokens) if is_short else _ceiling_too_low(answer)
        case _:
            return CallError(
                503, "not_for_sale", f"The model '{slug}' has no price right now.", type="service_unavailable"
            )


def _ceiling_too_low(answer: AdmissionAnswer) -> CallError:
    currency = answer.currency or ""
    prompt, least = answer.hold_nanos or 0, answer.least_cost_nanos or 0
    return CallError(
        400,
        "max_cost_too_low",
        f"x-max-cost is too low: the prompt alone may cost {format_nanos(prompt, currency)}, and the call "
        f"with one token of output {format_nanos(least, currency)}.",
        param="x-max-cost",
        details={
            "currency": currency,
            "prompt_cost": amount_to_decimal_text(prompt),
            "least_max_cost": amount_to_decimal_text(least),
        },
    )


def _insufficient(answer: AdmissionAnswer, output_cap_tokens: int) -> CallError:
    currency = answer.currency or ""
    needed, available = answer.hold_nanos or 0, answer.available_nanos or 0
    pending, fits = answer.pending_nanos or 0, answer.fit_output_tokens or 0
    advice = f"Lower max_tokens to {fits} or add credit." if 0 < fits < output_cap_tokens else "Add credit."
    return CallError(
        402,
        "insufficient_balance",
        f"Balance too low: this call needs up to {format_nanos(needed, currency)}, "
        f"{format_nanos(available, currency)} is available and {format_nanos(pending, currency)} is held "
        f"by calls in progress. {advice}",
        type="insufficient_quota",
        details={
            "currency": currency,
            "needed": amount_to_decimal_text(needed),
            "available": amount_to_decimal_text(available),
            "pending": amount_to_decimal_text(pending),
            "max_tokens_that_fit": fits,
        },
    )


_PERIODICAL: Mapping[LimitKind, str] = {
    LimitKind.TOKENS_DAY: "Daily token quota",
    LimitKind.TOKENS_MONTH: "Monthly token quota",
    LimitKind.MONEY_DAY: "Daily budget",
    LimitKind.MONEY_MONTH: "Monthly budget",
}


def _over_budget(answer: AdmissionAnswer, limit: LimitHit, *, slug: str, output_cap_tokens: int) -> CallError:
    currency = answer.currency or ""
    value, used, pending, needed = (
        format_nanos(amount, currency) for amount in (limit.value, limit.used, limit.pending, limit.needed)
    )
    scope, whose = _scope(limit, slug)
    fits = answer.fit_output_tokens or 0
    return CallError(
        402,
        "budget_exceeded",
        f"{_PERIODICAL[limit.kind]} {whose} reached: {value}, of which {used} is spent and {pending} is held "
        f"by calls in progress; this call needs up to {needed}. {_resets(limit, fits, output_cap_tokens)}, "
        "or have the budget raised.",
        type="insufficient_quota",
        details={
            "currency": currency,
            "limit": {
                "kind": limit.kind.value,
                "scope": scope,
                "value": amount_to_decimal_text(limit.value),
                "used": amount_to_decimal_text(limit.used),
                "pending": amount_to_decimal_text(limit.pending),
                "resets_at": _moment(limit.resets_at),
            },
            "needed": amount_to_decimal_text(limit.needed),
            "max_tokens_that_fit": fits,
        },
    )


def _over_quota(answer: AdmissionAnswer, limit: LimitHit, *, slug: str, output_cap_tokens: int) -> CallError:
    scope, whose = _scope(limit, slug)
    fits = answer.fit_output_tokens or 0
    return CallError(
        429,
        "quota_exceeded",
        f"{_PERIODICAL[limit.kind]} {whose} reached: {limit.value} tokens, of which {limit.used} are used "
        f"and {limit.pending} are held by calls in progress; this call needs up to {limit.needed}. "
        f"{_resets(limit, fits, output_cap_tokens)}, or have the quota raised.",
        type="insufficient_quota",
        details={
            "limit": {
                "kind": limit.kind.value,
                "scope": scope,
                "value": limit.value,
                "used": limit.used,
                "pending": limit.pending,
                "resets_at": _moment(limit.resets_at),
            },
            "needed": limit.needed,
            "max_tokens_that_fit": fits,
        },
        retry_after_s=max(1, math.ceil((limit.resets_at - utc_now()).total_seconds())),
    )


def _scope(limit: LimitHit, slug: str) -> tuple[str, str]:
    """The scope of a limit as a code, and as people say it."""
    match limit.model_id is not None, limit.api_key_id is not None:
        case True, True:
            return "model_and_key", f"of the model '{slug}' with this API key"
        case True, False:
            return "model", f"of the model '{slug}'"
        case False, True:
            return "key", "of this API key"
        case _:
            return "organization", "of this organization"


def _resets(limit: LimitHit, fits: int, output_cap_tokens: int) -> str:
    advice = f"Lower max_tokens to {fits}" if 0 < fits < output_cap_tokens else "Wait until then"
    return f"It resets on {limit.resets_at:%Y-%m-%d %H:%M} UTC. {advice}"
