"""Template tags of every page: amounts, prices, counts, moments, icons. Built in, no {% load %} needed."""

from datetime import datetime
from typing import Any

from django import template
from django.templatetags.static import static
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from portal.kit.ids import PREFIXES
from portal.kit.ids import public_id as spell_public_id
from portal.kit.money import format_nanos
from portal.pages.access import Organization
from portal.pages.roles import ROLE_NAMES
from tenants.models import Role
from tenants.permissions import Permission

register = template.Library()

MINUS = "\u2212"
NONE = "\u2013"


@register.simple_tag
def money(
    amount_nanos: int | None, currency: str, sign: bool = False, decimals: int = 0, label: str = ""
) -> SafeString | str:
    """An amount as people read it, never rounded; its exact nano-units in `value` and `title`.

    decimals: at least so many places, for a column of the same precision. label: accessible prefix.
    """
    if amount_nanos is None:
        return NONE
    text = amount_text(amount_nanos, currency, sign=sign, decimals=decimals)
    exact = _("%(amount)s nano-units of %(currency)s") % {
        "amount": count_text(amount_nanos),
        "currency": currency,
    }
    return format_html('<data class="money" value="{}" title="{}">{}</data>', amount_nanos, exact, text)


def amount_text(amount_nanos: int, currency: str, *, sign: bool = False, decimals: int = 0) -> str:
    """`−¥12.50`: a real minus sign, at least two and `decimals` places, all that are there."""
    text = format_nanos(amount_nanos, currency, sign=sign)
    missing = decimals - len(text.rpartition(".")[2])
    return text.replace("-", MINUS) + "0" * max(0, missing)


def count_text(count: int) -> str:
    """`1,234,567`: by three with a comma, in English and in Chinese alike."""
    return f"{count:,}"


@register.simple_tag
def price(nanos_per_million: int | None, currency: str) -> SafeString | str:
    """A price per million units; the unit belongs into the head of the column."""
    return money(nanos_per_million, currency)


@register.simple_tag
def tokens(count: int | None) -> SafeString | str:
    """A whole number with separators; its plain digits in `value`."""
    if count is None:
        return NONE
    return format_html('<data class="count" value="{}">{}</data>', count, count_text(count))


@register.simple_tag
def moment(value: datetime | None, style: str = "full") -> SafeString | str:
    """A moment in UTC; scripts put it into the reader's zone. style: full, date, or time."""
    if value is None:
        return NONE
    utc = timezone.localtime(value, timezone.get_fixed_timezone(0))
    shown = {
        "full": f"{utc:%Y-%m-%d %H:%M}",
        "date": date_format(utc, "DATE_FORMAT"),
        "time": f"{utc:%H:%M:%S}",
    }[style]
    return format_html(
        '<time datetime="{}" data-local="{}" title="{} UTC">{}</time>',
        utc.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        style,
        f"{utc:%Y-%m-%d %H:%M:%S}",
        shown,
    )


@register.simple_tag
def duration(milliseconds: int | None) -> SafeString | str:
    """`850 ms`, `12.4 s`; the exact number of milliseconds in `value`."""
    if milliseconds is None:
        return NONE
    text = f"{milliseconds} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.1f} s"
    return format_html('<data class="count" value="{}">{}</data>', milliseconds, text)


@register.simple_tag
def ago(seconds: float | None) -> str:
    """How long ago in words, coarse."""
    if seconds is None:
        return NONE
    whole = max(0, int(seconds))
    if whole >= 86400:
        return ngettext("%(n)d day ago", "%(n)d days ago", whole // 86400) % {"n": whole // 86400}
    if whole >= 3600:
        return ngettext("%(n)d hour ago", "%(n)d hours ago", whole // 3600) % {"n": whole // 3600}
    if whole >= 60:
        return ngettext("%(n)d minute ago", "%(n)d minutes ago", whole // 60) % {"n": whole // 60}
    return ngettext("%(n)d second ago", "%(n)d seconds ago", whole) % {"n": whole}


@register.simple_tag
def lasting(seconds: float | None) -> str:
    """How long something has gone on, in words, coarse."""
    if seconds is None:
        return NONE
    whole = max(0, int(seconds))
    if whole >= 86400:
        return ngettext("%(n)d day", "%(n)d days", whole // 86400) % {"n": whole // 86400}
    if whole >= 3600:
        return ngettext("%(n)d hour", "%(n)d hours", whole // 3600) % {"n": whole // 3600}
    if whole >= 60:
        return ngettext("%(n)d minute", "%(n)d minutes", whole // 60) % {"n": whole // 60}
    return ngettext("%(n)d second", "%(n)d seconds", whole) % {"n": whole}


@register.simple_tag
def icon(name: str) -> SafeString:
    """A decorative icon of static/icons.svg; the words beside it say what it means."""
    return format_html(
        '<svg class="icon" aria-hidden="true" focusable="false"><use href="{}#{}"></use></svg>',
        static("icons.svg"),
        name,
    )


@register.filter
def may(organization: Organization | None, permission: str) -> bool:
    """{% if organization|may:"manage_keys" %}"""
    return organization is not None and organization.may(Permission(permission))


@register.filter
def role_name(role: str) -> str:
    """{{ member.role|role_name }}"""
    return str(ROLE_NAMES[Role(role)])


@register.filter
def public_id(value: Any, kind: str) -> str:
    """{{ row.id|public_id:"api_key" }}"""
    return spell_public_id(PREFIXES[kind], value)


@register.simple_tag(takes_context=True)
def url_with(context: dict[str, Any], **changes: Any) -> str:
    """This page's address with some parameters changed; an empty value takes one away. Filters, sorting and
    paging live in the address, so that back, reload and share work."""
    request = context["request"]
    query = request.GET.copy()
    for name, value in changes.items():
        if value in ("", None):
            query.pop(name, None)
        else:
            query[name] = str(value)
    encoded = query.urlencode()
    return f"{request.path}?{encoded}" if encoded else str(request.path)
