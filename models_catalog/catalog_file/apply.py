"""Applies a catalog file: what differs from the catalog is written in one transaction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Self

from django.db import DataError, IntegrityError, connections, transaction

from models_catalog.catalog_file.changes import CatalogChanges, Write
from models_catalog.catalog_file.parse import MAX_TEXT_BYTES, parse_text
from models_catalog.catalog_file.plan import Plan, check_references
from models_catalog.catalog_file.problems import CatalogFileError, Problems
from models_catalog.catalog_file.state import read_state
from models_catalog.catalog_file.validate import read_catalog
from models_catalog.catalog_file.wanted import Reading, WantedCatalog
from models_catalog.pricing.locking import busy_is_said, lock_catalog
from portal.kit.secrets import SecretStore
from tenants.scope import scope_alias


@dataclass(frozen=True, slots=True)
class CatalogDocument:
    """The text of a catalog file, the name that messages give it, and the variables that it may name."""

    text: str = field(repr=False)
    name: str = "catalog.yaml"
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def load(cls, path: Path, environ: Mapping[str, str]) -> Self:
        """The document in a file of at most 1 MiB. Errors: CatalogFileError, OSError."""
        with path.open("rb") as file:
            content = file.read(MAX_TEXT_BYTES + 1)
        try:
            # A file that is too long may be cut inside a character; the length is refused when it is read.
            return cls(
                content.decode("utf-8", "strict" if len(content) <= MAX_TEXT_BYTES else "replace"),
                str(path),
                environ,
            )
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            raise CatalogFileError((f"{path}:{line}: not valid UTF-8",), count=1) from None


def apply_catalog(
    *,
    document: CatalogDocument | str,
    secrets: SecretStore,
    dry_run: bool = False,
    now: datetime | None = None,
    currencies: tuple[str, ...] | None = None,
) -> CatalogChanges:
    """Make the catalog what the file says, or change nothing. Applying a file again changes nothing.

    What the file does not speak of stays as it is. Runs in the role of the open scope, the operator's.
    Prices without a moment hold from the database's clock on; a `now` that lies later stands in for it.
    With `currencies`, prices in others are refused. With `dry_run` everything is rolled back.
    Errors: CatalogFileError with all that is wrong in the file; CatalogBusy; ScopeMissing.
    """
    if isinstance(document, str):
        document = CatalogDocument(document)
    alias = scope_alias()
    problems = Problems(document.name)
    wanted = _read(document, problems, currencies)
    with busy_is_said(), transaction.atomic(using=alias):
        writes = _apply(wanted, secrets, now, problems, using=alias)
        if dry_run:
            transaction.set_rollback(True, using=alias)
    return CatalogChanges(tuple(write.change for write in writes), dry_run)


def _apply(
    wanted: WantedCatalog, secrets: SecretStore, now: datetime | None, problems: Problems, *, using: str
) -> list[Write]:
    moment = lock_catalog(using, now)
    state = read_state(wanted)
    check_references(wanted, state, problems, using=using)
    problems.raise_if_any()
    writes = Plan(state, secrets, moment, problems).compare(wanted)
    problems.raise_if_any()
    with connections[using].cursor() as cursor:
        # What would reserve too much of a pool is then told where the file asks for it, also in a dry run.
        cursor.execute("SET CONSTRAINTS catalog_guard_shares IMMEDIATE")
    for write in writes:
        _write(write, problems)
    return writes


def _read(document: CatalogDocument, problems: Problems, currencies: tuple[str, ...] | None) -> WantedCatalog:
    root = parse_text(document.text, problems)
    if root is None:
        problems.raise_if_any()
    assert root is not None
    return read_catalog(root, Reading(problems, document.environ, currencies))


def _write(write: Write, problems: Problems) -> None:
    """Makes one change. What only the database could refuse, such as an edit by somebody else at the same
    time, is told like a mistake of the file; details stay out, since they may quote a stored credential."""
    try:
        write.write()
    except (IntegrityError, DataError) as error:
        diagnosis = getattr(error.__cause__, "diag", None)
        message = getattr(diagnosis, "message_primary", None) or "no reason given"
        problems.add(write.place, f"the database refuses this: {message}")
    problems.raise_if_any()
