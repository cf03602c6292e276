"""Compares what a file asks for with what the catalog holds; the writes that are missing come out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TypeVar

from django.db import connections, models

from models_catalog.catalog_file.changes import (
    Change,
    CreateRow,
    DeleteRow,
    EndPrice,
    PublishPrice,
    UpdateRow,
    Write,
    moment_text,
    shown,
)
from models_catalog.catalog_file.problems import Place, Problems
from models_catalog.catalog_file.state import CatalogState
from models_catalog.catalog_file.timeline import EndStep, PassedStep, Wanted, plan_timeline
from models_catalog.catalog_file.wanted import (
    Values,
    WantedBackend,
    WantedCatalog,
    WantedFeed,
    WantedModel,
    WantedPrice,
)
from models_catalog.engines.feeds import BadFeedOptions, FeedFormat, parse_options
from models_catalog.models import CatalogModel, Deployment, ModelAlias, ServingBackend, ServingPool, UsageFeed
from portal.kit.secrets import SecretError, SecretStore

RowT = TypeVar("RowT", bound=models.Model)

# What is too long for a line of output; that it changed is all that is said.
_LONG_FIELDS = frozenset({"description", "configuration", "columns"})


def check_references(wanted: WantedCatalog, state: CatalogState, problems: Problems, *, using: str) -> None:
    """Adds a problem for each name that neither the file nor the database knows."""
    zones = {each.name for each in wanted.references if each.kind == "time zone"}
    known: Mapping[str, frozenset[str] | set[str]] = {
        "pool": wanted.pool_codes | state.pools.keys(),
        "backend": wanted.backend_codes | state.backends.keys(),
        "model": {model.slug for model in wanted.models} | state.models.keys(),
        "time zone": _known_zones(zones, using) if zones else set(),
    }
    for reference in wanted.references:
        if reference.name not in known[reference.kind]:
            problems.add(reference.place, f"there is no {reference.kind} {shown(reference.name)}")


def _known_zones(zones: set[str], using: str) -> set[str]:
    """The database charges by these names, so it says which exist."""
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT name FROM pg_timezone_names WHERE name = ANY(%s)", [sorted(zones)])
        return {name for (name,) in cursor.fetchall()}


class Plan:
    """The writes, in an order in which each finds what it refers to."""

    def __init__(self, state: CatalogState, secrets: SecretStore, now: datetime, problems: Problems) -> None:
        self._state = state
        self._secrets = secrets
        self._now = now
        self._problems = problems
        self.writes: list[Write] = []

    def compare(self, wanted: WantedCatalog) -> list[Write]:
        """All writes for a file whose references are known. Adds to the problems what cannot be done."""
        for pool in wanted.pools:
            row = self._upsert(
                f"pool {pool.code}",
                pool.place,
                self._state.pools.get(pool.code),
                ServingPool(code=pool.code),
                pool.values,
            )
            self._state.pools[pool.code] = row
        for backend in wanted.backends:
            self._compare_backend(backend)
        for model in wanted.models:
            self._compare_model(model)
        # Names lead to models and models to their successors, which may stand further down in the file.
        named = {name for model in wanted.models for name in model.aliases or ()}
        for model in wanted.models:
            self._compare_aliases(model, named)
            self._compare_successor(model)
        return self.writes

    def _compare_backend(self, wanted: WantedBackend) -> None:
        values = {"pool": self._state.pools[wanted.pool], **wanted.values}
        held = self._state.backends.get(wanted.code)
        notes = []
        if wanted.credential is not None and wanted.credential != self._credential_of(held):
            values["credential_encrypted"] = (
                self._secrets.encrypt(wanted.credential) if wanted.credential else ""
            )
            notes.append("credential changed" if wanted.credential else "credential removed")
        row = self._upsert(
            f"backend {wanted.code}",
            wanted.place,
            held,
            ServingBackend(code=wanted.code),
            values,
            notes=notes,
        )
        self._state.backends[wanted.code] = row
        for feed in wanted.feeds:
            self._compare_feed(feed, row)

    def _compare_feed(self, wanted: WantedFeed, backend: ServingBackend) -> None:
        held = self._state.feeds.get(wanted.code)
        if held is not None and held.backend_id != backend.id:
            self._problems.add(wanted.place, "the code is that of another backend's feed")
            return
        row = self._upsert(
            f"feed {wanted.code}",
            wanted.place,
            held,
            UsageFeed(code=wanted.code, backend=backend),
            wanted.values,
        )
        try:
            parse_options(FeedFormat(row.format), {**row.columns, "time_zone": row.time_zone})
        except BadFeedOptions as error:
            self._problems.add(wanted.place, str(error))

    def _credential_of(self, backend: ServingBackend | None) -> str | None:
        """The stored credential, or None when it cannot be opened, so that the file's replaces it."""
        if backend is None or not backend.credential_encrypted:
            return ""
        try:
            return self._secrets.decrypt(backend.credential_encrypted)
        except SecretError:
            return None

    def _compare_model(self, wanted: WantedModel) -> None:
        model = self._upsert(
            f"model {wanted.slug}",
            wanted.place,
            self._state.models.get(wanted.slug),
            CatalogModel(slug=wanted.slug),
            wanted.values,
        )
        self._state.models[wanted.slug] = model
        for deployment in wanted.deployments:
            backend = self._state.backends[deployment.backend]
            self._upsert(
                f"deployment {wanted.slug} on {deployment.backend}",
                deployment.place,
                self._state.deployments.get((model.id, backend.id)),
                Deployment(model=model, backend=backend),
                deployment.values,
            )
        by_currency: dict[str, list[WantedPrice]] = defaultdict(list)
        for price in wanted.prices:
            by_currency[price.currency].append(price)
        for currency, prices in by_currency.items():
            self.writes += self._compare_prices(model, currency, prices)

    def _compare_aliases(self, wanted: WantedModel, named: set[str]) -> None:
        """named: the aliases of all models of the file; one that leads to another model now is moved."""
        if wanted.aliases is None:
            return
        model = self._state.models[wanted.slug]
        for name in wanted.aliases:
            held = self._state.aliases.get(name)
            if held is None:
                change = Change("+", f"alias {name}", f"of {model.slug}")
                self.writes.append(CreateRow(change, wanted.place, ModelAlias(name=name, model=model)))
            elif held.model_id != model.id:
                change = Change("~", f"alias {name}", f"{held.model.slug} → {model.slug}")
                held.model = model
                self.writes.append(UpdateRow(change, wanted.place, held, ["model"]))
        for held in self._state.aliases.values():
            if held.model_id == model.id and held.name not in named:
                change = Change("-", f"alias {held.name}", f"of {model.slug}")
                self.writes.append(DeleteRow(change, wanted.place, held))

    def _compare_successor(self, wanted: WantedModel) -> None:
        if wanted.successor is None:
            return
        model = self._state.models[wanted.slug]
        successor = self._state.models[wanted.successor] if wanted.successor else None
        if model.successor_id == (successor.id if successor else None):
            return
        change = Change("~", f"model {model.slug}", f"successor {wanted.successor or 'none'}")
        model.successor = successor
        self.writes.append(UpdateRow(change, wanted.place, model, ["successor"]))

    def _compare_prices(
        self, model: CatalogModel, currency: str, prices: list[WantedPrice]
    ) -> Iterator[Write]:
        steps = plan_timeline(
            self._state.versions.get((model.id, currency), []),
            [Wanted(index, price.active_from, price.content) for index, price in enumerate(prices)],
            self._now,
        )
        name = f"price {model.slug} {currency}"
        for step in sorted(steps, key=lambda step: not isinstance(step, EndStep)):
            if isinstance(step, EndStep):
                begins = moment_text(step.version.active_from)
                if step.at == step.version.active_from:
                    change = Change("-", name, f"from {begins} withdrawn")
                else:
                    change = Change("~", name, f"from {begins} ends {moment_text(step.at)}")
                yield EndPrice(change, prices[0].place, step)
            elif isinstance(step, PassedStep):
                self._problems.add(
                    prices[step.wanted.index].active_from_place,
                    "this moment has passed and another price was in force: write a later one, "
                    "or leave active_from out to change the price now",
                )
            else:
                end = "" if step.active_to is None else f" until {moment_text(step.active_to)}"
                count = len(step.wanted.content.lines)
                change = Change("+", name, f"from {moment_text(step.active_from)}{end} ({count} lines)")
                yield PublishPrice(
                    change,
                    prices[step.wanted.index].place,
                    model,
                    currency,
                    step.active_from,
                    step.active_to,
                    step.wanted.content,
                )

    def _upsert(
        self,
        name: str,
        place: Place,
        held: RowT | None,
        fresh: RowT,
        values: Values,
        *,
        notes: list[str] | None = None,
    ) -> RowT:
        """The row as the file wants it; adds the write that it needs, if any."""
        if held is None:
            for field, value in values.items():
                setattr(fresh, field, value)
            self.writes.append(CreateRow(Change("+", name), place, fresh))
            return fresh
        changed = [field for field, value in values.items() if getattr(held, field) != value]
        details = [
            _difference(field, getattr(held, field), values[field])
            for field in changed
            if field != "credential_encrypted"
        ]
        for field in changed:
            setattr(held, field, values[field])
        if changed:
            detail = ", ".join([*details, *(notes or [])])
            self.writes.append(UpdateRow(Change("~", name, detail), place, held, changed))
        return held


def _difference(field: str, before: object, after: object) -> str:
    if field in _LONG_FIELDS:
        return f"{field} changed"
    if field in ("state", "cancel_policy"):
        before, after = str(before).lower(), str(after).lower()
    if isinstance(before, ServingPool):
        before, after = before.code, getattr(after, "code", "")
    return f"{field} {shown(before)} → {shown(after)}"
