"""The Celery application: worker and beat."""

from typing import Any

from portal.settings.environment import select_settings

select_settings(database_role="dataplane")

from celery import Celery, signals  # noqa: E402
from django.conf import settings  # noqa: E402

from portal.kit import logs  # noqa: E402

app = Celery("sluice")
app.conf.update(settings.CELERY)
app.autodiscover_tasks(["quotas", "tenants"])


@signals.setup_logging.connect  # type: ignore[untyped-decorator]
def _set_up_logging(**_: Any) -> None:
    logs.configure("worker", settings.LOG_LEVEL)
