"""manage.py check_stripe: is this installation set up for Stripe?"""

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from quotas.payments import checking

SUBJECT_WIDTH = 28


class Command(BaseCommand):
    help = "Checks key, account, scopes, webhook and amounts against Stripe; exits 1 when something is wrong."

    def handle(self, *args: Any, **options: Any) -> None:
        problems = 0
        for finding in checking.check_stripe():
            problems += finding.is_problem
            mark = "✗" if finding.is_problem else "✓"
            self.stdout.write(f"{mark} {finding.subject:<{SUBJECT_WIDTH}}{finding.text}")
        if problems:
            raise CommandError(f"{problems} problem{'s' if problems > 1 else ''}")
