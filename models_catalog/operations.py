"""Writes of what tenants may use: grants of models and the allow-lists of keys."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from django.db import transaction

from models_catalog.models import ApiKeyModel, CatalogModel, ModelGrant, ModelState
from portal.kit.secrets import SecretStore
from tenants import operations as tenant_operations
from tenants.models import ApiKey
from tenants.scope import scope_alias


class ModelNotFound(LookupError):
    """No such active model."""


def _model_id(slug: str) -> UUID:
    model = CatalogModel.objects.filter(slug=slug, state=ModelState.ACTIVE).first()
    if model is None:
        raise ModelNotFound(f"there is no model {slug}")
    return model.id


def enable_model(*, tenant_id: UUID, slug: str) -> None:
    """Pick a model for an organization; picking it again changes nothing. Errors: ModelNotFound."""
    ModelGrant.objects.bulk_create(
        [ModelGrant(tenant_id=tenant_id, model_id=_model_id(slug))], ignore_conflicts=True
    )


def end_grant(*, tenant_id: UUID, slug: str, now: datetime) -> None:
    """Take a model away from an organization: its next call is refused. Works for retired models as well;
    without such a grant it changes nothing."""
    ModelGrant.objects.filter(tenant_id=tenant_id, model__slug=slug, ended_at=None).update(ended_at=now)


def restrict_api_key(*, tenant_id: UUID, key_id: UUID, slugs: Sequence[str]) -> None:
    """Let a key use only the models listed; an empty list allows none. Errors: KeyNotFound, ModelNotFound."""
    model_ids = [_model_id(slug) for slug in slugs]
    with transaction.atomic(using=scope_alias()):
        if ApiKey.objects.filter(tenant_id=tenant_id, id=key_id).update(restricts_models=True) != 1:
            raise tenant_operations.KeyNotFound("no such key")
        ApiKeyModel.objects.filter(tenant_id=tenant_id, api_key_id=key_id).exclude(
            model_id__in=model_ids
        ).delete()
        ApiKeyModel.objects.bulk_create(
            [
                ApiKeyModel(tenant_id=tenant_id, api_key_id=key_id, model_id=model_id)
                for model_id in model_ids
            ],
            ignore_conflicts=True,
        )


def issue_api_key(
    *,
    tenant_id: UUID,
    name: str,
    secrets: SecretStore,
    now: datetime,
    labels: Mapping[str, str],
    expires_at: datetime | None,
    slugs: Sequence[str] | None,
    created_by_id: UUID | None,
) -> tenant_operations.IssuedKey:
    """A new key and what it may use: the models listed, or with None every model that is enabled.

    Errors: InvalidKeyOptions, TooManyKeys, ModelNotFound.
    """
    with transaction.atomic(using=scope_alias()):
        issued = tenant_operations.create_api_key(
            tenant_id=tenant_id,
            name=name,
            secrets=secrets,
            now=now,
            labels=labels,
            expires_at=expires_at,
            created_by_id=created_by_id,
        )
        if slugs is not None:
            restrict_api_key(tenant_id=tenant_id, key_id=issued.id, slugs=slugs)
    return issued


def change_api_key(
    *, tenant_id: UUID, key_id: UUID, name: str, labels: Mapping[str, str], slugs: Sequence[str] | None
) -> None:
    """Name, labels and models of a key, all at once; None lets it use every model that is enabled.

    Errors: InvalidKeyOptions, KeyNotFound, ModelNotFound.
    """
    with transaction.atomic(using=scope_alias()):
        tenant_operations.update_api_key(tenant_id=tenant_id, key_id=key_id, name=name, labels=labels)
        if slugs is not None:
            restrict_api_key(tenant_id=tenant_id, key_id=key_id, slugs=slugs)
            return
        ApiKey.objects.filter(tenant_id=tenant_id, id=key_id).update(restricts_models=False)
        ApiKeyModel.objects.filter(tenant_id=tenant_id, api_key_id=key_id).delete()


def rotate_api_key(
    *,
    tenant_id: UUID,
    key_id: UUID,
    secrets: SecretStore,
    now: datetime,
    overlap_s: int,
    created_by_id: UUID | None = None,
) -> tenant_operations.IssuedKey:
    """A successor of a key with the same options and the same list of models.

    created_by_id: the person who rotates it. Errors: KeyNotFound, TooManyKeys.
    """
    with transaction.atomic(using=scope_alias()):
        issued = tenant_operations.rotate_api_key(
            tenant_id=tenant_id,
            key_id=key_id,
            secrets=secrets,
            now=now,
            overlap_s=overlap_s,
            created_by_id=created_by_id,
        )
        allowed = ApiKeyModel.objects.filter(tenant_id=tenant_id, api_key_id=key_id)
        ApiKeyModel.objects.bulk_create(
            [
                ApiKeyModel(tenant_id=tenant_id, api_key_id=issued.id, model_id=model_id)
                for model_id in allowed.values_list("model_id", flat=True)
            ]
        )
    return issued
