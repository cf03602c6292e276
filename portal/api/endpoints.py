"""What every endpoint does, in this order: negotiate, authenticate, count, permit, read, and then, in the
scope of whoever calls and in one transaction, act. An endpoint's methods are described by `operation`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Final
from uuid import UUID

from django.db import transaction
from django.http.response import HttpResponseBase
from django.utils import translation
from rest_framework import exceptions
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from portal.api import problems, throttle, writes
from portal.api.bodies import read_body
from portal.api.operations import METHODS, Operation
from portal.api.paging import Listing, read_listing
from portal.api.problems import Problem
from portal.api.reading import checked_body, checked_parameters
from portal.kit.clock import utc_now
from portal.kit.ids import PREFIXES, public_id
from tenants import management_queries
from tenants.management_queries import ManagementCaller, OrganizationFacts
from tenants.operations import audit
from tenants.permissions import DESCRIPTIONS, may
from tenants.scope import role_scope, scope_alias, tenant_scope

UNSAFE: Final = frozenset({"post", "put", "patch", "delete"})


@dataclass(frozen=True, slots=True)
class Answer:
    """What an endpoint's method answers: JSON values."""

    data: Any
    status: int = 200


@dataclass(frozen=True, slots=True)
class Call:
    """One call, read and permitted. parameters and body: what was checked, by name; listing: of lists."""

    caller: ManagementCaller
    actor: audit.Actor
    now: datetime
    parameters: Mapping[str, Any]
    body: Mapping[str, Any]
    operation: Operation

    @property
    def listing(self) -> Listing:
        """Errors: Problem 400 for a cursor that is not of this list."""
        caller = str(self.caller.tenant_id or "operators")
        return read_listing(operation=self.operation.id, caller=caller, parameters=self.parameters)


@dataclass(frozen=True, slots=True)
class TenantCall(Call):
    """A call with an organization's key, in the scope of the organization."""

    organization: OrganizationFacts

    @property
    def tenant_id(self) -> UUID:
        return self.organization.id

    @property
    def money(self) -> dict[str, str]:
        """The context of serializers that write amounts."""
        return {"currency": self.organization.currency}


class Endpoint(APIView):
    """One address. Subclasses say whose: an organization's, or operators'."""

    for_operators: ClassVar[bool] = False
    metadata_class = None
    format_kwarg = None

    def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> HttpResponseBase:
        # What the framework says by itself would come in the language of the caller's browser.
        with translation.override("en"):
            self.args, self.kwargs = args, kwargs
            self.request = self.initialize_request(request, *args, **kwargs)
            self.headers = {**self.default_response_headers, "Cache-Control": "no-store"}
            try:
                response = self._answer(self.request, kwargs)
            except Exception as error:  # noqa: BLE001 - everything is answered as a problem, and logged there
                response = self.handle_exception(self._noted(error))
            finalized = self.finalize_response(self.request, response, *args, **kwargs)  # type: ignore[arg-type]
            self.response = finalized
        return self.response

    def get_exception_handler_context(self) -> dict[str, Any]:
        return {"request": self.request, "view": self}

    @classmethod
    def operations(cls) -> dict[str, Operation]:
        """What the methods of this address do, by method."""
        return {
            method: cls.__dict__[method].operation
            for method in METHODS
            if hasattr(cls.__dict__.get(method), "operation")
        }

    @property
    def allowed_methods(self) -> list[str]:
        """What the header Allow says."""
        taken = [method.upper() for method in self.operations()]
        return ["GET", "HEAD", *taken[1:]] if "GET" in taken else taken

    def call_of(self, **facts: Any) -> Call:
        """The call that methods get, within the open scope."""
        return Call(**facts)

    def scope_of(self, caller: ManagementCaller) -> AbstractContextManager[None]:
        """Whose rows the methods see."""
        raise NotImplementedError

    def _answer(self, request: Request, parts: Mapping[str, str]) -> HttpResponseBase:
        request.accepted_renderer, request.accepted_media_type = self.perform_content_negotiation(request)
        self.perform_authentication(request)
        caller = request.auth
        if not isinstance(caller, ManagementCaller):
            raise exceptions.NotAuthenticated("Send 'Authorization: Bearer slm_…'.")
        self._count(caller)
        method = (request.method or "").lower()
        operation = self._operation()
        if operation is None:
            raise exceptions.MethodNotAllowed(request.method or "")
        self._permit(caller, operation)
        body = read_body(request) if method in UNSAFE else {}
        facts = {
            "caller": caller,
            "actor": _actor(caller),
            "now": utc_now(),
            "parameters": checked_parameters(operation.parameters, request.query_params),
            "body": checked_body(operation.body, body) if method in UNSAFE else {},
            "operation": operation,
        }
        handler = getattr(self, method)
        with self.scope_of(caller):
            if method not in UNSAFE:
                return _response(handler(self.call_of(**facts), **parts))
            return writes.once(
                request, caller, body, lambda: _response(handler(self.call_of(**facts), **parts))
            )

    def _count(self, caller: ManagementCaller) -> None:
        """Errors: Problem 429."""
        rate = throttle.count_call(caller.key_id)
        if rate is None:
            return
        self.headers |= rate.headers
        if not rate.is_allowed:
            detail = f"This key may call {rate.limit} times a minute; wait {rate.retry_after_s} s."
            raise Problem(problems.RATE, detail)

    def _permit(self, caller: ManagementCaller, operation: Operation) -> None:
        """Errors: Problem 403."""
        lacking = self._lacking(caller, operation)
        if lacking:
            raise Problem(problems.FORBIDDEN, f"{lacking}.")

    def _noted(self, error: Exception) -> Exception:
        """The error to answer with: a refusal that cannot be written down is answered with that failure."""
        try:
            self._note_refusal(error)
        except Exception as failure:  # noqa: BLE001 - as every other
            return failure
        return error

    def _note_refusal(self, error: Exception) -> None:
        """What somebody tried and may not is in the audit log, once its transaction is rolled back."""
        if not (isinstance(error, Problem) and error.kind is problems.FORBIDDEN):
            return
        caller, operation = self.request.auth, self._operation()
        assert isinstance(caller, ManagementCaller), "only who is known can be refused"
        assert operation is not None, "only what an address does can be refused"
        with _audit_scope(caller):
            audit.record_refusal(
                actor=_actor(caller),
                action=operation.action,
                tenant_id=caller.tenant_id,
                target="/".join(str(part) for part in self.kwargs.values()),
                reason=error.text,
            )

    def _operation(self) -> Operation | None:
        """What the method of this call does here; None for a method that the address does not take."""
        method = (self.request.method or "").lower()
        return self.operations().get("get" if method == "head" else method)

    def _lacking(self, caller: ManagementCaller, operation: Operation) -> str:
        if caller.is_operator != self.for_operators:
            return "An operator's key is needed" if self.for_operators else "An organization's key is needed"
        if operation.scope is not None and operation.scope not in caller.scopes:
            return f"The key's scopes lack {operation.scope.value}"
        if operation.permission is not None and not may(caller.role or "", operation.permission):
            return f"The role {caller.role} may not: {DESCRIPTIONS[operation.permission]}"
        return ""


class TenantEndpoint(Endpoint):
    """An address of the organization whose key it is."""

    def scope_of(self, caller: ManagementCaller) -> AbstractContextManager[None]:
        assert caller.tenant_id is not None
        return tenant_scope(caller.tenant_id)

    def call_of(self, **facts: Any) -> TenantCall:
        caller: ManagementCaller = facts["caller"]
        assert caller.tenant_id is not None
        organization = management_queries.organization_facts(tenant_id=caller.tenant_id)
        return TenantCall(**facts, organization=organization)


class OperatorEndpoint(Endpoint):
    """An address of operators; it sees every organization."""

    for_operators = True

    def scope_of(self, caller: ManagementCaller) -> AbstractContextManager[None]:
        return _operator_scope()


@contextmanager
def _operator_scope() -> Iterator[None]:
    with role_scope("operator"), transaction.atomic(using=scope_alias()):
        yield


def _audit_scope(caller: ManagementCaller) -> AbstractContextManager[None]:
    return _operator_scope() if caller.tenant_id is None else tenant_scope(caller.tenant_id)


def _actor(caller: ManagementCaller) -> audit.Actor:
    if caller.role is None:
        return audit.operator(caller.user_id, key_id=caller.key_id)
    return audit.member(caller.user_id, caller.role, key_id=caller.key_id)


def _response(answer: Answer) -> Response:
    return Response(answer.data, status=answer.status)


def shown_id(kind: str, value: UUID) -> str:
    return public_id(PREFIXES[kind], value)
