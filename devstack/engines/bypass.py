"""Traffic that never came through the gateway: in the engine's counters and feeds, in no records of it."""

from __future__ import annotations

import time

from devstack.engines.books import RequestRecord
from devstack.engines.call import Call, EngineRequest
from devstack.engines.dialects.base import Dialect
from devstack.engines.directive import Directive
from devstack.engines.feeds.injected import Injections
from devstack.engines.feeds.live import Feeds
from devstack.engines.feeds.told import CHATS
from devstack.engines.prompts import Prompt, Wish


def bypass(
    dialect: Dialect,
    feeds: Feeds,
    injections: Injections,
    *,
    prompt_tokens: int,
    cached_tokens: int,
    completion_tokens: int,
) -> str:
    """Serves a chat that somebody sent to the engine itself, all at once; answers its id."""
    request = EngineRequest(
        endpoint="chat", prompt=Prompt((prompt_tokens,), ""), wish=Wish(), model=None, cap_tokens=None
    )
    now_unix = time.time()
    record = RequestRecord(
        seq=0, started_unix=now_unix, path=CHATS, body_bytes=0, body_sha256="", headers=[], status=200
    )
    call = Call(
        request=request,
        directive=Directive(),
        record=record,
        wire_id=dialect.make_wire_id(request, {}),
        model=dialect.response_model(request),
        created_unix=int(now_unix),
        prompt_tokens=prompt_tokens,
        cached_tokens=min(cached_tokens, prompt_tokens),
        target_steps=completion_tokens,
        reasoning_tokens=0,
        finish_reason="stop",
        rate_per_s=0.0,
    )
    counters = dialect.counters
    counters.admitted(call)
    feeds.opened(call)
    call.advance(completion_tokens)
    counters.prefilled(call)
    counters.decoded(call, completion_tokens)
    counters.released(call)
    told = feeds.ended(call, "stop")
    ids = [record.wire_id for records in told.values() for record in records]
    injections.add(
        "foreign",
        wire_id=ids[0] if ids else call.wire_id,
        prompt_tokens=prompt_tokens,
        cached_tokens=call.cached_tokens,
        completion_tokens=completion_tokens,
    )
    return call.wire_id
