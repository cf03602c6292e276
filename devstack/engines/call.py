"""The state of one call inside the simulator."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from devstack.engines.books import RequestRecord
from devstack.engines.directive import Directive
from devstack.engines.pieces import Piece, Said, joined, piece_of_text
from devstack.engines.prompts import Endpoint, Prompt, Wish
from devstack.engines.tokens import completion_text


@dataclass(slots=True)
class EngineRequest:
    """The parts of a request body that change what an engine does.

    `cap_tokens` is what the engine's own precedence of fields makes of max_tokens and its
    relatives; None when the client named none. `client_id` is the id that the caller gave, where
    the engine takes one; `client_ids` has one for each prompt.
    """

    endpoint: Endpoint
    prompt: Prompt
    wish: Wish
    model: str | None
    stream: bool = False
    n: int = 1
    cap_tokens: int | None = None
    include_usage: bool = False
    continuous_usage: bool = False
    timings_per_token: bool = False
    client_id: str | None = None
    client_ids: tuple[str, ...] = ()

    @property
    def sequences(self) -> int:
        """Answers that are generated side by side: so many of each prompt."""
        return self.n * len(self.prompt.counts)


@dataclass(slots=True)
class Call:
    """One call that passed validation. A step decodes one token of each of its sequences.

    `prompt_tokens` is the sum over its prompts. `target_steps` is the length of each sequence. `pieces` are
    its tokens where they were planned, None for free text. Times are of `time.perf_counter()`; `started_s`
    is when it got its slots. `engine_ids` are those that the engine's own log knows it by.
    """

    request: EngineRequest
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
    pieces: tuple[Piece, ...] | None = None
    tool_ids: tuple[str, ...] = ()
    steps: int = 0
    aborted: bool = False
    started_s: float = field(default_factory=time.perf_counter)
    prefilled_s: float | None = None
    engine_ids: tuple[str, ...] = ()

    @property
    def header_id(self) -> str:
        """The X-Request-Id that came with it, "" without one."""
        return next((value for name, value in self.record.headers if name == "x-request-id"), "")

    @property
    def first_prompt_tokens(self) -> int:
        """Tokens of the first prompt."""
        return self.prompt_tokens - sum(self.request.prompt.counts[1:])

    @property
    def generated_tokens(self) -> int:
        """Tokens generated so far, all sequences together."""
        return self.steps * self.request.sequences

    def advance(self, steps: int) -> None:
        """Books that many more decoded steps; the first time, the prompt as well."""
        if self.prefilled_s is None:
            self.prefilled_s = time.perf_counter()
            self.record.prompt_tokens = self.prompt_tokens
            self.record.cached_tokens = self.cached_tokens
        self.steps += steps
        self.record.generated_tokens = self.generated_tokens
        self.record.reasoning_tokens = min(self.steps, self.reasoning_tokens) * self.request.sequences

    def reported_tokens(self, sequences: int) -> int:
        """Completion tokens that the final usage claims for so many sequences; a lie if asked for."""
        fault = self.directive.fault
        lie = fault.number if fault is not None and fault.name == "usage_lies" else 0
        return max(0, self.steps * sequences + lie)

    def piece(self, step: int) -> Piece:
        """The token number `step`, from 1. The first is padded when a fault wants a big line."""
        planned = self.pieces
        piece = piece_of_text(step, self.reasoning_tokens) if planned is None else planned[step - 1]
        if step == 1 and (padding := self._padding):
            return piece._replace(text=piece.text + padding)
        return piece

    def said(self) -> Said:
        """What the tokens so far amount to."""
        if self.pieces is not None:
            return joined(tuple(self.piece(step) for step in range(1, self.steps + 1)))
        reasoning, content = completion_text(self.steps, self.reasoning_tokens)
        if (padding := self._padding) and self.steps:
            first, _, rest = (reasoning or content).partition(" ")
            padded = first + padding + (f" {rest}" if rest else "")
            reasoning, content = (padded, content) if reasoning else ("", padded)
        return Said(reasoning, content, [])

    @property
    def _padding(self) -> str:
        fault = self.directive.fault
        return "x" * fault.number if fault is not None and fault.name == "big_line" else ""
