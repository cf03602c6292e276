"""Tests: the services come from the test session, hashing is cheap."""

from portal.settings.base import *  # noqa: F403

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
SESSION_COOKIE_SECURE = False
WHITENOISE_AUTOREFRESH = True
WHITENOISE_USE_FINDERS = True
MAILBOX = True
BANK_DETAILS = EXAMPLE_BANK_DETAILS  # noqa: F405
