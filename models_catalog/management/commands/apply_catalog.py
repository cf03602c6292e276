"""`manage.py apply_catalog FILE.yaml [--dry-run]`: make the catalog what a file says."""

import os
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from models_catalog.catalog_file import CatalogBusy, CatalogDocument, CatalogFileError, apply_catalog
from tenants.scope import role_scope


class Command(BaseCommand):
    help = "Makes the catalog what a YAML file says, and prints what changed. See docs/catalog-file.md."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path, metavar="FILE.yaml")
        parser.add_argument(
            "--dry-run", action="store_true", help="Print what would change, and change nothing."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if settings.SECRET_STORE is None:
            raise CommandError("SECRETS_DIR must be set: credentials of backends are stored encrypted.")
        try:
            with role_scope("operator"):
                changes = apply_catalog(
                    document=CatalogDocument.load(options["file"], os.environ),
                    secrets=settings.SECRET_STORE,
                    dry_run=options["dry_run"],
                    currencies=settings.CURRENCIES,
                )
        except OSError as error:
            raise CommandError(f"{options['file']}: {error.strerror}") from error
        except CatalogFileError as error:
            mistakes = "1 mistake" if error.count == 1 else f"{error.count} mistakes"
            raise CommandError(f"the file has {mistakes}; nothing was changed\n{error}") from error
        except CatalogBusy as error:
            raise CommandError(str(error)) from error
        for line in changes.lines:
            self.stdout.write(line)
        if not changes.changes:
            self.stdout.write("Nothing to change.")
        elif changes.dry_run:
            self.stdout.write("Dry run: nothing was changed.")
