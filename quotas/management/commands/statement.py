"""manage.py statement TENANT: every movement of an organization's money, and whether it adds up."""

from datetime import UTC, date, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from portal.kit.ids import PREFIXES, public_id
from portal.kit.money import format_nanos
from quotas.ledger.queries import Statement, StatementNotFound, open_statement
from tenants.queries import TenantName, find_tenants
from tenants.scope import role_scope

AMOUNT_WIDTH = 22
LINE_LABEL_WIDTH = 104


class Command(BaseCommand):
    help = "Prints the statement of an organization; exits 1 when it does not add up."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "tenant",
            nargs="?",
            default="",
            help="its public id (org_…), its name, or a member's e-mail address",
        )
        parser.add_argument("--from", dest="from_day", help="first day, such as 2026-01-31 (UTC)")
        parser.add_argument("--to", dest="to_day", help="the day after the last one (UTC)")

    def handle(self, *args: Any, **options: Any) -> None:
        from_at, to_at = _midnight(options["from_day"], "--from"), _midnight(options["to_day"], "--to")
        if from_at is not None and to_at is not None and to_at <= from_at:
            raise CommandError("--to must be later than --from")
        tenant = self._find(options["tenant"])
        try:
            with open_statement(tenant_id=tenant.id, from_at=from_at, to_at=to_at) as statement:
                period = f"from {_day(from_at, 'the beginning')} until before {_day(to_at, 'now')}"
                self.stdout.write(
                    f"{tenant.public_id} ({_printable(statement.name)}), {statement.currency}, {period}"
                )
                difference_nanos = self._print(statement)
        except StatementNotFound:
            raise CommandError(f"there is no organization {options['tenant']}") from None
        if difference_nanos:
            amount = format_nanos(difference_nanos, statement.currency, sign=True)
            raise CommandError(f"does not add up: opening and lines differ from closing by {amount}")
        self.stdout.write("adds up")

    def _find(self, text: str) -> TenantName:
        """The one organization that is meant. CommandError with a list to choose from otherwise."""
        with role_scope("operator"):
            found = find_tenants(text=text)
        if len(found) == 1:
            return found[0]
        if text and not found:
            raise CommandError(f"there is no organization {text}")
        names = "\n".join(f"  {tenant.public_id}  {_printable(tenant.name)}" for tenant in found)
        raise CommandError(f"which organization?\n{names}" if found else "there is no organization yet")

    def _print(self, statement: Statement) -> int:
        """Print everything; nano-units that opening and lines come to above the closing balance."""
        currency = statement.currency
        self._line("opening balance", "", format_nanos(statement.opening.total_nanos, currency))
        balance_nanos = statement.opening.total_nanos
        for line in statement.lines:
            balance_nanos = line.balance_nanos
            request = "" if line.request_id is None else public_id(PREFIXES["request"], line.request_id)
            self._line(
                f"{line.posted_at.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}  "
                f"{public_id(PREFIXES['transfer'], line.transfer_id)}  {line.kind:<10}  {request}",
                format_nanos(line.amount_nanos, currency, sign=True),
                format_nanos(line.balance_nanos, currency),
            )
        closing = statement.closing
        self._line("closing balance", "", format_nanos(closing.total_nanos, currency))
        self._line("  paid", "", format_nanos(closing.paid_nanos, currency))
        self._line("  granted", "", format_nanos(closing.granted_nanos, currency))
        self._line("  owed", "", format_nanos(closing.owed_nanos, currency))
        self._line("pending now", "", format_nanos(statement.pending_nanos, currency))
        return balance_nanos - closing.total_nanos

    def _line(self, label: str, amount: str, balance: str) -> None:
        self.stdout.write(f"{label:<{LINE_LABEL_WIDTH}}{amount:>{AMOUNT_WIDTH}}{balance:>{AMOUNT_WIDTH}}")


def _printable(name: str) -> str:
    # People choose names; nothing in them may steer the terminal.
    return "".join(sign if sign.isprintable() else "?" for sign in name)


def _midnight(day: str | None, option: str) -> datetime | None:
    """The beginning of a day in UTC. CommandError when the text is no date."""
    if day is None:
        return None
    try:
        parsed = date.fromisoformat(day)
    except ValueError:
        raise CommandError(f"{option} must be a day such as 2026-01-31") from None
    return datetime(parsed.year, parsed.month, parsed.day, tzinfo=UTC)


def _day(moment: datetime | None, otherwise: str) -> str:
    return otherwise if moment is None else f"{moment:%Y-%m-%d}"
