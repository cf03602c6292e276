"""How rows of usage name the key and the model that they are of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from models_catalog.models import CatalogModel
from tenants.models import ApiKey, KeyPurpose


@dataclass(frozen=True, slots=True)
class KeyLabel:
    """A key as people recognise it. A key of the playground has no name of its own: pages call it so."""

    id: UUID
    name: str
    hint: str
    is_playground: bool


@dataclass(frozen=True, slots=True)
class ModelLabel:
    id: UUID
    slug: str
    name: str


def key_labels(*, key_ids: Iterable[UUID]) -> dict[UUID, KeyLabel]:
    """Labels of these keys, as far as the open scope may see them."""
    return {
        key.id: KeyLabel(key.id, key.name, key.secret_hint, key.purpose == KeyPurpose.PLAYGROUND)
        for key in ApiKey.objects.filter(id__in=set(key_ids))
    }


def model_labels(*, model_ids: Iterable[UUID]) -> dict[UUID, ModelLabel]:
    return {
        model.id: ModelLabel(model.id, model.slug, model.display_name)
        for model in CatalogModel.objects.filter(id__in=set(model_ids))
    }
