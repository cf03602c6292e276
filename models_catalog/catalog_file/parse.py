"""YAML text to a tree whose every node knows its line.

The tree is built from the parser's events without recursion, so what the file format does not need is
refused as soon as it appears: aliases and anchors, tags, several documents, deep nesting.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import yaml

from models_catalog.catalog_file.problems import Place, Problems

MAX_TEXT_BYTES = 2**20
MAX_DEPTH = 12
MAX_NODES = 100_000
MAX_KEY_LENGTH = 64

_KINDS = {
    "tag:yaml.org,2002:str": "text",
    "tag:yaml.org,2002:int": "number",
    "tag:yaml.org,2002:float": "number",
    "tag:yaml.org,2002:bool": "truth value",
    "tag:yaml.org,2002:null": "nothing",
    "tag:yaml.org,2002:timestamp": "moment",
}


@dataclass(frozen=True, slots=True)
class ScalarNode:
    """One value as it was written; `kind` says what YAML takes it for."""

    line: int
    text: str = field(repr=False)
    kind: str

    @property
    def is_nothing(self) -> bool:
        return self.kind == "nothing"


@dataclass(frozen=True, slots=True)
class ListNode:
    line: int
    items: list[Node] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class MappingNode:
    """`key_lines` holds the line of each key, which is what messages about its value name.

    Of a key that is written twice the last value counts; `repeated` holds the key and its further lines.
    """

    line: int
    items: dict[str, Node] = field(default_factory=dict)
    key_lines: dict[str, int] = field(default_factory=dict)
    repeated: list[tuple[str, int]] = field(default_factory=list)


Node = ScalarNode | ListNode | MappingNode


def parse_text(text: str, problems: Problems) -> Node | None:
    """The tree of the one document in `text`, or None after adding what is wrong to `problems`.

    Bounds: MAX_TEXT_BYTES of UTF-8, MAX_DEPTH levels, MAX_NODES values.
    """
    if len(text) > MAX_TEXT_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_TEXT_BYTES:
        problems.add(Place(1, ""), f"a catalog file has at most {MAX_TEXT_BYTES} bytes")
        return None
    try:
        loader = yaml.SafeLoader(text)
        try:
            return _Builder(loader, problems).build()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = f"not valid YAML: {error.problem or error.context}"
        problems.add(Place(mark.line + 1 if mark else 1, ""), what)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        problems.add(Place(line, ""), "holds a character that YAML does not allow")
    except _RefusedError as refused:
        problems.add(Place(refused.line, ""), refused.what)
    return None


class _RefusedError(Exception):
    """YAML that is valid but has no place in a catalog file."""

    def __init__(self, line: int, what: str) -> None:
        self.line = line
        self.what = what
        super().__init__(what)


class _Builder:
    """Builds the tree with a stack of open collections; a mapping on it remembers the key it waits for."""

    def __init__(self, loader: yaml.SafeLoader, problems: Problems) -> None:
        self._loader = loader
        self._problems = problems
        self._open: list[MappingNode | ListNode] = []
        self._pending_keys: list[ScalarNode | None] = []
        self._root: Node | None = None
        self._documents = 0
        self._nodes = 0

    def build(self) -> Node | None:
        while self._loader.check_event():
            event: yaml.Event = self._loader.get_event()  # type: ignore[no-untyped-call]
            line = event.start_mark.line + 1 if event.start_mark else 1
            if isinstance(event, yaml.DocumentStartEvent):
                self._documents += 1
                if self._documents > 1:
                    raise _RefusedError(line, "a catalog file holds one YAML document")
            elif isinstance(event, yaml.CollectionEndEvent):
                self._open.pop()
                self._pending_keys.pop()
            elif isinstance(event, yaml.NodeEvent):
                self._take(event, line)
        if self._root is None:
            self._problems.add(Place(1, ""), "the file is empty")
        return self._root

    def _take(self, event: yaml.NodeEvent, line: int) -> None:
        if event.anchor is not None:
            raise _RefusedError(line, "anchors and aliases (& and *) are not allowed")
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise _RefusedError(line, f"a catalog file holds at most {MAX_NODES} values")
        node: Node
        if isinstance(event, yaml.ScalarEvent):
            if event.tag is not None:
                raise _RefusedError(line, "tags (!) are not allowed")
            implicit = event.implicit
            tag = self._loader.resolve(yaml.ScalarNode, event.value, implicit)  # type: ignore[no-untyped-call]
            node = ScalarNode(line, event.value, _KINDS.get(str(tag), "special value"))
        else:
            assert isinstance(event, yaml.CollectionStartEvent)
            if event.tag is not None:
                raise _RefusedError(line, "tags (!) are not allowed")
            node = MappingNode(line) if isinstance(event, yaml.MappingStartEvent) else ListNode(line)
        self._place(node)
        if not isinstance(node, ScalarNode):
            if len(self._open) >= MAX_DEPTH:
                raise _RefusedError(line, f"nested deeper than {MAX_DEPTH} levels")
            self._open.append(node)
            self._pending_keys.append(None)

    def _place(self, node: Node) -> None:
        """Put a node where it belongs: the root, the next item, a key, or the value of the key before it."""
        if not self._open:
            self._root = node
            return
        parent = self._open[-1]
        if isinstance(parent, ListNode):
            parent.items.append(node)
            return
        key = self._pending_keys[-1]
        if key is not None:
            parent.items[key.text] = node
            self._pending_keys[-1] = None
            return
        if (
            not isinstance(node, ScalarNode)
            or not 0 < len(node.text) <= MAX_KEY_LENGTH
            or not node.text.isprintable()
        ):
            raise _RefusedError(node.line, f"a key is a text of 1 to {MAX_KEY_LENGTH} printable characters")
        if node.text in parent.key_lines:
            parent.repeated.append((node.text, node.line))
        parent.key_lines[node.text] = node.line
        self._pending_keys[-1] = node
