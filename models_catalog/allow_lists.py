"""Reads: which models keys with an allow-list may use. The caller opens the scope."""

from collections.abc import Collection
from uuid import UUID

from models_catalog.models import ApiKeyModel


def models_of_keys(*, tenant_id: UUID, key_ids: Collection[UUID]) -> dict[UUID, tuple[str, ...]]:
    """The slugs on the lists of these keys, in alphabetical order; a key without any is not in the answer.

    What is on a list works only while the organization has the model enabled.
    """
    listed = (
        ApiKeyModel.objects.filter(tenant_id=tenant_id, api_key_id__in=key_ids)
        .order_by("model__slug")
        .values_list("api_key_id", "model__slug")
    )
    slugs: dict[UUID, tuple[str, ...]] = {}
    for key_id, slug in listed:
        slugs[key_id] = (*slugs.get(key_id, ()), slug)
    return slugs


def keys_that_list(*, tenant_id: UUID, slug: str) -> list[UUID]:
    """The keys whose lists name this model."""
    listed = ApiKeyModel.objects.filter(tenant_id=tenant_id, model__slug=slug)
    return list(listed.order_by("api_key_id").values_list("api_key_id", flat=True))
