"""What the embedded services have in common: a port that is found and remembered, a child, a way to stop."""

from __future__ import annotations

import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection

from devstack import ports
from devstack.datadir import DataDir
from devstack.process import (
    Child,
    ChildEndedError,
    Launch,
    Pause,
    ask_to_stop,
    kill,
    spawn,
    wait_until_ready,
)

_PORT_ATTEMPTS = 3


class Service(ABC):
    """One embedded server. After `start`, also after a failed one, the caller has to call `stop`.

    `port_seed` makes the port predictable (pass the instance's own port); `avoid_ports` are never taken.
    """

    name: str
    slot: int
    start_timeout_s = 60.0
    stop_signal = signal.SIGTERM
    stop_patience_s = 10.0
    hurried_stop_signal = signal.SIGTERM

    def __init__(
        self,
        data_dir: DataDir,
        *,
        port_seed: int,
        avoid_ports: Collection[int] = (),
        pause: Pause = time.sleep,
    ) -> None:
        self.data_dir = data_dir
        self.child: Child | None = None
        self.port = 0
        self._port_seed = port_seed
        self._avoid_ports = frozenset(avoid_ports)
        self._pause = pause

    def start(self) -> None:
        """Returns when the server answers; DevstackError with the end of its log when it does not."""
        # After an unexpected end there is a child to collect, and something of it to clear away.
        self.stop()
        self._prepare()
        remembered = self.data_dir.recall(self.name).get("port")
        preferred = int(remembered or ports.first_choice(self._port_seed, self.slot))
        avoid = set(self._avoid_ports)
        for attempts_left in reversed(range(_PORT_ATTEMPTS)):
            self.port = ports.choose(preferred, avoid=avoid)
            log_path = self.data_dir.logs / f"{self.name}.log"
            self.child = spawn(self.name, self._launch(), log_path=log_path, run_dir=self.data_dir.run)
            try:
                wait_until_ready(
                    self.child, self._is_ready, timeout_s=self.start_timeout_s, pause=self._pause
                )
                break
            except ChildEndedError:
                # Somebody else may have taken the port since we looked; everything else is a real failure.
                if not attempts_left or ports.why_not_free(self.port) is None:
                    raise
                avoid.add(self.port)
        self.data_dir.remember(self.name, port=self.port)
        self._finish()

    def stop(self, hurry: Callable[[], bool] = lambda: False) -> None:
        """Stops the server if it runs: orderly, or within seconds once `hurry()` is true."""
        if self.child is not None:
            running = [self.child]
            if not hurry():
                running = ask_to_stop(running, self.stop_signal, patience_s=self.stop_patience_s, hurry=hurry)
            kill(ask_to_stop(running, self.hurried_stop_signal, patience_s=3.0))
            self.child = None
        self._clean_up()

    @property
    @abstractmethod
    def title(self) -> str:
        """Product and version, for the progress line; valid once started."""

    @abstractmethod
    def environment(self) -> dict[str, str]:
        """The variables that tell our other processes how to reach this server; valid once started."""

    @abstractmethod
    def _prepare(self) -> None:
        """Makes the files that the server needs."""

    @abstractmethod
    def _launch(self) -> Launch:
        """The server's command for `self.port`."""

    @abstractmethod
    def _is_ready(self) -> bool:
        """Whether the server answers."""

    @abstractmethod
    def _finish(self) -> None:
        """Completes the set-up once the server answers."""

    @abstractmethod
    def _clean_up(self) -> None:
        """Removes what must not stay after a stop. Called whether or not the server ever ran."""
