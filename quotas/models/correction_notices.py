"""Of which corrections the organizations were told by mail."""

from __future__ import annotations

from django.db import models


class CorrectionNotice(models.Model):
    """A correction that was large enough to be told of. A row of the house: no organization reads it."""

    # The constraint is composite: see the migration.
    pk = models.CompositePrimaryKey("request_id", "revision")
    request_id = models.UUIDField()
    revision = models.PositiveSmallIntegerField()
    told_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.request_id} r{self.revision}"
