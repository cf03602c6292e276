"""Installs the official clients for Node that the tests run: python -m devstack.client_sdks.

They come from npm as the tools of the pages do, and run under the same Node. Tests only; no page has them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from devstack.frontend import Places, install_modules, locked, node_programs
from devstack.packages import REPOSITORY
from devstack.process import DevstackError

FOLDER = REPOSITORY / "tests" / "clients" / "node"
SCRIPT_TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class NodeClients:
    """The scripts beside `folder`'s package.json, and the Node that runs them."""

    node: str
    folder: Path

    def run(self, script: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """Runs a script to its end, with nothing in its environment that was not given."""
        return subprocess.run(
            [self.node, script],
            cwd=self.folder,
            env={"PATH": os.defpath, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SCRIPT_TIMEOUT_S,
            check=False,
        )


def install_node_clients() -> NodeClients:
    """Does nothing when exactly these packages are installed. Raises DevstackError."""
    node, _ = node_programs()
    # Only the folder of the packages counts: nothing is built.
    places = Places(frontend=FOLDER, templates=FOLDER, dist=FOLDER)
    with locked(FOLDER):
        install_modules(places)
    return NodeClients(node, FOLDER)


def main() -> int:
    """Returns 0 once they are installed, 1 after saying what failed."""
    try:
        install_node_clients()
    except DevstackError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
