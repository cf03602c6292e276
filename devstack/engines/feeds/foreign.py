"""Calls of somebody who bypasses the gateway, made up: ids that nobody else has, lengths of any size."""

from __future__ import annotations

import random

import msgspec

from devstack.engines.feeds.told import FeedFormat, Told

MAX_PROMPT_TOKENS = 2000
MAX_COMPLETION_TOKENS = 500


def draw_counts(dice: random.Random) -> tuple[int, int, int]:
    """Prompt, cached and completion tokens."""
    prompt = dice.randint(10, MAX_PROMPT_TOKENS)
    cached = dice.choice((0, 0, prompt // 2))
    return prompt, cached, dice.randint(1, MAX_COMPLETION_TOKENS)


def draw_id(feed: FeedFormat, dice: random.Random) -> str:
    """As the engine would name a call whose caller named none."""
    if feed in ("vllm_middleware", "vllm_otlp"):
        return f"chatcmpl-{dice.getrandbits(64):016x}"
    return f"{dice.getrandbits(128):032x}"


def draw_record(feed: FeedFormat, like: Told, dice: random.Random) -> Told:
    """A record beside another one, at the same time."""
    prompt, cached, completion = draw_counts(dice)
    return msgspec.structs.replace(
        like,
        wire_id=draw_id(feed, dice),
        prompt_tokens=prompt,
        cached_tokens=cached,
        completion_tokens=completion,
        reasoning_tokens=0,
        finish="stop",
        part=0,
        header_id="",
        cap_tokens=None,
    )
