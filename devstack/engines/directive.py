"""What a test asks of one request: `[[sim tokens=40 rate=200 fault=reset_after:7]]`.

The directive stands in the last user message. It is parsed strictly, and a directive that is not
understood is answered with 400, so that a misspelt test fails instead of passing by accident.

    tokens=N      the model would generate N tokens for each choice (default 16); the cap of the
                  request still cuts. finish_reason is `length` when N >= cap, else `stop`
    rate=R        tokens per second of each choice, 0 = unpaced (default: --tokens-per-s)
    ttft_ms=N     time to the first token (default 0)
    prompt=N      count and report N prompt tokens instead of what `tokens.py` counts
    cached=N      that many of the prompt tokens come from the prefix cache (default 0)
    reasoning=N   the first N generated tokens are reasoning
    overrun=N     after the client has left, generate N more tokens (default: as the engine does)
    tools=N       call N tools instead of saying anything, the first ones of the request in turn, with
                  arguments that fit their schemas (default: 1 where the request insists on a call, else 0;
                  none once the conversation ends in a tool's result)
    fault=F[:A]   one misbehaviour, see `FAULTS`

What has to be JSON, tools' arguments included, is as long as it is: `tokens` says nothing then, four
characters make a token and the name of a tool is one.

Faults that cut a response in two "after N tokens" send half of the body of a plain response.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from devstack.engines.tokens import DEFAULT_COMPLETION_TOKENS

MAX_TOKENS = 1_000_000
MAX_PROMPT_TOKENS = 10_000_000
MAX_TTFT_MS = 120_000
MAX_RATE_PER_S = 1_000_000.0
MAX_BIG_LINE_BYTES = 16 * 1024 * 1024
MAX_SLOW_HEADERS_MS = 60_000
DEFAULT_SLOW_HEADERS_MS = 2_000
MAX_CALLED_TOOLS = 16
STATUSES = (400, 429, 500, 503)
NONSENSE_KINDS = ("html", "json", "sse", "empty", "type")

Argument = Literal["none", "tokens", "status", "kind", "signed", "bytes", "ms"]

FAULTS: dict[str, Argument] = {
    "reset_before": "none",  # TCP reset before any byte
    "close_before": "none",  # connection closed before any byte
    "reset_after": "tokens",  # TCP reset after N tokens
    "close_after": "tokens",  # connection closed after N tokens, without a terminating chunk
    "hang_before": "none",  # no byte until the client leaves, or 120 s
    "hang_after": "tokens",  # silence after N tokens, until the client leaves, or 120 s
    "status": "status",  # status:503 etc. with a body like the engine's
    # 200 with HTML (plain) or garbage events (stream), else nonsense:html, json (no answer), sse (garbage),
    # empty (no body at all) or type (a right answer called text/plain)
    "nonsense": "kind",
    "garbage_after": "tokens",  # bytes that are no event after N tokens, then on as if nothing were
    "usage_null": "none",  # the final usage is null
    "no_usage": "none",  # no usage and no timings anywhere
    "usage_lies": "signed",  # usage_lies:+5 reports 5 completion tokens more than were generated
    "error_event_after": "tokens",  # an error event after N tokens, then [DONE]; a plain call gets a 500
    "big_line": "bytes",  # the first token's text is padded by that many bytes
    "slow_headers": "ms",  # the response head arrives in pieces over that time (default 2000)
    "no_done": "none",  # the stream ends properly but without data: [DONE] or what else says that it is over
}

_HIGHEST: dict[Argument, int] = {
    "tokens": MAX_TOKENS,
    "status": max(STATUSES),
    "bytes": MAX_BIG_LINE_BYTES,
    "ms": MAX_SLOW_HEADERS_MS,
}
_OPENING = "[[sim"
_DIRECTIVE = re.compile(r"\[\[sim((?: +[a-z_]+=[^\s\[\]=]+)*) *\]\]")
_WHOLE = re.compile(r"[0-9]{1,9}")
_SIGNED = re.compile(r"[+-][0-9]{1,7}")
_NUMBER = re.compile(r"[0-9]{1,7}(\.[0-9]{1,6})?")


class DirectiveError(ValueError):
    """The text holds a directive that means nothing; the message says why."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One misbehaviour. `number` is its argument in the unit that `FAULTS` gives, 0 without one."""

    name: str
    number: int = 0
    kind: str = ""
    text: str = ""

    def __str__(self) -> str:
        """As it was asked for."""
        return self.text


@dataclass(frozen=True, slots=True)
class Directive:
    """A parsed directive; see the module's text for the meaning of each field."""

    tokens: int = DEFAULT_COMPLETION_TOKENS
    rate_per_s: float | None = None
    ttft_ms: int = 0
    prompt: int | None = None
    cached: int = 0
    reasoning: int = 0
    overrun: int | None = None
    tools: int | None = None
    fault: Fault | None = None

    def has_fault(self, name: str) -> bool:
        """Whether this request was asked to misbehave in that way."""
        return self.fault is not None and self.fault.name == name


_NOTHING_ASKED = Directive()


def parse_directive(text: str) -> Directive:
    """Finds and parses the directive in a message; the defaults when there is none.

    Raises DirectiveError on a second directive, an unclosed one, an unknown or repeated key,
    or a value that is malformed or out of range.
    """
    begin = text.find(_OPENING)
    if begin < 0:
        return _NOTHING_ASKED
    if text.find(_OPENING, begin + 1) >= 0:
        raise DirectiveError("more than one [[sim directive")
    match = _DIRECTIVE.match(text, begin)
    if match is None:
        raise DirectiveError("malformed directive, expected [[sim key=value …]]")
    given: dict[str, str] = {}
    for pair in match.group(1).split():
        key, _, value = pair.partition("=")
        if key in given:
            raise DirectiveError(f"{key} is given twice")
        given[key] = value
    directive = Directive(
        tokens=_whole(given, "tokens", MAX_TOKENS, DEFAULT_COMPLETION_TOKENS),
        rate_per_s=_rate(given),
        ttft_ms=_whole(given, "ttft_ms", MAX_TTFT_MS, 0),
        prompt=_optional_whole(given, "prompt", MAX_PROMPT_TOKENS),
        cached=_whole(given, "cached", MAX_PROMPT_TOKENS, 0),
        reasoning=_whole(given, "reasoning", MAX_TOKENS, 0),
        overrun=_optional_whole(given, "overrun", MAX_TOKENS),
        tools=_optional_whole(given, "tools", MAX_CALLED_TOOLS),
        fault=parse_fault(given.pop("fault", None)),
    )
    if given:
        raise DirectiveError(f"unknown key {min(given)}")
    return directive


def _optional_whole(given: dict[str, str], key: str, highest: int) -> int | None:
    text = given.pop(key, None)
    return None if text is None else _whole_number(text, highest, key)


def _whole(given: dict[str, str], key: str, highest: int, default: int) -> int:
    value = _optional_whole(given, key, highest)
    return default if value is None else value


def _whole_number(text: str, highest: int, name: str) -> int:
    if _WHOLE.fullmatch(text) is None or int(text) > highest:
        raise DirectiveError(f"{name} must be a whole number up to {highest}, not {text}")
    return int(text)


def _rate(given: dict[str, str]) -> float | None:
    text = given.pop("rate", None)
    if text is None:
        return None
    if _NUMBER.fullmatch(text) is None or float(text) > MAX_RATE_PER_S:
        raise DirectiveError(f"rate must be a number up to {MAX_RATE_PER_S:.0f}, not {text}")
    return float(text)


def parse_fault(text: str | None) -> Fault | None:
    """The fault that a text such as `reset_after:7` names, None for None. Raises DirectiveError."""
    if text is None:
        return None
    name, colon, argument = text.partition(":")
    if name not in FAULTS:
        raise DirectiveError(f"unknown fault {name}")
    wanted = FAULTS[name]
    optional = wanted in ("none", "kind", "ms")
    if wanted == "none" and colon:
        raise DirectiveError(f"fault {name} takes no argument")
    if not colon:
        if not optional:
            raise DirectiveError(f"fault {name} needs an argument")
        return Fault(name, number=DEFAULT_SLOW_HEADERS_MS if wanted == "ms" else 0, text=text)
    return _fault_with_argument(text, name, wanted, argument)


def _fault_with_argument(text: str, name: str, wanted: Argument, argument: str) -> Fault:
    if wanted == "kind":
        if argument not in NONSENSE_KINDS:
            raise DirectiveError(f"fault {name} takes one of {', '.join(NONSENSE_KINDS)}")
        return Fault(name, kind=argument, text=text)
    if wanted == "signed":
        if _SIGNED.fullmatch(argument) is None:
            raise DirectiveError(f"fault {name} takes a signed number such as +5")
        return Fault(name, number=int(argument), text=text)
    highest = _HIGHEST[wanted]
    number = _whole_number(argument, highest, f"argument of {name}")
    if wanted == "status" and number not in STATUSES:
        raise DirectiveError(f"fault {name} takes one of {', '.join(map(str, STATUSES))}")
    return Fault(name, number=number, text=text)
