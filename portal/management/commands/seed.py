"""Gives a new installation an operator, a catalog, and an organization whose key works at once."""

import os
import secrets
import shlex
from pathlib import Path
from typing import Any

from allauth.account.models import EmailAddress
from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

from models_catalog import operations as catalog
from models_catalog.models import CatalogModel, ModelState
from portal.kit.clock import utc_now
from portal.kit.secrets import SecretStore
from quotas.operations import WelcomeCredit, make_partitions, open_tenant
from tenants import operations as tenants
from tenants.models import Membership, User
from tenants.scope import role_scope

OPERATOR_EMAIL = "operator@sluice.example"
TENANT_EMAIL = "owner@first-customer.example"
TENANT_NAME = "First Customer"
WELCOME_NANOS = 25 * 10**9
ENABLED_MODELS = 2
BUILT_IN_CATALOG = Path("devstack") / "catalog.yaml"


class Command(BaseCommand):
    help = "Seed a development installation and write demo.env. Running it again changes nothing."

    def handle(self, *_args: Any, **_options: Any) -> None:
        store = settings.SECRET_STORE
        if store is None:
            raise CommandError("SECRETS_DIR must be set")
        # An installation that slept for a week has no partition for today.
        make_partitions()
        catalog_file = settings.CATALOG_FILE
        if catalog_file is None and settings.DEVSTACK_MODEL_URL:
            catalog_file = settings.BASE_DIR / BUILT_IN_CATALOG
        if catalog_file is not None:
            call_command("apply_catalog", str(catalog_file), stdout=self.stdout)
        demo_file = settings.DEMO_ENV_FILE
        if demo_file is None:
            raise CommandError("DEMO_ENV_FILE must be set")
        known = _read(demo_file)
        with role_scope("operator"):
            values = _seed(known, store)
        _verify(OPERATOR_EMAIL, TENANT_EMAIL)
        if values != known:
            _write(demo_file, values)
            self.stdout.write(f"wrote {demo_file}")


def _seed(known: dict[str, str], store: SecretStore) -> dict[str, str]:
    operator_password = known.get("OPERATOR_PASSWORD") or secrets.token_urlsafe(18)
    tenant_password = known.get("TENANT_PASSWORD") or secrets.token_urlsafe(18)
    _user(OPERATOR_EMAIL, operator_password, is_staff=True, is_superuser=True)
    owner = _user(TENANT_EMAIL, tenant_password)
    # Those of the built-in catalog: the real one first, and a simulated one.
    oldest = CatalogModel.objects.filter(state=ModelState.ACTIVE).order_by("created_at", "slug")
    models = list(oldest[:ENABLED_MODELS])
    membership = Membership.objects.filter(user=owner).first()
    tenant_id = (
        membership.tenant_id
        if membership
        else open_tenant(
            name=TENANT_NAME,
            currency=settings.CURRENCIES[0],
            currencies=settings.CURRENCIES,
            owner_id=owner.id,
            welcome_credit=WelcomeCredit(WELCOME_NANOS, "Credit of the first customer"),
        )
    )
    for model in models:
        catalog.enable_model(tenant_id=tenant_id, slug=model.slug)
    api_key = known.get("API_KEY")
    if api_key is None:
        api_key = tenants.create_api_key(tenant_id=tenant_id, name="demo", secrets=store, now=utc_now()).token
    return {
        "PORTAL_URL": settings.PORTAL_URL,
        "API_BASE": settings.API_BASE,
        "OPERATOR_EMAIL": OPERATOR_EMAIL,
        "OPERATOR_PASSWORD": operator_password,
        "TENANT_EMAIL": TENANT_EMAIL,
        "TENANT_PASSWORD": tenant_password,
        "API_KEY": api_key,
        "MODEL": models[0].slug if models else "",
    }


def _user(email: str, password: str, **flags: bool) -> User:
    # Operators read no passwords and change none; whoever signs people in does.
    with role_scope("auth"):
        user = User.objects.filter(email=email).first()
        if user is None:
            return User.objects.create_user(email, password, **flags)
        if not user.check_password(password):
            user.set_password(password)
            user.save(update_fields=["password"])
        return user


def _verify(*emails: str) -> None:
    """Nobody reads these people's mail: their addresses count as verified, so that they can sign in."""
    with role_scope("auth"):
        for user in User.objects.filter(email__in=emails):
            EmailAddress.objects.update_or_create(
                user=user, email=user.email, defaults={"verified": True, "primary": True}
            )


def _read(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    pairs = (line.split("=", 1) for line in path.read_text(encoding="utf-8").splitlines() if "=" in line)
    return {name: "".join(shlex.split(value)) for name, value in pairs}


def _write(path: Path, values: dict[str, str]) -> None:
    """Readable by its owner only, and never half-written."""
    lines = "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())
    partial = path.with_name(path.name + ".new")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(lines)
    partial.rename(path)
