"""What a call has delivered so far: the ground of its checkpoints and of its bill."""

import logging
from collections.abc import Sequence

from models_catalog.engines import EngineAdapter, UsageReport
from portal.inference.dialects.base import ModelRequest
from portal.inference.stream_events import EventRun
from portal.inference.upstream_answers import PlainAnswer
from portal.kit.sse import event_data
from quotas.metering.facts import NOTHING, UsageFacts, estimate_tokens
from quotas.models import Basis, Provenance

logger = logging.getLogger(__name__)

_WEAKNESS = (Basis.FINAL_USAGE, Basis.CHECKPOINT, Basis.EVENTS)


def together(parts: Sequence[UsageFacts], request: ModelRequest) -> UsageFacts:
    """What several choices of one call used: each prompt once, as the first of its choices met it, and the
    output of all. It rests on the weakest of their grounds."""
    known = [part for part in parts if part.basis != Basis.NOTHING]
    if len(known) < 2:
        return known[0] if known else NOTHING
    firsts: dict[int, UsageFacts] = {}
    for index, part in enumerate(parts):
        if part.basis != Basis.NOTHING:
            # Whichever choice came first found the least in the cache; the others found what it left there.
            first = firsts.setdefault(request.prompt_number(index), part)
            if part.cached_tokens < first.cached_tokens:
                firsts[request.prompt_number(index)] = part
    return UsageFacts(
        prompt_tokens=sum(part.prompt_tokens for part in firsts.values()),
        cached_tokens=sum(part.cached_tokens for part in firsts.values()),
        image_tokens=sum(part.image_tokens for part in firsts.values()),
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

    def __init__(self, request: ModelRequest, index: int) -> None:
        self.is_complete = False
        self._request = request
        self._prompt = request.prompts[request.prompt_number(index)]
        self._engine: EngineAdapter | None = None
        self._usage: bytes | None = None
        self._opening_usage: bytes | None = None
        self._content_events = 0
        self._plain: PlainAnswer | None = None
        # Reports are asked for several times each: what they were read from, and what it said.
        self._read_from: tuple[bytes | None, bytes | None] = (None, None)
        self._report: UsageReport | None = None
        self._worked_out: tuple[object, UsageFacts] = (None, NOTHING)

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
        if run.opening_usage is not None:
            self._opening_usage = run.opening_usage

    def report(self) -> UsageReport | None:
        """The newest counts of the backend, if there are any."""
        if self._usage is None or self._engine is None:
            return None
        usage, opening = self._read_from
        if usage is not self._usage or opening is not self._opening_usage:
            self._read_from = (self._usage, self._opening_usage)
            try:
                self._report = self._read_report(self._engine, self._usage)
            except Exception:
                # Whatever is wrong with it, the call has to be settled, and others go on.
                logger.exception("inference.usage.unreadable")
                self._report = None
        return self._report

    def _read_report(self, engine: EngineAdapter, usage: bytes) -> UsageReport | None:
        data = usage if self._plain is not None else event_data(usage)
        if not data:
            return None
        opening = event_data(self._opening_usage) if self._opening_usage is not None else None
        return self._request.dialect.read_usage(data, engine=engine, opening=opening)

    def facts(self) -> UsageFacts:
        """What has been delivered so far, from the best source there is; the same object as long as nothing
        has changed, as whoever looks at all running calls every second finds of most of them."""
        state = (self._usage, self._opening_usage, self._content_events, self.is_complete)
        known, facts = self._worked_out
        if known != state:
            facts = self._work_out()
            self._worked_out = (state, facts)
        return facts

    def _work_out(self) -> UsageFacts:
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
        # Some engines count the prompt at the beginning and the output only at the end.
        prompt, cached = (
            (report.prompt_tokens, report.cached_tokens) if report else (self._prompt.estimated_tokens, 0)
        )
        return UsageFacts(
            prompt_tokens=prompt,
            cached_tokens=cached,
            completion_tokens=min(counted, self._request.output_cap_tokens),
            basis=Basis.EVENTS,
            provenance=Provenance.ESTIMATED,
        ).within_reason()
