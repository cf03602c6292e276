"""Template filters of the fleet's pages."""

from django import template

from models_catalog.fleet.queries import Phase
from portal.backoffice.fleet.fields import scaled_text
from portal.backoffice.fleet.rows import PHASES, Lamp

register = template.Library()


@register.filter
def scaled(number: int, places: int) -> str:
    """{{ 1250|scaled:3 }} is `1.25`."""
    return scaled_text(number, places)


@register.filter
def phase_lamp(phase: Phase) -> Lamp:
    """The lamp of a version that is in force, planned, ended or withdrawn."""
    return Lamp(*PHASES[phase])
