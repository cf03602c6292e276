"""One change of the catalog: the line that tells of it, and the write that makes it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from django.db import models
from django.db.models.functions import Now

from models_catalog.catalog_file.problems import Place
from models_catalog.catalog_file.timeline import EndStep
from models_catalog.models import CatalogModel, PriceVersion
from models_catalog.pricing.content import PriceContent
from models_catalog.pricing.storage import write_parts

_PLAIN = re.compile(r"[A-Za-z0-9._:/@+-]+")
_MAX_SHOWN = 120


@dataclass(frozen=True, slots=True)
class Change:
    """One line of what changed: `~ backend gpu-1 max_concurrency 4 → 8`."""

    sign: Literal["+", "~", "-"]
    what: str
    detail: str = ""

    def __str__(self) -> str:
        return " ".join(part for part in (self.sign, self.what, self.detail) if part)


@dataclass(frozen=True, slots=True)
class CatalogChanges:
    """What applying a file changed, in order; with `dry_run`, what it would have changed."""

    changes: tuple[Change, ...]
    dry_run: bool

    @property
    def lines(self) -> tuple[str, ...]:
        return tuple(str(change) for change in self.changes)


class Write(Protocol):
    """A change that is still to be made. `place` is where the file asks for it."""

    @property
    def change(self) -> Change: ...

    @property
    def place(self) -> Place: ...

    def write(self) -> None: ...


@dataclass(frozen=True, slots=True)
class CreateRow:
    change: Change
    place: Place
    row: models.Model

    def write(self) -> None:
        self.row.save(force_insert=True)


@dataclass(frozen=True, slots=True)
class UpdateRow:
    """Writes the fields named, of a row whose new values are set already."""

    change: Change
    place: Place
    row: models.Model
    fields: Sequence[str]

    def write(self) -> None:
        self.row.save(update_fields=self.fields, force_update=True)


@dataclass(frozen=True, slots=True)
class DeleteRow:
    change: Change
    place: Place
    row: models.Model

    def write(self) -> None:
        self.row.delete()


@dataclass(frozen=True, slots=True)
class EndPrice:
    change: Change
    place: Place
    step: EndStep

    def write(self) -> None:
        PriceVersion.objects.filter(id=self.step.version.id).update(active_to=self.step.at)


@dataclass(frozen=True, slots=True)
class PublishPrice:
    """A version is written with its parts as a draft and then published, which freezes it."""

    change: Change
    place: Place
    model: CatalogModel
    currency: str
    active_from: datetime
    active_to: datetime | None
    content: PriceContent

    def write(self) -> None:
        version = PriceVersion.objects.create(
            model_id=self.model.id,
            currency=self.currency,
            time_zone=self.content.time_zone,
            active_from=self.active_from,
            active_to=self.active_to,
        )
        write_parts(version.id, self.content)
        PriceVersion.objects.filter(id=version.id).update(published_at=Now())


def shown(value: object) -> str:
    """A value as a line of output shows it: plain when it is a plain word, else in quotes."""
    if value is None:
        return "none"
    if isinstance(value, datetime):
        return moment_text(value)
    if isinstance(value, list):
        return f"[{', '.join(shown(item) for item in value)}]"
    if isinstance(value, str) and _PLAIN.fullmatch(value) is None:
        text = json.dumps(value, ensure_ascii=False)
    else:
        text = str(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"


def moment_text(moment: datetime) -> str:
    """A moment in UTC as files write it, with fractions of a second only when there are some."""
    return moment.isoformat().replace("+00:00", "Z")
