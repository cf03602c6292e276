"""The state of one chat call inside the simulator."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from devstack.engines.books import RequestRecord
from devstack.engines.directive import Directive


@dataclass(slots=True)
class ChatRequest:
    """The parts of a request body that change what an engine does.

    `cap_tokens` is what the engine's own precedence of fields makes of max_tokens and its
    relatives; None when the client named none. `client_id` is the id that the caller gave, where
    the engine takes one.
    """

    messages: list[dict[str, Any]]
    model: str | None
    stream: bool = False
    n: int = 1
    cap_tokens: int | None = None
    include_usage: bool = False
    continuous_usage: bool = False
    timings_per_token: bool = False
    client_id: str | None = None


@dataclass(slots=True)
class Call:
    """One call that passed validation. A step decodes one token of each of its `n` choices.

    `target_steps` is the length of each choice. Times are of `time.perf_counter()`.
    """

    request: ChatRequest
    directive: Directive
    record: RequestRecord
    wire_id: str
    model: str
    created_unix: int
    prompt_tokens: int
    cached_tokens: int
    target_steps: int
    reasoning_tokens: int
    finish_reason: str
    rate_per_s: float
    steps: int = 0
    aborted: bool = False
    started_s: float = field(default_factory=time.perf_counter)
    prefilled_s: float | None = None

    @property
    def generated_tokens(self) -> int:
        """Tokens generated so far, all choices together."""
        return self.steps * self.request.n

    def advance(self, steps: int) -> None:
        """Books that many more decoded steps; the first time, the prompt as well."""
        if self.prefilled_s is None:
            self.prefilled_s = time.perf_counter()
            self.record.prompt_tokens = self.prompt_tokens
            self.record.cached_tokens = self.cached_tokens
        self.steps += steps
        self.record.generated_tokens = self.generated_tokens
        self.record.reasoning_tokens = min(self.steps, self.reasoning_tokens) * self.request.n

    def reported_tokens(self, choices: int) -> int:
        """Completion tokens that the final usage claims for `choices` of the choices; a lie if asked for."""
        fault = self.directive.fault
        lie = fault.number if fault is not None and fault.name == "usage_lies" else 0
        return max(0, self.steps * choices + lie)
