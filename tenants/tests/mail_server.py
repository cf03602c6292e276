"""A small SMTP server for tests: takes mails, or refuses them."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage


@dataclass(slots=True)
class MailServer:
    """A running server; `received` grows, and `refuses` makes it turn recipients away."""

    port: int
    received: list[EmailMessage] = field(default_factory=list)
    refuses: bool = False


@contextmanager
def running_mail_server() -> Iterator[MailServer]:
    """On a free port of the loopback, until the block ends."""

    class Conversation(socketserver.StreamRequestHandler):
        timeout = 10

        def say(self, line: str) -> None:
            self.wfile.write(line.encode() + b"\r\n")

        def handle(self) -> None:
            self.say("220 test")
            while line := self.rfile.readline(2000):
                verb = line[:4].upper().strip()
                if verb == b"QUIT":
                    self.say("221 bye")
                    return
                if verb == b"RCPT" and state.refuses:
                    self.say("550 no such mailbox")
                elif verb == b"DATA":
                    self.say("354 go on")
                    self.take()
                else:
                    self.say("250 ok")

        def take(self) -> None:
            lines = list(iter(lambda: self.rfile.readline(10_000), b".\r\n"))
            message = message_from_bytes(b"".join(lines), policy=policy.default)
            assert isinstance(message, EmailMessage)
            state.received.append(message)
            self.say("250 taken")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Conversation) as server:
        state = MailServer(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join(10)
