"""How a person is named on pages and in mails."""

from tenants.models import User


def display_name(user: User) -> str:
    """The name that the person gave, else the address."""
    return user.full_name or user.email
