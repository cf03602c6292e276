"""`make run`: starts the services and our processes in order, watches them, and stops them in order."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from devstack import ports
from devstack.application import Application, Process, child_environment, instance_environment
from devstack.datadir import DataDir
from devstack.embedded import EmbeddedServices, named_by_environment
from devstack.packages import REPOSITORY
from devstack.postgres import Postgres
from devstack.probe import answers_ok
from devstack.process import (
    POLL_S,
    Child,
    DevstackError,
    Launch,
    ask_to_stop,
    end_leftovers,
    kill,
    run_to_end,
    spawn,
)
from devstack.service import Service
from devstack.wakeup import StopRequested, Wakeup
from devstack.watching import Watch, Watched

READY_TIMEOUT_S = 120.0
DRAIN_TIMEOUT_S = 20.0
LEFTOVERS_TIMEOUT_S = 10.0


class Supervisor:
    """One instance, from start to stop. Use `run` once, in the main thread.

    `make_secrets` fills the given folder with what is missing of the installation's secrets.
    """

    def __init__(
        self,
        *,
        port: int,
        data_dir: Path,
        application: Callable[[int, DataDir], Application],
        make_secrets: Callable[[Path], object],
        with_model: bool = True,
    ) -> None:
        self._started_at = time.monotonic()
        self._port = port
        self._data_dir = DataDir(data_dir)
        self._application = application(port, self._data_dir)
        self._make_secrets = make_secrets
        self._wakeup = Wakeup()
        self._embedded = EmbeddedServices(
            self._data_dir, port_seed=port, with_model=with_model, pause=self._wakeup.pause
        )
        self._watch = Watch(pause=self._wakeup.pause, say=self._say)
        self._processes = Watch(pause=self._wakeup.pause, say=self._say)
        self._environment: Mapping[str, str] = {}

    def run(self) -> int:
        """Returns the exit code: 0 after a stop that was asked for, 1 after a failure, which was printed."""
        try:
            self._data_dir.create()
            with self._data_dir.locked("run"):
                try:
                    self._start()
                    self._watch.keep_running()
                finally:
                    self._stop()
        except StopRequested:
            return 0
        except DevstackError as error:
            # Last of all, so that it is what stands at the end of the output.
            say(f"Error: {error}")
            return 1

    def _start(self) -> None:
        killed = end_leftovers(self._data_dir.run, patience_s=LEFTOVERS_TIMEOUT_S, pause=self._wakeup.pause)
        if killed:
            self._say(f"Ended what an earlier start had left behind: {', '.join(killed)}")
        self._check_ports()
        for variable in named_by_environment():
            self._say(f"{variable} is set in the environment: using that")
        self._embedded.start(self._service_started)
        instance = instance_environment(self._port, self._data_dir, self._embedded.environment())
        if instance["SECRETS_DIR"] == str(self._data_dir.secrets):
            self._make_secrets(self._data_dir.secrets)
        self._data_dir.write_instance_env(instance)
        self._environment = child_environment(instance)
        self._run_steps()
        self._start_processes()
        say(f"Ready: {instance['PORTAL_URL']}")
        say(f"  Sign-in data and an API key for {instance['API_BASE']}: {self._data_dir.demo_env}")
        say(f"  Logs: {self._data_dir.logs}")
        say("  Stop with Ctrl-C.")

    def _check_ports(self) -> None:
        for port, purpose in ((self._port, "PORT, the pages"), (self._port + 1, "PORT + 1, the gateway")):
            reason = ports.why_not_free(port)
            if reason:
                raise DevstackError(
                    f"Port {port} ({purpose}) cannot be used: {reason}. Choose another: make run PORT=…"
                )

    def _service_started(self, service: Service) -> None:
        self._say(f"{service.title} ready on port {service.port}")
        port = service.port

        def start_again() -> Child:
            service.start()
            if service.port != port or service.child is None:
                raise DevstackError(f"{service.name} came back on port {service.port} instead of {port}")
            return service.child

        # Without the database every process fails; whoever ended it should see that, not a quiet recovery.
        restarts = not isinstance(service, Postgres)
        self._watch.add(Watched(service.name, start_again, restarts=restarts, child=service.child))

    def _run_steps(self) -> None:
        for step in self._application.steps:
            run_to_end(
                step.name,
                Launch(argv=step.argv, env=self._environment, cwd=REPOSITORY),
                log_path=self._data_dir.logs / f"{step.name}.log",
                run_dir=self._data_dir.run,
                timeout_s=step.timeout_s,
                pause=self._wakeup.pause,
            )
            self._say(step.done)

    def _start_processes(self) -> None:
        for process in self._application.processes:
            watched = Watched(process.name, self._starter(process))
            self._watch.add(watched)
            self._processes.add(watched)
            watched.child = watched.start()
        deadline = time.monotonic() + READY_TIMEOUT_S
        for process in self._application.processes:
            while process.ready_url and not answers_ok(process.ready_url):
                self._watch.require_all_alive()
                if time.monotonic() > deadline:
                    raise DevstackError(
                        f"{process.name} did not answer {process.ready_url} within {READY_TIMEOUT_S:.0f} s; "
                        f"see {self._data_dir.logs / process.name}.log"
                    )
                self._wakeup.pause(POLL_S)
            self._say(f"{process.name} {'ready' if process.ready_url else 'started'}")
        self._watch.require_all_alive()

    def _starter(self, process: Process) -> Callable[[], Child]:
        # A killed supervisor takes the services with it. Without them a process that drained on SIGTERM would
        # only wait for its own time-outs; that nothing is lost in a crash is the product's promise.
        def start() -> Child:
            return spawn(
                process.name,
                Launch(
                    argv=process.argv,
                    env=self._environment,
                    cwd=REPOSITORY,
                    death_signal=signal.SIGKILL,
                ),
                log_path=self._data_dir.logs / f"{process.name}.log",
                run_dir=self._data_dir.run,
            )

        return start

    def _stop(self) -> None:
        """Our processes first, together, so that they can settle what they serve; then the services."""
        self._wakeup.begin_stop()
        if not self._embedded.is_started() and not self._processes.children():
            return
        self._say("Stopping (Ctrl-C to hurry)")
        kill(
            ask_to_stop(
                self._processes.children(),
                signal.SIGTERM,
                patience_s=DRAIN_TIMEOUT_S,
                hurry=self._wakeup.hurried,
            )
        )
        self._embedded.stop(self._wakeup.hurried)
        self._say("Stopped")

    def _say(self, line: str) -> None:
        say(f"[{time.monotonic() - self._started_at:6.1f} s] {line}")


def say(line: str) -> None:
    """Prints at once. A terminal that has gone away must not keep us from stopping in order."""
    try:
        print(line, flush=True)
    except OSError:
        return
