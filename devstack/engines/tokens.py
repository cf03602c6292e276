"""The tokens of the simulated model: how many a prompt has, and what a completion says.

Both are simple functions, so that a test can compute the right answer by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

TOKENS_PER_MESSAGE = 4
TOKENS_PER_PROMPT = 3
TOKENS_PER_NON_TEXT_PART = 16
DEFAULT_COMPLETION_TOKENS = 16


def count_prompt_tokens(messages: Iterable[Mapping[str, Any]]) -> int:
    """Tokens of a chat prompt: whitespace-separated words of all contents + 4 a message + 3.

    A content that is a list counts the words of its text parts and 16 for any other part.
    The words of a `[[sim …]]` directive count like all others. Tool definitions count nothing.
    """
    total = TOKENS_PER_PROMPT
    for message in messages:
        total += TOKENS_PER_MESSAGE
        content = message.get("content")
        if isinstance(content, str):
            total += len(content.split())
        elif isinstance(content, list):
            for part in content:
                text = text_of_part(part)
                total += TOKENS_PER_NON_TEXT_PART if text is None else len(text.split())
    return total


def count_text_tokens(text: str) -> int:
    """Tokens of a prompt that is no chat: whitespace-separated words, at least one."""
    return max(1, len(text.split()))


def text_of_part(part: object) -> str | None:
    """The text of one part of a multi-part content, None when the part is no text."""
    if isinstance(part, str):
        return part
    if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
        text: str = part["text"]
        return text
    return None


def last_user_text(messages: Iterable[Mapping[str, Any]]) -> str:
    """All text of the last message whose role is user; empty when there is none."""
    for message in reversed(list(messages)):
        if message.get("role") != "user":
            continue
        content = message.get("content")
        if isinstance(content, str):
            return content
        if isinstance(content, list):
            return "\n".join(text for part in content if (text := text_of_part(part)) is not None)
        return ""
    return ""


def token_text(step: int, reasoning_tokens: int) -> str:
    """Text of the token number `step` (from 1): `r1 r2 …` while it reasons, then `w1 w2 …`.

    Every token but the first of its kind starts with a space, so that the words can be counted
    in the joined text with `split()`.
    """
    if step <= reasoning_tokens:
        return "r1" if step == 1 else f" r{step}"
    word = step - reasoning_tokens
    return "w1" if word == 1 else f" w{word}"


def completion_text(steps: int, reasoning_tokens: int) -> tuple[str, str]:
    """The reasoning and the answer that `steps` tokens make up."""
    reasoned = min(steps, reasoning_tokens)
    return (
        " ".join(f"r{number}" for number in range(1, reasoned + 1)),
        " ".join(f"w{number}" for number in range(1, steps - reasoned + 1)),
    )
