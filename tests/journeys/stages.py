"""What is there before a journey begins: models that answer, and organizations that may call them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from uuid import UUID

from models_catalog import operations as catalog_operations
from models_catalog.models import CatalogModel
from tenants.models import Role
from tenants.scope import role_scope
from tests.factories import (
    ModelFixture,
    TenantFixture,
    enable,
    make_backend,
    make_model,
    make_price,
    make_tenant,
    unique_name,
)
from tests.people import Person, make_member, session_cookie

# Prices that leave a rounding in every line, so that a wrong rounding shows.
PRICES: Final[Mapping[str, int]] = {
    "input": 333_333_333,
    "cached_input": 33_333_337,
    "output": 1_234_567_891,
}


def cost_nanos(prompt: int, completion: int, *, cached: int = 0, prices: Mapping[str, int] = PRICES) -> int:
    """What a usage costs: each line rounds half up, once."""
    lines = {"input": prompt - cached, "cached_input": cached, "output": completion}
    return sum((tokens * prices[name] + 500_000) // 1_000_000 for name, tokens in lines.items())


def make_shelf_model() -> tuple[UUID, str]:
    """The id and slug of a model that has a price in both currencies and runs nowhere yet."""
    with role_scope("operator"):
        model = CatalogModel.objects.create(
            slug=unique_name("test/model"),
            display_name="Shelf model",
            context_tokens=32_768,
            max_output_tokens=8_192,
            default_output_cap_tokens=1_024,
        )
    for currency in ("USD", "CNY"):
        make_price(model.id, currency=currency, prices=PRICES)
    return model.id, model.slug


def make_buyer(slug: str, *, granted: str = "5.00") -> tuple[TenantFixture, Person]:
    """An organization with an owner that has picked the model of this slug."""
    tenant = make_tenant(granted=granted)
    with role_scope("operator"):
        catalog_operations.enable_model(tenant_id=tenant.id, slug=slug)
    return tenant, make_member(tenant, Role.OWNER)


def make_priced_model(engine_url: str, *, flavour: str = "llamacpp", **options: object) -> ModelFixture:
    """A model on that engine with a price in both currencies."""
    backend_id = make_backend(engine=flavour, base_url=engine_url)
    model = make_model(backend_id=backend_id, currency="USD", prices=PRICES, **options)  # type: ignore[arg-type]
    make_price(model.id, currency="CNY", prices=PRICES)
    return model


def make_customer(
    model: ModelFixture | None, *, granted: str | None = "5.00", role: Role = Role.OWNER
) -> tuple[TenantFixture, Person, str]:
    """An organization that has enabled the model, a member, and the cookie that signs them in."""
    tenant = make_tenant(granted=granted)
    if model is not None:
        enable(tenant, model)
    person = make_member(tenant, role)
    return tenant, person, session_cookie(person)
