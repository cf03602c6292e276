"""What went wrong with a statement: the database refused it, or was not there."""

from django.db import DatabaseError


def is_refusal(error: DatabaseError) -> bool:
    """Whether the database itself refused a statement, so that the next one may well succeed; without a
    connection none will."""
    return getattr(error.__cause__, "sqlstate", None) is not None
