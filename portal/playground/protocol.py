"""The server's end of a socket: what `send` returns from has left for the client."""

from typing import Any

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol


class PromptWebSocket(WebSocketsSansIOProtocol):
    """Writes wait until the kernel has taken the bytes, as those of the gateway do.

    The server's own protocol waits before it writes, so a message counts as sent while it lies in a buffer
    of this process. Here a slow browser slows its backend, and what is billed was really handed over.
    """

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)
        # The scope's state is made of this; a copy, because the original belongs to all connections.
        self.app_state = {**self.app_state, "abort": transport.abort}

    async def send(self, message: Any) -> None:
        await super().send(message)
        await self.writable.wait()
        if self.disconnected and message["type"] == "websocket.send":
            raise ClientDisconnected

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        # Closing waits until the client has taken what is unsent, and this one takes nothing.
        self.transport.abort()

    def shutdown(self) -> None:
        super().shutdown()
        if self.transport.get_write_buffer_size():
            self.transport.abort()
