"""The Django admin: operators see organizations and the catalog; nothing is edited here yet."""

from typing import Any

from django.contrib import admin
from django.db import models
from django.http import HttpRequest

from models_catalog.models import CatalogModel, Deployment, PriceVersion, ServingBackend, ServingPool
from quotas.models import Wallet
from tenants.models import ApiKey, Membership, Tenant


class ReadOnlyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Lists and shows; changes go through domain operations, which keep their rules and their trail."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return False


def _read_only(*columns: str, hidden: tuple[str, ...] = ()) -> type[ReadOnlyAdmin]:
    attributes: dict[str, Any] = {"list_display": columns, "exclude": hidden}
    return type("ReadOnly", (ReadOnlyAdmin,), attributes)


admin.site.site_header = "Sluice — OPERATOR"
admin.site.register(Tenant, _read_only("name", "state", "currency", "created_at"))
admin.site.register(Membership, _read_only("tenant", "user", "role"))
admin.site.register(ApiKey, _read_only("name", "tenant", "secret_hint", "expires_at", hidden=("digest",)))
admin.site.register(CatalogModel, _read_only("slug", "context_tokens", "max_output_tokens", "state"))
admin.site.register(PriceVersion, _read_only("model", "currency", "active_from", "active_to", "published_at"))
admin.site.register(ServingPool, _read_only("code", "accelerator_kind", "region"))
admin.site.register(ServingBackend, _read_only("code", "engine", "state", hidden=("credential_encrypted",)))
admin.site.register(Deployment, _read_only("model", "backend", "upstream_model", "state"))
admin.site.register(Wallet, _read_only("tenant", "currency", "paid_nanos", "granted_nanos", "pending_nanos"))
