"""What gateways say to one organization, asked all the time while somebody does something about it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial

from devstack.engines.testing import sim
from tests.gateway_process import RunningGateway, client
from tests.waiting import wait_for


@dataclass(frozen=True, slots=True)
class Answer:
    """What one gateway answered: `path` is models or chat, `sent_at` when it was asked."""

    gateway: int
    path: str
    sent_at: datetime
    status: int
    code: str


@dataclass(slots=True)
class Watch:
    """Asks gateways in turn with one organization's key, until it is stopped, and writes all answers down."""

    gateways: Sequence[RunningGateway]
    token: str
    slug: str
    answers: list[Answer] = field(default_factory=list)
    _stopped: threading.Event = field(default_factory=threading.Event)

    def run(self, number: int) -> None:
        """Ask one of the gateways, in a thread of its own."""
        body = {
            "model": self.slug,
            "messages": [{"role": "user", "content": f"Hello {sim(tokens=2, rate=0)}"}],
        }
        with client(self.gateways[number], self.token) as asking:
            while not self._stopped.is_set():
                for path in ("models", "chat"):
                    sent_at = datetime.now(UTC)
                    answer = (
                        asking.get("/models")
                        if path == "models"
                        else asking.post("/chat/completions", json=body)
                    )
                    refusal = answer.json().get("error") or {}
                    self.answers.append(
                        Answer(number, path, sent_at, answer.status_code, refusal.get("code") or "")
                    )
                self._stopped.wait(0.05)

    def stop(self) -> None:
        self._stopped.set()

    def of(self, number: int, path: str) -> list[Answer]:
        return [one for one in list(self.answers) if (one.gateway, one.path) == (number, path)]

    def wait_past(self, moment: datetime) -> None:
        """Until every gateway has answered both questions that were asked after a moment."""

        def has_answered() -> bool:
            return all(
                any(one.sent_at > moment for one in self.of(number, path)) for number, path in self.lanes
            )

        wait_for(has_answered, 30, "answers of every gateway")

    @property
    def lanes(self) -> list[tuple[int, str]]:
        return [(number, path) for number in range(len(self.gateways)) for path in ("models", "chat")]

    def served(self) -> int:
        """How many calls of the model were answered."""
        return sum(one.path == "chat" and one.status == 200 for one in self.answers)

    def assert_refused(self, since: datetime, *, within: timedelta) -> None:
        """Everything asked later than that was refused as of a suspended organization, and before served."""
        for number, path in self.lanes:
            lane = self.of(number, path)
            assert any(one.status == 200 for one in lane if one.sent_at < since), (number, path, lane[:3])
            late = [one for one in lane if one.sent_at >= since + within]
            wrong = [one for one in late if (one.status, one.code) != (403, "organization_suspended")]
            assert late, (number, path)
            assert not wrong, wrong


@contextmanager
def watching(gateways: Sequence[RunningGateway], token: str, slug: str) -> Iterator[Watch]:
    """A watch on each of the gateways, in threads that end with the block."""
    watch = Watch(gateways, token, slug)
    threads = [
        threading.Thread(target=watch.run, args=[number], name=f"watch-{number}")
        for number in range(len(gateways))
    ]
    for thread in threads:
        thread.start()
    try:
        yield watch
    finally:
        watch.stop()
        for thread in threads:
            thread.join(40)


def wait_for_models(gateways: Sequence[RunningGateway], token: str, slug: str, timeout_s: float) -> None:
    """Until each gateway offers the model to whoever has this key."""

    def is_offered(gateway: RunningGateway) -> bool:
        with client(gateway, token) as asking:
            return slug in {one["id"] for one in asking.get("/models").json().get("data", [])}

    for gateway in gateways:
        wait_for(partial(is_offered, gateway), timeout_s, f"{slug} at {gateway.url}")
