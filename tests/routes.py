"""Every address of the web process, read from the URLconf and from the router of the sockets.

Tests walk these lists, so that a new page is tested, or fails a test for having no case, by being there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.urls import URLPattern, URLResolver, get_resolver, reverse
from django.urls.resolvers import RegexPattern

from tenants.permissions import Permission


@dataclass(frozen=True, slots=True)
class Route:
    """One address. `name` is what reverse() takes, or the pattern itself when it has no name."""

    name: str
    pattern: str
    arguments: tuple[str, ...]
    view: Callable[..., Any]

    @property
    def permission(self) -> Permission | None:
        """What a member needs for it; None when it is not a page of an organization."""
        found: Permission | None = getattr(self.view, "permission", None)
        return found

    @property
    def methods(self) -> frozenset[str] | None:
        """The methods that the view answers, where it says so."""
        said = getattr(self.view, "methods", None)
        return None if said is None else frozenset(said)

    @property
    def is_fragment(self) -> bool:
        """Part of a page only, so it is not tested as a page of its own."""
        return bool(getattr(self.view, "is_fragment", False))

    def url(self, values: Mapping[str, str]) -> str:
        """The address with these values of its arguments."""
        if self.name == self.pattern:
            return "/" + re.sub(r"<(?:\w+:)?(\w+)>", lambda found: values[found[1]], self.pattern)
        return reverse(self.name, kwargs={name: values[name] for name in self.arguments})


def every_route() -> list[Route]:
    """All of the URLconf: of every door, of the libraries and of the admin."""
    return list(_walk(get_resolver().url_patterns, (), "", ()))


def _walk(
    patterns: list[URLPattern | URLResolver],
    namespaces: tuple[str, ...],
    prefix: str,
    arguments: tuple[str, ...],
) -> Iterator[Route]:
    for entry in patterns:
        pattern = prefix + str(entry.pattern)
        named = (*arguments, *_arguments(entry.pattern))
        if isinstance(entry, URLResolver):
            inner = (*namespaces, entry.namespace) if entry.namespace else namespaces
            yield from _walk(entry.url_patterns, inner, pattern, named)
        else:
            name = ":".join((*namespaces, entry.name)) if entry.name else pattern
            yield Route(name, pattern, named, entry.callback)


def _arguments(pattern: Any) -> tuple[str, ...]:
    if isinstance(pattern, RegexPattern):
        return tuple(pattern.regex.groupindex)
    return tuple(pattern.converters)


def every_socket() -> list[tuple[str, tuple[str, ...]]]:
    """The pattern and the arguments of every route of the sockets, what catches the rest aside."""
    from portal.sockets import application

    router = _unwrap(application)
    found = [(str(entry.pattern), _arguments(entry.pattern)) for entry in router.routes]
    return [(pattern, arguments) for pattern, arguments in found if pattern]


def _unwrap(application: Any) -> Any:
    """The router behind the middlewares, whatever each of them calls what it wraps."""
    for _ in range(20):
        if hasattr(application, "routes"):
            return application
        inner = [
            value
            for name in ("application", "inner", "_application", "app")
            if (value := getattr(application, name, None)) is not None
        ]
        if not inner:
            break
        (application,) = inner
    raise AssertionError(f"no router of sockets behind {application!r}")
