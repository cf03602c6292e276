"""What a caller is told when a call is refused or fails. The shape is OpenAI's."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from portal.kit.money import amount_to_decimal_text, format_nanos
from quotas.admission import AdmissionAnswer, Refusal


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


def unknown_model(slug: str) -> CallError:
    shown = slug if len(slug) <= 120 else slug[:119] + "…"
    return CallError(404, "model_not_found", f"The model '{shown}' does not exist.", param="model")


def overloaded(message: str = "The service is overloaded. Try again shortly.") -> CallError:
    return CallError(503, "overloaded", message, type="service_unavailable", retry_after_s=1)


def too_many_requests(limit_rpm: int, retry_after_s: float) -> CallError:
    wait_s = max(1, math.ceil(retry_after_s))
    return CallError(
        429,
        "rate_limit_exceeded",
        f"This organization may send {limit_rpm} requests a minute. Try again in {wait_s} s.",
        type="rate_limit_error",
        retry_after_s=wait_s,
    )


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
            return CallError(
                403, "organization_suspended", "This organization is suspended.", type="permission_error"
            )
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
        case Refusal.INSUFFICIENT_FUNDS:
            return _insufficient(answer, output_cap_tokens)
        case _:
            return CallError(
                503, "not_for_sale", f"The model '{slug}' has no price right now.", type="service_unavailable"
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
