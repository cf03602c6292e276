"""Opens the operator scope for the operators' area, and for nothing else."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.template.response import SimpleTemplateResponse

from tenants.scope import role_scope

OPERATOR_PATH = "/admin/"


class OperatorScopeMiddleware:
    """Signed-in staff work under the operator role; everybody else stays under the auth role."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        user = request.user
        if request.path.startswith(OPERATOR_PATH) and user.is_active and user.is_staff:
            with role_scope("operator"):
                response = self.get_response(request)
                # Admin pages render lazily; the queries of the template belong inside the scope.
                if isinstance(response, SimpleTemplateResponse) and not response.is_rendered:
                    response.render()
                return response
        return self.get_response(request)
