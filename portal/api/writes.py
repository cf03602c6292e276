"""Writes that happen once: the same request with the same `Idempotency-Key` gets the same answer."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any, Final

from django.http import HttpResponse
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from portal.api import problems
from portal.api.authentication import secret_store
from portal.api.bodies import canonical
from portal.api.problems import FieldError, Problem
from portal.kit.clock import utc_now
from tenants import operations
from tenants.management_queries import ManagementCaller
from tenants.models import MAX_IDEMPOTENCY_KEY_LENGTH

HEADER: Final = "Idempotency-Key"
REPLAY_HEADER: Final = "Idempotent-Replay"
_KEY: Final = re.compile(rf"[\x21-\x7e]{{1,{MAX_IDEMPOTENCY_KEY_LENGTH}}}")


def once(
    request: Request, caller: ManagementCaller, body: Any, act: Callable[[], Response]
) -> Response | HttpResponse:
    """The answer of `act`, or the one that it gave before. In the scope and the transaction of the write, so
    what fails leaves nothing behind. Errors: Problem 400 and 409, and whatever `act` raises."""
    key = request.headers.get(HEADER)
    if key is None:
        return act()
    if _KEY.fullmatch(key) is None:
        detail = f"It has 1 to {MAX_IDEMPOTENCY_KEY_LENGTH} visible ASCII characters."
        raise Problem(problems.INVALID, detail, errors=(FieldError("header", HEADER, "form", detail),))
    fingerprint = _fingerprint(request, body)
    try:
        known = operations.claim_write(
            management_key_id=caller.key_id,
            idempotency_key=key,
            fingerprint=fingerprint,
            secrets=secret_store(),
        )
    except operations.WriteConflict:
        raise Problem(
            problems.KEY_REUSED, "This idempotency key came before, with another address or body."
        ) from None
    except operations.WriteInProgress:
        raise Problem(
            problems.IN_PROGRESS, "This write is under way elsewhere.", headers={"Retry-After": "2"}
        ) from None
    if known is not None:
        return HttpResponse(
            known.body,
            status=known.status,
            content_type="application/json",
            headers={REPLAY_HEADER: "true"},
        )
    answer = act()
    operations.remember_write(
        tenant_id=caller.tenant_id,
        management_key_id=caller.key_id,
        idempotency_key=key,
        fingerprint=fingerprint,
        answer=operations.StoredAnswer(answer.status_code, JSONRenderer().render(answer.data).decode()),
        secrets=secret_store(),
        now=utc_now(),
    )
    return answer


def _fingerprint(request: Request, body: Any) -> bytes:
    said = f"{request.method} {request.get_full_path()}\n".encode("utf-8", "replace")
    return hashlib.sha256(said + canonical(body)).digest()
