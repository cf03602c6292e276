"""Command line of an engine simulator, and its parsed form."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from devstack.engines.feeds.options import FeedOptions, add_feed_arguments, feed_options

Flavour = Literal["llamacpp", "vllm", "sglang", "generic"]
# What SIGTERM does to open streams: they are dropped after a second, drained, or left without another byte.
Shutdown = Literal["drop", "drain", "hang"]

FLAVOURS: tuple[Flavour, ...] = get_args(Flavour)
SHUTDOWNS: tuple[Shutdown, ...] = get_args(Shutdown)
KEY_VARIABLE = "ENGINE_API_KEY"
DEFAULT_MODEL = "sim-model"
DEFAULT_TOKENS_PER_S = 50.0
DEFAULT_CONTEXT_TOKENS = 8192
MAX_TOKENS_PER_S = 1_000_000.0
MAX_CONTEXT_TOKENS = 10_000_000
MAX_SLOTS = 100_000


@dataclass(slots=True)
class Speeds:
    """How fast the engine is; it may be changed while it runs. See `machine.py`.

    `tokens_per_s` is the decoding speed of a sequence that runs alone; 0 means as fast as the machine can.
    `total_tokens_per_s` is what all sequences together come near to; 0 means that each always gets its own.
    `prefill_tokens_per_s` of 0 computes prompts in no time; `slots` of 0 lets every call run at once.
    """

    tokens_per_s: float = DEFAULT_TOKENS_PER_S
    total_tokens_per_s: float = 0.0
    prefill_tokens_per_s: float = 0.0
    slots: int = 0


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How one simulator behaves for its whole life.

    `embeddings`: the engines that have to be told so serve /v1/embeddings. `version` is what it says it is;
    None means the version that the flavour was recorded from.
    `listen_fd` is an inherited, already bound socket that replaces host and port.
    `parent_pid` names the process whose death ends this one.
    """

    flavour: Flavour
    host: str = "127.0.0.1"
    port: int = 0
    api_key: str | None = None
    speeds: Speeds = field(default_factory=Speeds)
    context_tokens: int = DEFAULT_CONTEXT_TOKENS
    model: str = DEFAULT_MODEL
    embeddings: bool = False
    shutdown: Shutdown = "drop"
    version: str | None = None
    seed: int | None = None
    record_path: Path | None = None
    books_path: Path | None = None
    feed: FeedOptions = field(default_factory=FeedOptions)
    listen_fd: int | None = None
    parent_pid: int | None = None


def parse_options(argv: list[str]) -> EngineOptions:
    """Parses the command line; leaves the process with status 2 and a message when it is wrong."""
    parser = argparse.ArgumentParser(prog="python -m devstack.engines", description=__doc__)
    parser.add_argument("--flavour", required=True, choices=FLAVOURS)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=_BoundedInt(1, 65535))
    parser.add_argument(
        "--api-key", default=os.environ.get(KEY_VARIABLE), help=f"default: {KEY_VARIABLE} in the environment"
    )
    parser.add_argument("--tokens-per-s", type=_rate, default=DEFAULT_TOKENS_PER_S, help="0 = no pacing")
    parser.add_argument(
        "--total-tokens-per-s", type=_rate, default=0.0, help="of all sequences; 0 = no limit"
    )
    parser.add_argument("--prefill-tokens-per-s", type=_rate, default=0.0, help="0 = prompts take no time")
    parser.add_argument("--slots", type=_BoundedInt(0, MAX_SLOTS), default=0, help="0 = no queue")
    parser.add_argument(
        "--context",
        type=_BoundedInt(16, MAX_CONTEXT_TOKENS),
        default=DEFAULT_CONTEXT_TOKENS,
        help="in tokens",
    )
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--embeddings", action="store_true", help="serve /v1/embeddings")
    parser.add_argument("--shutdown", choices=SHUTDOWNS, default="drop", help="what SIGTERM does to streams")
    parser.add_argument("--engine-version", help="what it says it is")
    parser.add_argument("--seed", type=int, help="makes the ids that the engine draws repeatable")
    parser.add_argument(
        "--record", type=Path, help="append each finished request to this file as a JSON line"
    )
    parser.add_argument(
        "--books-file", type=Path, help="append each finished call and each injected fault as a JSON line"
    )
    add_feed_arguments(parser)
    parser.add_argument("--fd", type=_BoundedInt(0, 1_000_000), help="listen on this inherited socket")
    parser.add_argument("--parent-pid", type=_BoundedInt(1, 2**31), help="die when this parent process dies")
    given = parser.parse_args(argv)
    if (given.port is None) == (given.fd is None):
        parser.error("exactly one of --port and --fd is needed")
    if given.total_tokens_per_s and not given.tokens_per_s:
        parser.error("--total-tokens-per-s needs --tokens-per-s")
    return EngineOptions(
        flavour=given.flavour,
        host=given.host,
        port=given.port or 0,
        api_key=given.api_key,
        speeds=Speeds(
            tokens_per_s=given.tokens_per_s,
            total_tokens_per_s=given.total_tokens_per_s,
            prefill_tokens_per_s=given.prefill_tokens_per_s,
            slots=given.slots,
        ),
        context_tokens=given.context,
        model=given.model,
        embeddings=given.embeddings,
        shutdown=given.shutdown,
        version=given.engine_version,
        seed=given.seed,
        record_path=given.record,
        books_path=given.books_file,
        feed=feed_options(given),
        listen_fd=given.fd,
        parent_pid=given.parent_pid,
    )


def _rate(text: str) -> float:
    value = float(text)
    if not 0 <= value <= MAX_TOKENS_PER_S:
        raise argparse.ArgumentTypeError(f"must be between 0 and {MAX_TOKENS_PER_S:.0f}")
    return value


class _BoundedInt:
    def __init__(self, lowest: int, highest: int) -> None:
        self.lowest, self.highest = lowest, highest

    def __call__(self, text: str) -> int:
        value = int(text)
        if not self.lowest <= value <= self.highest:
            raise argparse.ArgumentTypeError(f"must be between {self.lowest} and {self.highest}")
        return value

    def __repr__(self) -> str:
        # argparse names the type in its message when the text is no number.
        return "integer"
