"""What the endpoints of OpenAI's form share."""

from portal.inference.errors import CallError


class OpenAIErrors:
    """Errors as chats, completions and embeddings tell them."""

    def error_body(self, error: CallError, request_id: str) -> bytes:
        return error.body(request_id)

    def error_event(self, error: CallError, request_id: str) -> bytes:
        return error.event(request_id)
