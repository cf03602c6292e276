"""What `deploy/vllm/usage_log.py` writes inside vLLM: one JSON object a line, at the end of each answer.

vLLM adds up the usage of whole answers only: the line of a call whose client left has none. Of a stream of
chats cached tokens are not told.
"""

from __future__ import annotations

import os
import re
import socket
import time

from devstack.engines.feeds.lines import LineFormat, quoted
from devstack.engines.feeds.told import Told

VERSION = 1


class VllmMiddleware(LineFormat):
    """`DIR/vllm-usage-<hostname>-<pid>-<UTC time>.jsonl`, a new one each hour."""

    name = "vllm_middleware"

    def __init__(self, *, skew_s: float = 0.0, hostname: str | None = None) -> None:
        super().__init__(skew_s=skew_s)
        host = re.sub(r"[^A-Za-z0-9.]", "_", hostname or socket.gethostname())
        self._stem = f"vllm-usage-{host}-{os.getpid()}"

    def file_name(self, unix: float) -> str:
        return f"{self._stem}-{time.strftime('%Y%m%d_%H%M%S', time.gmtime(unix + self.skew_s))}.jsonl"

    def line(self, told: Told) -> bytes:
        # A plain answer that nobody waits for any more is sent all the same, empty.
        usage, whole = "null", "false" if told.stream else "true"
        if told.finish != "abort":
            whole = "true"
            cached = told.cached_tokens if told.shows_cached else "null"
            reasoning = told.reasoning_tokens or "null"
            usage = (
                f'{{"prompt_tokens":{told.prompt_tokens},"cached_tokens":{cached},'
                f'"completion_tokens":{told.completion_tokens or 0},"reasoning_tokens":{reasoning}}}'
            )
        request_id = quoted(told.header_id) if told.header_id else "null"
        return (
            f'{{"v":{VERSION},"finished_unix":{told.finished_unix + self.skew_s:.6f},'
            f'"path":{quoted(told.path)},"status":{told.status},"whole":{whole},'
            f'"request_id":{quoted(told.wire_id)},"x_request_id":{request_id},"usage":{usage}}}'
        ).encode()
