"""A supervised instance with stand-ins for our own processes: python -m devstack.tests.stand_in PORT FOLDER.

The services are real. `gateway` and `web` are HTTP servers that answer everything with 200, `worker` only
waits, and the one step writes down the environment that it was given.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from devstack.application import Application, Process, Step
from devstack.datadir import DataDir, private_folder
from devstack.process import stop_with_parent
from devstack.supervisor import Supervisor

_SERVER = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
_STEP = """
import json, os
with open(os.path.join(os.path.dirname(os.environ["DEMO_ENV_FILE"]), "step.json"), "w") as file:
    json.dump(dict(os.environ), file)
"""
# Ignores SIGTERM, as a process that drains forever would.
_STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
_FAILING = "import sys; print('the reason it fails'); sys.exit(3)"


def application(port: int, data_dir: DataDir, kind: str) -> Application:
    def server(name: str, on_port: int) -> Process:
        url = f"http://127.0.0.1:{on_port}/readyz"
        return Process(name, (sys.executable, "-c", _SERVER, str(on_port)), ready_url=url)

    worker = {"stubborn": _STUBBORN, "failing": _FAILING}.get(kind, "import time; time.sleep(600)")
    return Application(
        steps=(Step("step", (sys.executable, "-c", _STEP), "Step done", 30.0),),
        processes=(
            server("gateway", port + 1),
            server("web", port),
            Process("worker", (sys.executable, "-c", worker)),
        ),
    )


def main(port: str, data_dir: str, kind: str = "plain") -> int:
    stop_with_parent(os.getppid())
    return Supervisor(
        port=int(port),
        data_dir=Path(data_dir),
        application=lambda on_port, folder: application(on_port, folder, kind),
        make_secrets=private_folder,
        with_model=kind == "model",
    ).run()


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
