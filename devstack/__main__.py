"""python -m devstack run|manage: see `make help`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from devstack.application import portal_application
from devstack.management import manage
from devstack.process import DevstackError, stop_with_parent
from devstack.supervisor import Supervisor

MAX_PORT = 65_534


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m devstack")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="start everything and stay in the foreground")
    run.add_argument(
        "--port", type=_port, default=8000, help="of the pages; the gateway listens on the next one"
    )
    run.add_argument("--parent", type=int, help="process id of the parent, to stop when it ends")
    command = commands.add_parser("manage", help="run a management command against an instance")
    for subparser in (run, command):
        subparser.add_argument("--data-dir", type=Path, default=Path(".data"))
    command.add_argument("arguments", nargs="*", help="after --, what manage.py gets")
    options = parser.parse_args(argv)
    try:
        if options.command == "manage":
            return manage(options.data_dir, options.arguments)
    except DevstackError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    if options.parent and not stop_with_parent(options.parent):
        print(f"Error: the parent process {options.parent} has ended already", file=sys.stderr)
        return 1
    supervisor = Supervisor(
        port=options.port,
        data_dir=options.data_dir,
        application=portal_application,
        make_secrets=_make_secrets,
    )
    return supervisor.run()


def _port(text: str) -> int:
    """The number of a port that has a next one."""
    port = int(text)
    if not 1 <= port <= MAX_PORT:
        raise argparse.ArgumentTypeError(f"a port goes from 1 to {MAX_PORT}: {text}")
    return port


def _make_secrets(folder: Path) -> None:
    from portal.kit.secrets import SecretStore

    SecretStore.create_missing(folder)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
