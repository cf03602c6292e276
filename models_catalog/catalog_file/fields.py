"""Reads one mapping of the file, field by field; whatever is wrong goes to the list of problems."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from models_catalog.catalog_file.parse import ListNode, MappingNode, Node, ScalarNode
from models_catalog.catalog_file.problems import Place, Problems

_WHOLE: Final = re.compile(r"0|[1-9][0-9]{0,17}")
_VARIABLE: Final = re.compile(r"\$\{([^{}]*)\}")
_VARIABLE_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
# Control characters, line ends among them, and halves of surrogate pairs, which UTF-8 cannot hold.
_NOT_TEXT: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class Fields:
    """The fields of one mapping. Getters answer None for what is absent or wrong.

    Only what is wrong, and what is required but absent, is added to the problems.
    """

    def __init__(self, mapping: MappingNode, place: Place, problems: Problems, known: Sequence[str]) -> None:
        self.place = place
        self.problems = problems
        self._mapping = mapping
        for name, line in mapping.repeated:
            problems.add(place.key(name, line), "is written twice")
        for name in mapping.items:
            if name not in known:
                problems.add(self.at(name), f"is not a field here; known are {', '.join(known)}")

    @classmethod
    def of(cls, node: Node, place: Place, problems: Problems, known: Sequence[str]) -> Fields | None:
        """The fields of a node that has to be a mapping."""
        if isinstance(node, MappingNode):
            return cls(node, place, problems, known)
        problems.add(place, f"must be a mapping with {', '.join(known)}")
        return None

    def at(self, name: str) -> Place:
        """The place of a field; of an absent one, the line on which its mapping begins."""
        return self.place.key(name, self._mapping.key_lines.get(name))

    def has(self, name: str) -> bool:
        return name in self._mapping.items

    def wrong(self, name: str, what: str) -> None:
        self.problems.add(self.at(name), what)

    def is_nothing(self, name: str) -> bool:
        """The field is written, with no value."""
        node = self._mapping.items.get(name)
        return isinstance(node, ScalarNode) and node.is_nothing

    def text(
        self, name: str, *, low: int = 1, high: int, pattern: str = "", form: str = "", required: bool = False
    ) -> str | None:
        """One line of `low` to `high` characters that matches `pattern`, which `form` says in words."""
        text = self._plain_text(name, required=required)
        if text is None:
            return None
        if not low <= len(text) <= high:
            self.wrong(name, f"must have {low} to {high} characters")
        elif _NOT_TEXT.search(text):
            self.wrong(name, "must be one line without control characters")
        elif pattern and re.fullmatch(pattern, text) is None:
            self.wrong(name, f"must be {form}")
        else:
            return text
        return None

    def lines_of_text(self, name: str, *, high: int) -> str | None:
        """A text of up to `high` characters that may have several lines."""
        text = self._plain_text(name, required=False)
        if text is None:
            return None
        if len(text) > high:
            self.wrong(name, f"must have at most {high} characters")
        elif _NOT_TEXT.search(text.translate({10: " ", 9: " "})):
            self.wrong(name, "must not hold control characters")
        else:
            return text
        return None

    def substituted(self, name: str, environ: Mapping[str, str], *, required: bool = False) -> str | None:
        """A text in which `${NAME}` stands for a variable of the environment, which must be set."""
        text = self._plain_text(name, required=required)
        if text is None:
            return None
        names = _VARIABLE.findall(text)
        if "${" in _VARIABLE.sub("", text) or not all(_VARIABLE_NAME.fullmatch(each) for each in names):
            self.wrong(name, "must name each variable as ${NAME}")
            return None
        missing = [each for each in dict.fromkeys(names) if not self._variable_is_set(name, each, environ)]
        return None if missing else _VARIABLE.sub(lambda match: environ[match[1]], text)

    def variable(self, name: str, environ: Mapping[str, str]) -> str | None:
        """The value of the environment variable that the field names."""
        variable = self.text(name, high=128, pattern=_VARIABLE_NAME.pattern, form="the name of a variable")
        if variable is None or not self._variable_is_set(name, variable, environ):
            return None
        return environ[variable]

    def whole(self, name: str, *, low: int, high: int, required: bool = False) -> int | None:
        """A whole number in plain decimal digits."""
        scalar = self._scalar(name, required=required)
        if scalar is None:
            return None
        if scalar.kind != "number" or _WHOLE.fullmatch(scalar.text) is None:
            self.wrong(name, "must be a whole number in plain digits")
            return None
        if not low <= int(scalar.text) <= high:
            self.wrong(name, f"must be from {low} to {high}")
            return None
        return int(scalar.text)

    def choice(self, name: str, choices: Sequence[str], *, required: bool = False) -> str | None:
        scalar = self._scalar(name, required=required)
        if scalar is None:
            return None
        if scalar.text not in choices:
            self.wrong(name, f"must be one of {', '.join(choices)}")
            return None
        return scalar.text

    def moment(self, name: str) -> datetime | None:
        """An ISO 8601 moment with its offset from UTC, in quotes or not."""
        scalar = self._scalar(name)
        if scalar is None:
            return None
        try:
            moment = datetime.fromisoformat(scalar.text)
        except ValueError:
            moment = None
        if moment is None or moment.tzinfo is None or not 2000 <= moment.year < 2200:
            self.wrong(name, "must be a moment with its offset, such as 2030-01-31T00:00:00+08:00")
            return None
        return moment.astimezone(UTC)

    def entries(self, name: str, *, limit: int, required: bool = False) -> Iterator[tuple[Node, Place]]:
        """The entries of a list, each with its place."""
        node = self._mapping.items.get(name)
        place = self.at(name)
        if node is None:
            if required:
                self.problems.add(place, "is required")
        elif not isinstance(node, ListNode):
            self.problems.add(place, "must be a list")
        elif len(node.items) > limit:
            self.problems.add(place, f"must have at most {limit} entries")
        else:
            for index, item in enumerate(node.items):
                yield item, place.item(index, item.line)

    def texts(self, name: str, *, limit: int, high: int, pattern: str, form: str) -> list[str]:
        """A list of distinct texts."""
        found: list[str] = []
        for node, place in self.entries(name, limit=limit):
            if not isinstance(node, ScalarNode) or node.kind != "text":
                self.problems.add(place, "must be a text (in quotes when YAML would read something else)")
            elif len(node.text) > high or re.fullmatch(pattern, node.text) is None:
                self.problems.add(place, f"must be {form} of at most {high} characters")
            elif node.text in found:
                self.problems.add(place, "is in the list already")
            else:
                found.append(node.text)
        return found

    def pairs(self, name: str, *, limit: int, high: int) -> dict[str, str]:
        """A mapping of texts to texts, whose names are the file's own."""
        node = self._mapping.items.get(name)
        if node is None:
            return {}
        if not isinstance(node, MappingNode):
            self.wrong(name, "must be a mapping of texts")
            return {}
        if len(node.items) > limit:
            self.wrong(name, f"must have at most {limit} entries")
            return {}
        inside = Fields(node, self.at(name), self.problems, tuple(node.items))
        found = {key: inside.text(key, high=high) for key in node.items}
        return {key: text for key, text in found.items() if text is not None}

    def scalar(self, name: str, *, required: bool = False) -> ScalarNode | None:
        """The value as written, for fields with a syntax of their own."""
        return self._scalar(name, required=required)

    def _plain_text(self, name: str, *, required: bool) -> str | None:
        scalar = self._scalar(name, required=required)
        if scalar is None:
            return None
        if scalar.kind != "text":
            self.wrong(name, f"must be a text, but YAML reads a {scalar.kind}: put it in quotes")
            return None
        return scalar.text

    def _scalar(self, name: str, *, required: bool = False) -> ScalarNode | None:
        node = self._mapping.items.get(name)
        if node is None:
            if required:
                self.wrong(name, "is required")
            return None
        if not isinstance(node, ScalarNode):
            self.wrong(name, "must be a single value")
            return None
        if node.is_nothing:
            self.wrong(name, "has no value")
            return None
        return node

    def _variable_is_set(self, name: str, variable: str, environ: Mapping[str, str]) -> bool:
        if environ.get(variable):
            return True
        self.wrong(name, f"the environment variable {variable} is not set or empty")
        return False
