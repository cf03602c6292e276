"""What the endpoints of OpenAI's form share."""

from models_catalog.engines import EngineAdapter, UsageReport
from portal.inference import stream_events
from portal.inference.errors import CallError
from portal.inference.upstream_answers import PlainAnswer, read_plain_answer

# Each choice of each prompt is a call of its own to a backend.
MAX_CHOICES = 8


class OpenAIErrors:
    """Errors as all of them tell them."""

    def error_body(self, error: CallError, request_id: str) -> bytes:
        return error.body(request_id)

    def error_event(self, error: CallError, request_id: str) -> bytes:
        return error.event(request_id)


class OpenAIAnswers(OpenAIErrors):
    """Answers that have choices and usage, as engines' own reader of usage knows them."""

    def read_opening(self, event: bytes) -> str | None:
        return stream_events.read_opening(event)

    def read_plain(self, body: bytes) -> PlainAnswer:
        return read_plain_answer(body)

    def read_usage(
        self, data: bytes, *, engine: EngineAdapter, opening: bytes | None = None
    ) -> UsageReport | None:
        return engine.read_usage(data)
