"""What a call says, token by token.

Free text is `w1 w2 …`, made as it is needed. An answer that has to be JSON, and a call of a tool, is planned
beforehand: four characters make a token, and the name of a tool is one. Before either comes the reasoning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import msgspec

from devstack.engines.prompts import Prompt, Wish
from devstack.engines.schema import instance_of
from devstack.engines.tokens import token_text

CHARACTERS_PER_TOKEN = 4
Kind = Literal["reasoning", "content", "tool_name", "tool_arguments"]


class Piece(NamedTuple):
    """One token. `tool` counts the calls of tools, from 0."""

    kind: Kind
    text: str
    tool: int = 0


@dataclass(slots=True)
class Said:
    """What the first tokens of a call amount to: of each called tool its name and arguments."""

    reasoning: str
    content: str
    tools: list[tuple[str, str]]


class NoToolError(ValueError):
    """A call of a tool is wanted from a request that has none."""


def plan(prompt: Prompt, wish: Wish, *, calls: int | None, reasoning_tokens: int) -> tuple[Piece, ...] | None:
    """The tokens of an answer that is no free text, else None.

    calls: how many tools are called; None: one, where the request insists. After a tool's result nothing is
    called any more. Raises NoToolError.
    """
    wanted = (1 if wish.must_call else 0) if calls is None else calls
    if prompt.follows_tool:
        wanted = 0
    if wanted and not wish.tools:
        raise NoToolError("a tool's call is wanted, and the request has no tool that may be called")
    if wanted:
        said = [piece for number in range(wanted) for piece in _tool_call(wish, number)]
    elif wish.schema is not None:
        said = cut("content", encode(instance_of(wish.schema)))
    else:
        return None
    thought = [Piece("reasoning", token_text(step, step)) for step in range(1, reasoning_tokens + 1)]
    return (*thought, *said)


def _tool_call(wish: Wish, number: int) -> list[Piece]:
    tool = wish.tools[number % len(wish.tools)]
    arguments = encode(instance_of(tool.parameters))
    return [Piece("tool_name", tool.name, number), *cut("tool_arguments", arguments, number)]


def encode(value: object) -> str:
    """Compact JSON."""
    return msgspec.json.encode(value).decode()


def cut(kind: Kind, text: str, tool: int = 0) -> list[Piece]:
    """A text in tokens of four characters."""
    return [
        Piece(kind, text[start : start + CHARACTERS_PER_TOKEN], tool)
        for start in range(0, len(text), CHARACTERS_PER_TOKEN)
    ]


def piece_of_text(step: int, reasoning_tokens: int) -> Piece:
    """The token number `step` of free text."""
    return Piece("reasoning" if step <= reasoning_tokens else "content", token_text(step, reasoning_tokens))


def joined(pieces: tuple[Piece, ...]) -> Said:
    """The whole that planned tokens make up."""
    said = Said("", "", [])
    for piece in pieces:
        match piece.kind:
            case "reasoning":
                said.reasoning += piece.text
            case "content":
                said.content += piece.text
            case "tool_name":
                said.tools.append((piece.text, ""))
            case _:
                name, arguments = said.tools[-1]
                said.tools[-1] = (name, arguments + piece.text)
    return said
