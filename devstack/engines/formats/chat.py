"""/v1/chat/completions. What the chunks look like is the dialect's; their order is the same everywhere."""

from __future__ import annotations

from collections.abc import Iterator

from devstack.engines.call import Call
from devstack.engines.dialects.base import Json
from devstack.engines.formats.base import DONE, Format, Stream, data_event


class ChatStream(Stream):
    """A role for each choice, a chunk for each token, the ends, the usage."""

    def opening(self) -> Iterator[bytes]:
        if self.dialect.roles_first or not self.call.steps:
            for index in range(self.call.request.n):
                yield data_event(self.dialect.role_chunk(self.call, index))

    def token(self, step: int) -> Iterator[tuple[bytes, int]]:
        dialect, call = self.dialect, self.call
        piece = call.piece(step)
        for index in range(call.request.n):
            if step == 1 and not dialect.roles_first:
                yield data_event(dialect.role_chunk(call, index)), 0
            yield data_event(dialect.token_chunk(call, index, step, piece)), 1

    def ending(self) -> Iterator[bytes]:
        dialect, call = self.dialect, self.call
        for index in range(call.request.n):
            finish = dialect.finish_chunk(call, index)
            if finish is not None:
                yield data_event(finish)
            if dialect.usage_per_choice:
                yield from self._usage()
        if not dialect.usage_per_choice:
            yield from self._usage()

    def _usage(self) -> Iterator[bytes]:
        usage = self.dialect.usage_chunk(self.call)
        if usage is not None:
            yield data_event(usage)

    def last(self) -> bytes:
        return DONE


class ChatFormat(Format):
    """Chats."""

    endpoint = "chat"

    def plain(self, call: Call) -> Json:
        return self.dialect.plain_body(call)

    def stream(self, call: Call) -> Stream:
        return ChatStream(self.dialect, call)
