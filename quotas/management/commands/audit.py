"""manage.py audit: is every invariant of the ledger true?"""

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from quotas import audit

TITLE_WIDTH = 60


class Command(BaseCommand):
    help = "Checks every invariant of the ledger; exits 1 when one is violated."

    def handle(self, *args: Any, **options: Any) -> None:
        violated = []
        for result in audit.run():
            verdict = "holds" if result.holds else f"VIOLATED by {result.violations}"
            self.stdout.write(f"{result.code:<4}{result.title:<{TITLE_WIDTH}}{verdict}")
            for example in result.examples:
                self.stdout.write(f"      {example}")
            if not result.holds:
                violated.append(result.code)
        if violated:
            raise CommandError(f"violated: {', '.join(violated)}")
