"""What operators' pages share. The middleware has let an operator in and opened the operator scope."""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any
from uuid import UUID

from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.http.response import HttpResponseBase

from portal.pages import answers
from portal.pages.access import View
from tenants.operations import audit
from tenants.scope import scope_alias


def operator_actor(request: HttpRequest) -> audit.Actor:
    """The operator who asks, as the audit log names them."""
    return audit.operator(answers.person_id(request))


def note_refusal(
    request: HttpRequest, *, action: str, reason: str, tenant_id: UUID | None = None, target: str = ""
) -> None:
    """Write down what this operator tried and may not do, after the domain has refused it."""
    audit.record_refusal(
        actor=operator_actor(request),
        action=action,
        reason=reason,
        tenant_id=tenant_id,
        target=target,
        is_internal=True,
    )


def operator_page(
    *, methods: Sequence[str] = ("GET", "HEAD"), fragment: bool = False, atomic: bool = True
) -> Callable[[View], View]:
    """A view of operators. What a POST changes commits together, or not at all.

    fragment: part of a page only. atomic: not for a POST that changes nothing but asks over the network,
    when no transaction may be open.
    """

    def decorate(view: View) -> View:
        @wraps(view)
        def wrapped(request: HttpRequest, **parts: Any) -> HttpResponseBase:
            if request.method not in methods:
                return HttpResponseNotAllowed(methods)
            if request.method == "POST" and atomic:
                with transaction.atomic(using=scope_alias()):
                    return view(request, **parts)
            return view(request, **parts)

        wrapped.methods = tuple(methods)  # type: ignore[attr-defined]
        wrapped.is_fragment = fragment  # type: ignore[attr-defined]
        return wrapped

    return decorate


def show_dialog(
    request: HttpRequest,
    fragment: str,
    context: dict[str, Any],
    *,
    title: str,
    section: str,
    status: int = 200,
) -> HttpResponse:
    """A form or a question: the content of an open dialog, or a page of its own without scripts."""
    return answers.show_dialog(
        request, fragment, context, title=title, section=section, status=status, page="backoffice/page.html"
    )
