"""Form bodies and queries as Stripe's clients send them, and a reader which knows what was never read."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import parse_qsl

from devstack.stripe_standin.errors import ApiError, invalid, missing, unknown

_PART = re.compile(r"\[([^\[\]]*)\]")
_NAME = re.compile(r"^[^\[\]]+")

Tree = dict[str, Any]


def decode(text: str) -> Tree:
    """`a[b][0]=c` as {"a": {"b": {"0": "c"}}}. Raises ApiError when a name is half a scalar, half a hash."""
    tree: Tree = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        head = _NAME.match(name)
        if head is None:
            raise invalid(name, f"Invalid parameter name: {name}")
        parts = [head.group(), *_PART.findall(name[head.end() :])]
        at = tree
        for part in parts[:-1]:
            below = at.setdefault(part or str(len(at)), {})
            if not isinstance(below, dict):
                raise invalid(name, f"Invalid hash: {name}")
            at = below
        at[parts[-1] or str(len(at))] = value
    return tree


class Params:
    """Reads one level of parameters. What nobody asked for is refused at the end, as unknown."""

    def __init__(self, tree: Tree, path: str = "") -> None:
        self._tree = tree
        self._path = path
        self._read: set[str] = {"expand"} if not path else set()
        self._children: list[Params] = []

    def name(self, key: str) -> str:
        return f"{self._path}[{key}]" if self._path else key

    def has(self, key: str) -> bool:
        return key in self._tree

    def sent(self) -> list[str]:
        """The names at this level."""
        return list(self._tree)

    def take(self, key: str) -> Any:
        """Whatever was sent, unlooked at."""
        self._read.add(key)
        return self._tree.get(key)

    def text(self, key: str, default: str | None = None) -> str | None:
        value = self.take(key)
        if value is None:
            return default
        if not isinstance(value, str):
            raise invalid(self.name(key), f"Invalid string: {value}")
        return value or None

    def needed(self, key: str) -> str:
        value = self.text(key)
        if value is None:
            raise missing(self.name(key))
        return value

    def choice(self, key: str, allowed: Collection[str], default: str | None = None) -> str | None:
        value = self.text(key, default)
        if value is not None and value not in allowed:
            names = ", ".join(sorted(allowed))
            raise invalid(self.name(key), f"Invalid {self.name(key)}: must be one of {names}")
        return value

    def integer(self, key: str, default: int | None = None) -> int | None:
        value = self.text(key)
        if value is None:
            return default
        try:
            return int(value)
        except ValueError:
            raise ApiError(
                400,
                f"Invalid integer: {value}",
                code="parameter_invalid_integer",
                param=self.name(key),
            ) from None

    def amount(self, key: str) -> int:
        """An amount in the currency's smallest unit, above zero."""
        value = self.integer(key)
        if value is None:
            raise missing(self.name(key))
        if value < 1:
            raise invalid(
                self.name(key),
                "This value must be greater than or equal to 1.",
                code="parameter_invalid_integer",
            )
        return value

    def flag(self, key: str, default: bool = False) -> bool:
        value = self.text(key)
        if value is None:
            return default
        if value not in ("true", "false"):
            raise invalid(self.name(key), f"Invalid boolean: {value}")
        return value == "true"

    def flag_word(self, key: str) -> bool:
        """Whether a box on a page was ticked."""
        return self.text(key) is not None

    def currency(self, key: str = "currency") -> str:
        value = self.needed(key).lower()
        if not re.fullmatch(r"[a-z]{3}", value):
            raise invalid(self.name(key), f"Invalid currency: {value}")
        return value

    def child(self, key: str) -> Params:
        """The level below; an empty one when nothing was sent."""
        value = self.take(key)
        if value is None or value == "":
            value = {}
        if not isinstance(value, dict):
            raise invalid(self.name(key), f"Invalid object: {value}")
        child = Params(value, self.name(key))
        self._children.append(child)
        return child

    def children(self, key: str) -> list[Params]:
        """The members of an array of hashes."""
        value = self.take(key)
        if value in (None, ""):
            return []
        if not isinstance(value, dict) or not all(isinstance(part, dict) for part in value.values()):
            raise invalid(self.name(key), "Invalid array")
        found = [Params(part, self.name(f"{key}][{index}")) for index, part in value.items()]
        self._children.extend(found)
        return found

    def texts(self, key: str) -> list[str]:
        """The members of an array of strings."""
        value = self.take(key)
        if value in (None, ""):
            return []
        if not isinstance(value, dict) or not all(isinstance(part, str) for part in value.values()):
            raise invalid(self.name(key), "Invalid array")
        return list(value.values())

    def metadata(self, key: str = "metadata", old: Mapping[str, str] | None = None) -> dict[str, str]:
        """`old` with what was sent on top: an empty value removes a key, an empty hash all of them."""
        value = self.take(key)
        if value is None:
            return dict(old or {})
        if value == "":
            return {}
        if not isinstance(value, dict):
            raise invalid(self.name(key), "Invalid hash")
        merged = dict(old or {})
        for name, text in value.items():
            if not isinstance(text, str) or len(name) > 40 or len(text) > 500:
                raise invalid(f"{self.name(key)}[{name}]", "Metadata keys have 40 characters, values 500.")
            merged[name] = text
        return {name: text for name, text in merged.items() if text != ""}

    def __bool__(self) -> bool:
        return bool(self._tree)

    def refuse_unread(self) -> None:
        """Raises ApiError parameter_unknown for the first parameter that nothing asked for."""
        for key in self._tree:
            if key not in self._read:
                raise unknown(self.name(key))
        for child in self._children:
            child.refuse_unread()
