"""The web process: pages. The gateway is a process of its own, see portal.gateway."""

from portal.settings.environment import select_settings

select_settings(database_role="auth")

from django.conf import settings  # noqa: E402
from django.core.asgi import get_asgi_application  # noqa: E402

from portal.kit import logs  # noqa: E402

logs.configure("web", settings.LOG_LEVEL)
application = get_asgi_application()
