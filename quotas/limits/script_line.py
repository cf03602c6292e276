"""One ordered line of scripts to Valkey: those of concurrent callers share a round trip.

Under light load a round trip carries one script and waits for nobody. What is asked later is answered later,
so that a call's end, which nobody waits for, is known before the next call of the same client asks.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError, ResponseError

logger = logging.getLogger(__name__)

# After a failure Valkey is left alone for this long, so that an outage does not cost every call its timeout.
PAUSE_S = 1.0
# What it may cost those who find out.
ANSWER_TIMEOUT_S = 0.5
CLOSE_TIMEOUT_S = 2.0
MAX_BATCH = 200

Argument = str | int


class _Question(NamedTuple):
    sha: str
    keys: Sequence[str]
    arguments: Sequence[Argument]
    answer: asyncio.Future[Any]


class ScriptLine:
    """Belongs to one event loop. Nothing here raises because Valkey is away: then the answer is None."""

    def __init__(self, valkey: Redis, *scripts: str) -> None:
        self._valkey = valkey
        self._shas = {
            script: hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest() for script in scripts
        }
        self._queue: list[_Question] = []
        self._sender: asyncio.Task[None] | None = None
        self.paused_until_s = 0.0

    @property
    def is_open(self) -> bool:
        """False for a moment after a failure; then nothing is sent."""
        return time.monotonic() >= self.paused_until_s

    def ask(self, script: str, keys: Sequence[str], arguments: Sequence[Argument]) -> asyncio.Future[Any]:
        """The script's answer, or None. The script is one of those that the line was made for."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if not self.is_open:
            answer.set_result(None)
            return answer
        self._queue.append(_Question(self._shas[script], keys, arguments, answer))
        if self._sender is None:
            self._sender = asyncio.create_task(self._send_all())
        return answer

    async def close(self) -> None:
        """Wait until everything is answered, also what the answers led to."""
        until_s = time.monotonic() + CLOSE_TIMEOUT_S
        while self._sender is not None and (left_s := until_s - time.monotonic()) > 0:
            await asyncio.wait({self._sender}, timeout=left_s)

    async def _send_all(self) -> None:
        try:
            while self._queue:
                batch, self._queue = self._queue[:MAX_BATCH], self._queue[MAX_BATCH:]
                answers: Sequence[Any] = ()
                try:
                    answers = await self._answers(batch)
                finally:
                    for number, question in enumerate(batch):
                        if not question.answer.done():
                            question.answer.set_result(answers[number] if answers else None)
        finally:
            self._sender = None

    async def _answers(self, batch: Sequence[_Question]) -> Sequence[Any]:
        """Of a batch that is as long; empty when Valkey does not answer."""
        if not self.is_open:
            return ()
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                answers = await self._execute(batch)
                if any(isinstance(answer, NoScriptError) for answer in answers):
                    answers = await self._execute_again(batch, answers)
        except (RedisError, OSError, TimeoutError) as error:
            self.paused_until_s = time.monotonic() + PAUSE_S
            logger.warning("limits.valkey_away", extra={"reason": type(error).__name__})
            return ()
        for number, answer in enumerate(answers):
            if isinstance(answer, Exception):
                logger.error("limits.script_failed", extra={"reason": str(answer)[:200]})
                answers[number] = None
        return answers

    async def _execute(self, batch: Sequence[_Question]) -> list[Any]:
        """The answers, among them the errors of single scripts."""
        if len(batch) == 1:
            # What a pipeline does for one costs the client as much again.
            (one,) = batch
            try:
                return [await self._valkey.evalsha(one.sha, len(one.keys), *one.keys, *one.arguments)]
            except ResponseError as error:
                return [error]
        async with self._valkey.pipeline(transaction=False) as pipe:
            for question in batch:
                pipe.evalsha(question.sha, len(question.keys), *question.keys, *question.arguments)
            return await pipe.execute(raise_on_error=False)

    async def _execute_again(self, batch: Sequence[_Question], answers: list[Any]) -> list[Any]:
        """Teach a server that is new the scripts; what it did not know has done nothing."""
        for script in self._shas:
            await self._valkey.script_load(script)
        unknown = [number for number, one in enumerate(answers) if isinstance(one, NoScriptError)]
        again = await self._execute([batch[number] for number in unknown])
        for number, answer in zip(unknown, again, strict=True):
            answers[number] = answer
        return answers
