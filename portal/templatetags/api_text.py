"""Text of the API's description on pages."""

import re

from django import template
from django.utils.html import format_html_join
from django.utils.safestring import SafeString

register = template.Library()


@register.filter
def with_code(text: str) -> SafeString:
    """The text, with what stands in `backticks` as code."""
    parts = re.split(r"`([^`]+)`", text)
    return format_html_join(
        "",
        "{}{}",
        ((words, code) for words, code in zip(parts[::2], [*map(_code, parts[1::2]), ""], strict=True)),
    )


def _code(text: str) -> SafeString:
    return format_html_join("", "<code>{}</code>", [(text,)])
