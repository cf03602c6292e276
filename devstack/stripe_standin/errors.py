"""What the API answers when it refuses, in Stripe's words and shapes."""

from __future__ import annotations

from typing import Any


class ApiError(Exception):
    """A refusal. `executed`: the endpoint had begun, so an idempotency key remembers this answer."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        executed: bool = False,
        **details: Any,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.executed = executed
        error = {"type": kind, "message": message, "code": code, "param": param, **details}
        self.body: dict[str, Any] = {
            "error": {key: value for key, value in error.items() if value is not None}
        }


class CommittedError(Exception):
    """A refusal after which what was written so far stays written: a payment that was declined."""

    def __init__(self, error: ApiError) -> None:
        super().__init__(str(error))
        self.error = error


def missing(param: str) -> ApiError:
    """A parameter that has to be there."""
    return ApiError(400, f"Missing required param: {param}.", code="parameter_missing", param=param)


def unknown(param: str) -> ApiError:
    return ApiError(400, f"Received unknown parameter: {param}", code="parameter_unknown", param=param)


def invalid(param: str, message: str, *, code: str | None = None) -> ApiError:
    return ApiError(400, message, code=code, param=param)


def no_such(kind: str, identifier: str, *, param: str | None = "id", status: int = 404) -> ApiError:
    """An object that isn't there: 404 in a path, 400 in a parameter."""
    word = kind.rsplit(".", 1)[-1]
    return ApiError(status, f"No such {word}: '{identifier}'", code="resource_missing", param=param)


def wrong_state(message: str, *, code: str | None = None, **details: Any) -> ApiError:
    """The request was right, but not for an object in this state."""
    return ApiError(400, message, code=code, executed=True, **details)
