"""A laptop: what `make run` uses."""

from portal.settings.base import *  # noqa: F403

SESSION_COOKIE_SECURE = False
WHITENOISE_USE_FINDERS = True
# Else a stylesheet that is built while the server runs would be cut at its former length.
WHITENOISE_AUTOREFRESH = True
MAILBOX = not EMAIL_HOST  # noqa: F405
BANK_DETAILS = BANK_DETAILS or EXAMPLE_BANK_DETAILS  # noqa: F405
