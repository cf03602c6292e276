"""Drafts of prices: written, edited as a whole, thrown away. Nobody but operators sees one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from django.db import connections, transaction
from django.db.models import Q

from models_catalog.models import CatalogModel, PriceVersion
from models_catalog.pricing.checks import WindowEntry, checked_content
from models_catalog.pricing.content import EMPTY, PriceContent, PriceLineContent
from models_catalog.pricing.storage import delete_parts, read_content, write_parts
from portal.kit.ids import PREFIXES, public_id
from tenants.models import Tenant
from tenants.operations import audit
from tenants.operations.audit import Actor
from tenants.scope import scope_alias

MAX_DRAFTS: Final = 20
"""Of one model, currency and organization."""


class DraftNotFound(LookupError):
    """No such draft: it was never there, was discarded, or is published."""


class ModelNotPriced(LookupError):
    """There is no such model, organization or version to begin with."""


class WrongCurrency(ValueError):
    """Prices are in one of the installation's currencies, and a private one in that of the wallet."""


class TooManyDrafts(ValueError):
    """There are MAX_DRAFTS drafts of this price already; discard one."""


class DraftChanged(RuntimeError):
    """Somebody else has edited the draft since it was read; nothing was changed."""


def create_draft(
    *,
    model_id: UUID,
    currency: str,
    currencies: Sequence[str] | None = None,
    tenant_id: UUID | None = None,
    copy_of: UUID | None = None,
    actor: Actor,
    now: datetime,
) -> UUID:
    """A draft of a list price, or of the private price of an organization; its id.

    copy_of: the version whose content it begins with; None begins empty. currencies: those of the
    installation; None allows any. Errors: ModelNotPriced, WrongCurrency, TooManyDrafts.
    """
    with transaction.atomic(using=scope_alias()):
        model = CatalogModel.objects.select_for_update(no_key=True).filter(id=model_id).first()
        if model is None:
            raise ModelNotPriced("there is no such model")
        _check_currency(currency, currencies, tenant_id)
        content = EMPTY
        if copy_of is not None:
            source = PriceVersion.objects.filter(id=copy_of, model_id=model_id).first()
            if source is None:
                raise ModelNotPriced("there is no such version of this model to copy")
            content = read_content(source)
        drafts = PriceVersion.objects.filter(
            of_tenant(tenant_id), model_id=model_id, currency=currency, published_at=None
        )
        if drafts.count() >= MAX_DRAFTS:
            raise TooManyDrafts(f"there are {MAX_DRAFTS} drafts of this price already")
        version = PriceVersion.objects.create(
            model_id=model_id,
            tenant_id=tenant_id,
            currency=currency,
            time_zone=content.time_zone,
            # It says nothing until the draft is published, which sets it.
            active_from=now,
            created_by_id=actor.user_id,
        )
        write_parts(version.id, content)
        after = {
            "model": model.slug,
            "currency": currency,
            "copy_of": price_id(copy_of) if copy_of else None,
            **content.described(),
        }
        _record(actor, "price.draft", version, after=after)
    return version.id


def update_draft(
    *,
    version_id: UUID,
    time_zone: str,
    lines: Sequence[PriceLineContent],
    windows: Sequence[WindowEntry],
    actor: Actor,
    now: datetime,
    expected: str | None = None,
) -> PriceContent:
    """Give a draft this content, all of it; what it says now.

    expected: the digest of the content that the change is based on (PriceContent.sha256); with another one
    stored, nothing happens. Errors: DraftNotFound, DraftChanged, checks.InvalidTariff.
    """
    with transaction.atomic(using=scope_alias()):
        version = locked_draft(version_id)
        before = read_content(version)
        if expected is not None and expected != before.sha256:
            raise DraftChanged("somebody else has edited the draft")
        content = checked_content(
            time_zone=time_zone, windows=windows, lines=lines, known_zones=known_zones([time_zone])
        )
        if content == before:
            return content
        delete_parts(version_id)
        PriceVersion.objects.filter(id=version_id).update(time_zone=content.time_zone)
        write_parts(version_id, content)
        _record(actor, "price.edit", version, before=before.described(), after=content.described())
    return content


def discard_draft(*, version_id: UUID, actor: Actor, now: datetime, reason: str = "") -> None:
    """Throw a draft away, with the what-ifs about it; the audit log keeps what it said.

    Errors: DraftNotFound.
    """
    with transaction.atomic(using=scope_alias()):
        version = locked_draft(version_id)
        before = read_content(version).described()
        delete_parts(version_id)
        # Not through the ORM: it would search all calls for the version first.
        with connections[scope_alias()].cursor() as cursor:
            cursor.execute("DELETE FROM models_catalog_priceversion WHERE id = %s", [version_id])
        _record(actor, "price.discard", version, before=before, reason=reason)


def locked_draft(version_id: UUID) -> PriceVersion:
    """The draft, ours until the transaction ends. Errors: DraftNotFound."""
    draft = (
        PriceVersion.objects.select_for_update(no_key=True).filter(id=version_id, published_at=None).first()
    )
    if draft is None:
        raise DraftNotFound("there is no such draft")
    return draft


def known_zones(names: Sequence[str]) -> frozenset[str]:
    """Those of the names that the database charges by."""
    asked = sorted({name for name in names if "\0" not in name})
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute("SELECT name FROM pg_timezone_names WHERE name = ANY(%s)", [asked])
        return frozenset(name for (name,) in cursor.fetchall())


def of_tenant(tenant_id: UUID | None) -> Q:
    """Versions of the list, or private ones of an organization."""
    return Q(tenant__isnull=True) if tenant_id is None else Q(tenant_id=tenant_id)


def price_id(version_id: UUID) -> str:
    return public_id(PREFIXES["price"], version_id)


def _check_currency(currency: str, currencies: Sequence[str] | None, tenant_id: UUID | None) -> None:
    if currencies is not None and currency not in currencies:
        raise WrongCurrency(f"prices are in {', '.join(currencies)}")
    if tenant_id is None:
        return
    tenant = Tenant.objects.filter(id=tenant_id).first()
    if tenant is None:
        raise ModelNotPriced("there is no such organization")
    if tenant.currency != currency:
        raise WrongCurrency(f"the organization's wallet is in {tenant.currency}")


def _record(actor: Actor, action: str, version: PriceVersion, **what: Any) -> None:
    audit.record(
        actor=actor,
        action=action,
        tenant_id=version.tenant_id,
        target=price_id(version.id),
        is_internal=True,
        **what,
    )
