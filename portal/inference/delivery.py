"""What a call has delivered so far: the ground of its checkpoints and of its bill."""

from collections.abc import Sequence
from dataclasses import replace

from models_catalog.engines import EngineAdapter, UsageReport
from portal.inference.chat import ChatRequest
from portal.inference.stream_events import EventRun
from portal.inference.upstream_answers import PlainAnswer
from portal.kit.sse import event_data
from quotas.metering.facts import NOTHING, UsageFacts, estimate_tokens
from quotas.models import Basis, Provenance

_WEAKNESS = (Basis.FINAL_USAGE, Basis.CHECKPOINT, Basis.EVENTS)


def together(parts: Sequence[UsageFacts]) -> UsageFacts:
    """What several choices of one call used: the prompt once, as the first of them met it, and the output
    of all. It rests on the weakest of their grounds."""
    known = [part for part in parts if part.basis != Basis.NOTHING]
    if len(known) < 2:
        return known[0] if known else NOTHING
    # Whichever choice came first found the least in the cache; the others found what it had left there.
    first = min(known, key=lambda part: part.cached_tokens)
    return replace(
        first,
        completion_tokens=sum(part.completion_tokens for part in known),
        reasoning_tokens=sum(part.reasoning_tokens for part in known),
        basis=max((part.basis for part in known), key=_WEAKNESS.index),
        provenance=(
            Provenance.ESTIMATED
            if any(part.provenance == Provenance.ESTIMATED for part in known)
            else Provenance.MEASURED
        ),
    ).within_reason()


class Delivery:
    """Only what has left for the client is noted here, so only that is ever billed."""

    def __init__(self, request: ChatRequest) -> None:
        self.is_complete = False
        self._request = request
        self._engine: EngineAdapter | None = None
        self._usage: bytes | None = None
        self._content_events = 0
        self._plain: PlainAnswer | None = None

    def note_plain(self, answer: PlainAnswer, engine: EngineAdapter) -> None:
        """A whole answer, about to be sent in one piece."""
        self._engine, self._plain, self._usage = engine, answer, answer.body
        self.is_complete = True

    def note_run(self, run: EventRun, engine: EngineAdapter) -> None:
        """A run of events that has been sent."""
        self._engine = engine
        self._content_events += run.content_events
        if run.usage_event is not None:
            self._usage = run.usage_event

    def report(self) -> UsageReport | None:
        """The newest counts of the backend, if there are any."""
        if self._usage is None or self._engine is None:
            return None
        data = self._usage if self._plain is not None else event_data(self._usage)
        return self._engine.read_usage(data) if data else None

    def facts(self) -> UsageFacts:
        """What has been delivered so far, from the best source there is."""
        report = self.report()
        if report is not None and (self.is_complete or report.completion_tokens > 0):
            is_final = self.is_complete and report.is_final
            return UsageFacts(
                prompt_tokens=report.prompt_tokens,
                cached_tokens=report.cached_tokens,
                completion_tokens=report.completion_tokens,
                reasoning_tokens=report.reasoning_tokens,
                basis=Basis.FINAL_USAGE if is_final else Basis.CHECKPOINT,
                provenance=Provenance.MEASURED,
            ).within_reason()
        counted = self._content_events
        if self._plain is not None:
            counted = estimate_tokens(self._plain.text)
        if counted == 0 and not self.is_complete:
            return NOTHING
        return UsageFacts(
            prompt_tokens=self._request.estimated_prompt_tokens,
            completion_tokens=min(counted, self._request.output_cap_tokens),
            basis=Basis.EVENTS,
            provenance=Provenance.ESTIMATED,
        )
