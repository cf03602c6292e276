"""What anybody needs who checks a verifiable bill: our public keys, and the script."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_safe

SCRIPT: Final = Path(settings.BASE_DIR) / "deploy" / "verify_bundle.py"


@require_safe
def bundle_keys(request: HttpRequest) -> JsonResponse:
    """The public keys of this installation, the newest first. Those of before a rotation stay in it."""
    keys = settings.SECRET_STORE.public_keys() if settings.SECRET_STORE else []
    response = JsonResponse({"keys": [{"key": key.id, "public_key": key.hex} for key in keys]})
    response["Cache-Control"] = "public, max-age=300"
    return response


@require_safe
def verify_bundle(request: HttpRequest) -> HttpResponse:
    """The checker, one file."""
    response = HttpResponse(SCRIPT.read_bytes(), content_type="text/x-python; charset=utf-8")
    response["Content-Disposition"] = 'attachment; filename="verify_bundle.py"'
    response["Cache-Control"] = "public, max-age=300"
    return response
