"""What is there before a journey begins: models that answer, and organizations that may call them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tenants.models import Role
from tests.factories import (
    ModelFixture,
    TenantFixture,
    enable,
    make_backend,
    make_model,
    make_price,
    make_tenant,
)
from tests.people import Person, make_member, session_cookie

# Prices that leave a rounding in every line, so that a wrong rounding shows.
PRICES: Final[Mapping[str, int]] = {
    "input": 333_333_333,
    "cached_input": 33_333_337,
    "output": 1_234_567_891,
}


def cost_nanos(prompt: int, completion: int, *, cached: int = 0) -> int:
    """What a usage costs at PRICES: each line rounds half up, once."""
    lines = {"input": prompt - cached, "cached_input": cached, "output": completion}
    return sum((tokens * PRICES[name] + 500_000) // 1_000_000 for name, tokens in lines.items())


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
