"""Prints docs/roles.md."""

from typing import Any

from django.core.management.base import BaseCommand

from tenants.role_table import render_role_table


class Command(BaseCommand):
    help = "Print the table of roles, docs/roles.md."
    requires_system_checks = ()

    def handle(self, *_args: Any, **_options: Any) -> None:
        self.stdout.write(render_role_table(), ending="")
