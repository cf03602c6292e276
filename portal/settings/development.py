"""A laptop: what `make run` uses."""

from portal.settings.base import *  # noqa: F403

SESSION_COOKIE_SECURE = False
WHITENOISE_USE_FINDERS = True
