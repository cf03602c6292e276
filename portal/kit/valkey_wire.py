"""One connection to Valkey for commands by the hundred: a batch is one write, answers are read as they come.

The client library costs several times as much a command. It is good for everything else, and its settings
(address, credentials, TLS) are used here too.
"""

import asyncio
import enum
import ssl
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from redis import asyncio as redis_asyncio
from redis.asyncio.connection import SSLConnection, UnixDomainSocketConnection

Argument = str | int | bytes
OnAnswer = Callable[[Any], None]
# Of one answer; longer ones are none that we ask for.
MAX_ANSWER_BYTES: Final = 2**20
# After a time that is over: for what has arrived meanwhile to be read.
SECOND_LOOK_S: Final = 0.01
_PARTIAL: Final = object()


class WireAnswerError(Exception):
    """An error that the server answered; `code` is its first word, such as NOSCRIPT."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.code = text.partition(" ")[0]


def encode(arguments: Sequence[Argument]) -> bytes:
    """A command as the protocol wants it."""
    return b"*%d\r\n%b" % (len(arguments), encode_arguments(arguments))


def encode_arguments(arguments: Sequence[Argument]) -> bytes:
    """A part of a command, whose number of arguments is written before the first part."""
    pieces = []
    for argument in arguments:
        if isinstance(argument, bytes):
            data = argument
        elif isinstance(argument, str):
            data = argument.encode()
        else:
            data = b"%d" % argument
        pieces.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(pieces)


class Away(enum.Enum):
    """The type of AWAY."""

    AWAY = "away"


AWAY: Final = Away.AWAY
"""The answer of a server that does not answer. Whether it has executed the command is unknown."""


class _Question(NamedTuple):
    command: bytes
    asked_at_s: float
    on_answer: OnAnswer


class ValkeyWire:
    """Connects when it is first used, and again after a failure. Belongs to one event loop.

    What is asked in one turn of the loop leaves together and nothing waits for an earlier answer; answers
    come in the order of the questions.
    timeout_s: how long an answer may take. pause_s: after a failure the server is left alone for this long,
    so that an outage does not cost everybody the timeout. greeting: commands that each new connection begins
    with. on_away: told of each failure, and its kind.
    """

    def __init__(
        self,
        valkey: redis_asyncio.Redis,
        *,
        timeout_s: float,
        pause_s: float,
        greeting: Sequence[bytes] = (),
        on_away: Callable[[str], None] = lambda reason: None,
    ) -> None:
        pool = valkey.connection_pool
        self._settings: dict[str, Any] = dict(pool.connection_kwargs)
        self._is_tls = issubclass(pool.connection_class, SSLConnection)
        self._is_unix = issubclass(pool.connection_class, UnixDomainSocketConnection)
        self._timeout_s = timeout_s
        self._pause_s = pause_s
        self._greeting = greeting
        self._on_away = on_away
        self._link: _Link | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._queue: list[_Question] = []
        self._is_scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._is_overdue = False
        self.paused_until_s = 0.0

    @property
    def is_open(self) -> bool:
        """False for a moment after a failure; then nothing is sent."""
        return time.monotonic() >= self.paused_until_s

    def ask(self, command: bytes, on_answer: OnAnswer) -> None:
        """Send an encoded command; `on_answer` gets a value, a WireAnswerError, or AWAY, perhaps at once.
        It must not raise."""
        now_s = time.monotonic()
        if now_s < self.paused_until_s:
            on_answer(AWAY)
            return
        self._queue.append(_Question(command, now_s, on_answer))
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    async def close(self, timeout_s: float) -> None:
        """Wait until everything is answered, also what the answers led to; then end the connection. It
        opens again when it is used again."""
        until_s = time.monotonic() + timeout_s
        while (self._queue or (self._link and self._link.asked)) and time.monotonic() < until_s:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._link is not None:
            self._link.abort()
            self._link = None

    def _flush(self) -> None:
        self._is_scheduled = False
        if not self._queue:
            return
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._timeout_s, self._look_at_clock)
        if self._link is None or self._link.is_lost:
            if self._connecting is None:
                self._connecting = asyncio.create_task(self._connect())
            return
        questions, self._queue = self._queue, []
        self._link.ask(questions)

    def _look_at_clock(self) -> None:
        self._timer = None
        oldest = self._link.asked[0] if self._link and self._link.asked else next(iter(self._queue), None)
        if oldest is None:
            self._is_overdue = False
            return
        left_s = oldest.asked_at_s + self._timeout_s - time.monotonic()
        if left_s > 0:
            self._is_overdue = False
            self._timer = asyncio.get_running_loop().call_later(left_s, self._look_at_clock)
        elif self._is_overdue:
            self._is_overdue = False
            self._give_up("TimeoutError")
        else:
            # In a loop that lags the answer may be there, and only has not been read yet.
            self._is_overdue = True
            self._timer = asyncio.get_running_loop().call_later(SECOND_LOOK_S, self._look_at_clock)

    def _give_up(self, reason: str) -> None:
        self.paused_until_s = time.monotonic() + self._pause_s
        if self._connecting is not None:
            self._connecting.cancel()
            # Not left to itself: in a loop that lags it may not have begun, and then never gets to say so.
            self._connecting = None
        questions, self._queue = self._queue, []
        link, self._link = self._link, None
        if link is not None:
            questions = [*link.asked, *questions]
            link.asked.clear()
            link.abort()
        self._on_away(reason)
        for question in questions:
            question.on_answer(AWAY)

    def _lost(self, link: "_Link") -> None:
        if link is self._link and link.asked:
            self._give_up("ConnectionError")

    async def _connect(self) -> None:
        loop, settings = asyncio.get_running_loop(), self._settings
        try:
            if self._is_unix:
                _, link = await loop.create_unix_connection(lambda: _Link(self._lost), settings["path"])
            else:
                _, link = await loop.create_connection(
                    lambda: _Link(self._lost),
                    settings.get("host", "localhost"),
                    settings.get("port", 6379),
                    ssl=self._tls() if self._is_tls else None,
                )
            await self._greet(link)
        except OSError as error:
            self._connecting = None
            self._give_up(type(error).__name__)
            return
        finally:
            if self._connecting is asyncio.current_task():
                self._connecting = None
        self._link = link
        self._flush()

    async def _greet(self, link: "_Link") -> None:
        """Raises ConnectionError when the server does not let us in."""
        settings = self._settings
        greeting = list(self._greeting)
        if settings.get("db"):
            greeting.insert(0, encode(["SELECT", settings["db"]]))
        if settings.get("password"):
            user = [settings["username"]] if settings.get("username") else []
            greeting.insert(0, encode(["AUTH", *user, settings["password"]]))
        if not greeting:
            return
        answers: list[Any] = []
        last: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def note(answer: Any) -> None:
            answers.append(answer)
            if len(answers) == len(greeting) and not last.done():
                last.set_result(None)

        link.ask([_Question(command, 0.0, note) for command in greeting])
        try:
            await last
            refused = next((answer for answer in answers if isinstance(answer, WireAnswerError)), None)
            if refused is not None:
                raise ConnectionError(f"valkey refused the connection: {refused.code}")
        except BaseException:
            link.abort()
            raise

    def _tls(self) -> ssl.SSLContext:
        settings = self._settings
        context = ssl.create_default_context(cafile=settings.get("ssl_ca_certs"))
        if settings.get("ssl_cert_reqs", "required") in ("none", ssl.CERT_NONE):
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if settings.get("ssl_certfile"):
            context.load_cert_chain(settings["ssl_certfile"], settings.get("ssl_keyfile"))
        return context


class _Link(asyncio.Protocol):
    def __init__(self, on_lost: "Callable[[_Link], None]") -> None:
        self.is_lost = False
        self.asked: deque[_Question] = deque()
        self._on_lost = on_lost
        self._transport: Any = None
        self._buffer = b""

    def ask(self, questions: Sequence[_Question]) -> None:
        self.asked.extend(questions)
        self._transport.write(b"".join([question.command for question in questions]))

    def abort(self) -> None:
        self.is_lost = True
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        self._on_lost(self)
        while self.asked:
            self.asked.popleft().on_answer(WireAnswerError("CLOSED the connection"))

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        at = 0
        try:
            while at < len(buffer):
                answer, end = read_answer(buffer, at)
                if answer is _PARTIAL:
                    break
                at = end
                if not self.asked:
                    raise ValueError("an answer that nobody asked for")
                self.asked.popleft().on_answer(answer)
        except ValueError:
            self.abort()
            return
        self._buffer = buffer[at:]
        if len(self._buffer) > MAX_ANSWER_BYTES:
            self.abort()


def read_answer(buffer: bytes, at: int) -> tuple[Any, int]:
    """The answer that begins at `at`, and where it ends; `is_partial` tells whether there is not all of it.

    Raises ValueError for what is no answer.
    """
    line_end = buffer.find(b"\r\n", at)
    if line_end < 0:
        return _PARTIAL, at
    kind, text, end = buffer[at : at + 1], buffer[at + 1 : line_end], line_end + 2
    if kind == b":":
        return int(text), end
    if kind == b"+":
        return text, end
    if kind == b"-":
        return WireAnswerError(text.decode(errors="replace")), end
    if kind == b"$":
        size = int(text)
        if size < 0:
            return None, end
        if len(buffer) < end + size + 2:
            return _PARTIAL, at
        return buffer[end : end + size], end + size + 2
    if kind == b"*":
        values: list[Any] = []
        for _ in range(int(text)):
            value, end = read_answer(buffer, end)
            if value is _PARTIAL:
                return _PARTIAL, at
            values.append(value)
        return values, end
    raise ValueError("not an answer of this protocol")


def is_partial(answer: Any) -> bool:
    return answer is _PARTIAL
