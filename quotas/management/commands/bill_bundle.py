"""manage.py bill_bundle ORGANIZATION --from DAY --to DAY --output FILE: a verifiable bill, made now."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from portal.kit.ids import PREFIXES, InvalidPublicId, parse_public_id
from quotas.bundles import operations, queries
from tenants import queries as tenant_queries
from tenants.models import Tenant
from tenants.operations import audit
from tenants.scope import role_scope, tenant_scope


class Command(BaseCommand):
    help = "Makes the signed bill of an organization's usage and writes it into a file."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("organization", help="its public id (org_…)")
        parser.add_argument("--from", dest="from_day", required=True, help="first day, as 2026-01-31 (UTC)")
        parser.add_argument("--to", dest="to_day", required=True, help="the day after the last one (UTC)")
        parser.add_argument("--output", type=Path, required=True, help="the file, which must not exist yet")

    def handle(self, *args: Any, **options: Any) -> None:
        tenant_id = self._find(options["organization"])
        with role_scope("operator"):
            now = tenant_queries.database_time()
        try:
            with tenant_scope(tenant_id):
                bundle_id = operations.request_bundle(
                    tenant_id=tenant_id,
                    from_at=_midnight(options["from_day"], "--from"),
                    to_at=_midnight(options["to_day"], "--to"),
                    actor=audit.SYSTEM,
                    now=now,
                    is_awaited=True,
                )
        except (operations.InvalidPeriod, operations.BundleUnderWay) as error:
            raise CommandError(str(error)) from None
        operations.run_bundle(
            bundle_id=bundle_id,
            secrets=settings.SECRET_STORE,
            issuer=settings.PORTAL_URL,
            grace=timedelta(seconds=settings.TUNING["SLUICE_INVOICE_GRACE_S"]),
            now=now,
        )
        with tenant_scope(tenant_id):
            row = queries.find_bundle(bundle_id=bundle_id)
        if row is None or not row.is_ready:
            raise CommandError(f"not made: {row.failure or row.state if row else 'it is gone'}")
        try:
            with options["output"].open("xb") as file:
                for piece in queries.iter_bundle(tenant_id=tenant_id, bundle_id=bundle_id):
                    file.write(piece)
        except OSError as error:
            raise CommandError(f"{options['output']}: {error.strerror}") from None
        self.stdout.write(f"{row.public_id}: {row.lines_done} calls, {row.size_bytes} bytes, {row.key_id}")
        self.stdout.write(f"SHA-256 {row.sha256}")

    def _find(self, text: str) -> UUID:
        try:
            tenant_id = parse_public_id(PREFIXES["organization"], text)
        except InvalidPublicId:
            raise CommandError(f"{text!r} is no id of an organization") from None
        with role_scope("operator"):
            if not Tenant.objects.filter(id=tenant_id).exists():
                raise CommandError(f"there is no organization {text}")
        return tenant_id


def _midnight(day: str, option: str) -> datetime:
    try:
        return datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise CommandError(f"{option} must be a day such as 2026-01-31") from None
