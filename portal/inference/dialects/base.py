"""What the endpoints of /v1 have in common: a request within bounds, and a dialect that reads and answers."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from models_catalog.engines import Endpoint, EngineAdapter, EngineCall, UpstreamCall, UsageReport
from portal.inference.errors import CallError
from portal.inference.public_name import PublicName
from portal.inference.snapshot import ModelEntry
from portal.inference.stream_events import EventRun
from portal.inference.upstream_answers import PlainAnswer


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt of a request, as it is passed on. The estimate is for engines that report no usage."""

    content: Mapping[str, Any]
    estimated_tokens: int


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """A validated request, before a backend is chosen. Bounds in tokens; the cap per choice.

    choices: of all prompts together, those of the first prompt first; each is an attempt of its own.
    include_usage: whether the event that only reports usage was asked for.
    needs: capabilities that a deployment must have. prefix_key: alike for conversations that begin alike.
    """

    dialect: "Dialect"
    model: str
    prompts: tuple[Prompt, ...]
    fields: Mapping[str, Any]
    stream: bool
    include_usage: bool
    output_cap_tokens: int
    prompt_bound_tokens: int
    choices: int
    payload_sha256: str
    needs: frozenset[str]
    prefix_key: int

    @property
    def estimated_prompt_tokens(self) -> int:
        """Of all prompts; never above the bound."""
        return sum(prompt.estimated_tokens for prompt in self.prompts)

    def prompt_number(self, index: int) -> int:
        """Which prompt a choice answers."""
        return index * len(self.prompts) // self.choices

    def is_first_of_prompt(self, index: int) -> bool:
        """Whether no choice before this one answers the same prompt, which is charged once."""
        return index == 0 or self.prompt_number(index - 1) != self.prompt_number(index)

    def upstream_call(
        self,
        *,
        engine: EngineAdapter,
        attempt_id: str,
        upstream_model: str,
        output_cap_tokens: int,
        index: int,
    ) -> UpstreamCall:
        """The call of one choice."""
        fields = self.fields
        turn = index % (self.choices // len(self.prompts))
        if turn and isinstance(seed := fields.get("seed"), int):
            # With one seed all choices of a prompt would be the same.
            fields = {**fields, "seed": (seed + turn) % 2**63}
        return engine.write(
            EngineCall(
                endpoint=self.dialect.endpoint,
                attempt_id=attempt_id,
                upstream_model=upstream_model,
                content=self.prompts[self.prompt_number(index)].content,
                fields=fields,
                output_cap_tokens=output_cap_tokens,
                stream=self.stream,
            )
        )


class Dialect(Protocol):
    """How one endpoint is asked, answers and fails."""

    endpoint: Endpoint

    def read_request(
        self, body: Mapping[str, Any], *, raw: bytes, entry: ModelEntry, engines: Collection[EngineAdapter]
    ) -> ModelRequest:
        """Validate a decoded body for a model on the engines that serve it: whichever of them gets the call
        has to understand every field. Raises CallError 400, naming the field."""
        ...

    def read_run(
        self, events: Sequence[bytes], *, engine: EngineAdapter, include_usage: bool, name: PublicName
    ) -> EventRun:
        """Sort a run of events. Cheap: no event is decoded that only carries text."""
        ...

    def read_opening(self, event: bytes) -> str | None:
        """The backend's id in the first event of an answer; None for an event that opens nothing, such as
        a comment. Errors: those of UNREADABLE for anything that is not a part of an answer."""
        ...

    def read_plain(self, body: bytes) -> PlainAnswer:
        """A whole answer. Errors: those of UNREADABLE when it is none of this kind."""
        ...

    def read_usage(
        self, data: bytes, *, engine: EngineAdapter, opening: bytes | None = None
    ) -> UsageReport | None:
        """The counts in a whole answer or in the data of an event; None when there are none.

        opening: the data of the event that began to report, where one event does not say everything.
        """
        ...

    def error_body(self, error: CallError, request_id: str) -> bytes:
        """The body of an answer that is this error."""
        ...

    def error_event(self, error: CallError, request_id: str) -> bytes:
        """The last event of a stream that ends with this error."""
        ...
