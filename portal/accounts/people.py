"""How a person is named on pages and in mails."""

from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _

from tenants.models import User
from tenants.operations import InvalidName, checked_name


def display_name(user: User) -> str:
    """The name that the person gave, else the address."""
    return user.full_name or user.email


def cleaned_name(name: str) -> str:
    """What a form takes as the name of a person or an organization, in one line. Errors: ValidationError."""
    try:
        return checked_name(name=name)
    except InvalidName as error:
        raise ValidationError(_("This name has a link or characters that cannot be shown.")) from error
