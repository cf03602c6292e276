#!/usr/bin/env python
"""Django's command line, with the settings that SLUICE_ENV names."""

import sys

from portal.settings.environment import select_settings


def main() -> None:
    select_settings(database_role="owner")
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
