"""What is wrong with a catalog file: every finding names file, line and field."""

from __future__ import annotations

from dataclasses import dataclass, field

MAX_PROBLEMS = 50
"""More findings than this are counted, not listed."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands in the file: its line (from 1) and its field, such as `models[0].slug`."""

    line: int
    path: str

    def key(self, name: str, line: int | None = None) -> Place:
        """The place of a field of the mapping that stands here."""
        return Place(line or self.line, f"{self.path}.{name}" if self.path else name)

    def item(self, index: int, line: int) -> Place:
        """The place of an entry of the list that stands here."""
        return Place(line, f"{self.path}[{index}]")


class CatalogFileError(ValueError):
    """The file cannot be applied; nothing was changed. `problems` are lines of `file:line: field: what`."""

    def __init__(self, problems: tuple[str, ...], *, count: int) -> None:
        self.problems = problems
        self.count = count
        super().__init__("\n".join(problems))


@dataclass(slots=True)
class Problems:
    """Gathers what is wrong with one file, so that all of it is said at once."""

    file_name: str
    _found: list[tuple[Place, str]] = field(default_factory=list)

    def add(self, place: Place, what: str) -> None:
        """Messages never repeat a value that may be secret: credentials and what the environment gave."""
        self._found.append((place, what))

    def __bool__(self) -> bool:
        return bool(self._found)

    def raise_if_any(self) -> None:
        """Errors: CatalogFileError with at most MAX_PROBLEMS lines, in the order of the file."""
        if not self._found:
            return
        ordered = sorted(self._found, key=lambda found: found[0].line)
        lines = [
            ": ".join(part for part in (f"{self.file_name}:{place.line}", place.path, what) if part)
            for place, what in ordered[:MAX_PROBLEMS]
        ]
        if len(ordered) > MAX_PROBLEMS:
            lines.append(f"{self.file_name}: and {len(ordered) - MAX_PROBLEMS} more")
        raise CatalogFileError(tuple(lines), count=len(ordered))
