"""One ordered line of scripts to Valkey: those of concurrent callers share a round trip.

What is asked later is answered later, so that a call's end, which nobody waits for, is known before the next
call of the same client asks.
"""

import asyncio
import hashlib
import logging
from collections.abc import Callable, Sequence
from typing import Any

from redis.asyncio import Redis

from portal.kit.valkey_wire import AWAY, Argument, ValkeyWire, WireAnswerError, encode

__all__ = ["ANSWER_TIMEOUT_S", "Argument", "ScriptLine"]

logger = logging.getLogger(__name__)

# After a failure Valkey is left alone for this long, so that an outage does not cost every call its timeout.
PAUSE_S = 1.0
# What it may cost those who find out.
ANSWER_TIMEOUT_S = 0.5
CLOSE_TIMEOUT_S = 2.0


class ScriptLine:
    """Belongs to one event loop. Nothing here raises because Valkey is away: then the answer is None."""

    def __init__(self, valkey: Redis, *scripts: str) -> None:
        self._lessons = [encode(["SCRIPT", "LOAD", script]) for script in scripts]
        self._wire = ValkeyWire(
            valkey,
            timeout_s=ANSWER_TIMEOUT_S,
            pause_s=PAUSE_S,
            greeting=self._lessons,
            on_away=_note_away,
        )
        self._shas = {
            script: hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest() for script in scripts
        }

    def forgive(self) -> None:
        """Ask again at once after a failure."""
        self._wire.paused_until_s = 0.0

    def ask(
        self,
        script: str,
        keys: Sequence[str],
        arguments: Sequence[Argument],
        *,
        on_orphan: Callable[[Any], None] | None = None,
    ) -> asyncio.Future[Any]:
        """The script's answer, or None. The script is one of those that the line was made for.

        on_orphan: gets the answer when the future was cancelled before.
        """
        command = encode(["EVALSHA", self._shas[script], len(keys), *keys, *arguments])
        return self.ask_encoded(command, on_orphan=on_orphan)

    def sha(self, script: str) -> str:
        return self._shas[script]

    def ask_encoded(
        self, command: bytes, *, on_orphan: Callable[[Any], None] | None = None
    ) -> asyncio.Future[Any]:
        """The same with the command as it goes over the wire."""
        question = _Question(self, command, on_orphan)
        self._wire.ask(command, question.answered)
        return question.answer

    def again(self, command: bytes, on_answer: Callable[[Any], None]) -> None:
        """Somebody has emptied the server; what it did not know has done nothing."""
        self._teach()
        self._wire.ask(command, on_answer)

    def _teach(self) -> None:
        for lesson in self._lessons:
            self._wire.ask(lesson, _ignore)

    def tell(self, command: bytes, on_untold: Callable[[], None]) -> None:
        """An encoded command whose answer nobody waits for; on_untold: called when there was none."""

        def answered(value: Any) -> None:
            if value is AWAY:
                on_untold()
            elif isinstance(value, WireAnswerError):
                # Rare enough to go the long way, which knows what to do; and in order.
                self._teach()
                self.ask_encoded(command).add_done_callback(
                    lambda answer: on_untold() if answer.result() is None else None
                )

        self._wire.ask(command, answered)

    async def close(self) -> None:
        """Wait until everything is answered, also what the answers led to."""
        await self._wire.close(CLOSE_TIMEOUT_S)


class _Question:
    """One that somebody waits for. Not a function within a function: one that refers to itself would leave
    all that hangs on it, as far as the call, to the garbage collector."""

    __slots__ = ("_command", "_is_taught", "_line", "_on_orphan", "answer")

    def __init__(self, line: ScriptLine, command: bytes, on_orphan: Callable[[Any], None] | None) -> None:
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._line = line
        self._command = command
        self._on_orphan = on_orphan
        self._is_taught = False

    def answered(self, value: Any) -> None:
        if isinstance(value, WireAnswerError):
            if value.code == "NOSCRIPT" and not self._is_taught:
                self._is_taught = True
                self._line.again(self._command, self.answered)
                return
            logger.error("limits.script_failed", extra={"reason": str(value)[:200]})
            value = None
        elif value is AWAY:
            value = None
        if not self.answer.done():
            self.answer.set_result(value)
        elif self._on_orphan is not None:
            self._on_orphan(value)


def _note_away(reason: str) -> None:
    logger.warning("limits.valkey_away", extra={"reason": reason})


def _ignore(_answer: Any) -> None:
    pass
