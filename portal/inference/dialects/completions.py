"""POST /v1/completions: texts that are continued, without a template."""

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from models_catalog.engines import Endpoint, EngineAdapter
from models_catalog.engines.text_fields import COMPLETIONS_COMMON, COMPLETIONS_OURS
from portal.inference import stream_events
from portal.inference.dialects.base import ModelRequest, Prompt
from portal.inference.dialects.openai import MAX_CHOICES, OpenAIAnswers
from portal.inference.dialects.reading import (
    FieldRules,
    missing,
    needs_of,
    output_cap,
    prefix_key,
    printed_bound,
    read_stream,
    sort_fields,
)
from portal.inference.dialects.texts import read_texts
from portal.inference.errors import bad_request
from portal.inference.public_name import PublicName
from portal.inference.snapshot import ModelEntry
from portal.inference.stream_events import EventRun

_CONTENT = re.compile(rb'"text":\s?"(?!")')

_RULES = FieldRules(
    ours=COMPLETIONS_OURS,
    common=COMPLETIONS_COMMON,
    takes_engine_fields=True,
    reasons={
        "best_of": "best_of is not offered: every choice is a charge of its own.",
        "echo": "echo is not offered: the prompt is yours already.",
        "suffix": "suffix is not offered.",
        "max_completion_tokens": "Completions name their cap max_tokens.",
    },
)


class CompletionsDialect(OpenAIAnswers):
    endpoint = Endpoint.COMPLETIONS

    def read_request(
        self, body: Mapping[str, Any], *, raw: bytes, entry: ModelEntry, engines: Collection[EngineAdapter]
    ) -> ModelRequest:
        known, passed = sort_fields(body, _RULES, entry=entry, engines=engines)
        if "prompt" not in known:
            raise missing("prompt")
        texts = read_texts("prompt", known["prompt"], entry=entry, limit=MAX_CHOICES)
        choices = len(texts) * (known.get("n") or 1)
        if choices > MAX_CHOICES:
            raise bad_request(
                f"{len(texts)} prompts with n {known.get('n')} are {choices} choices; "
                f"a call has at most {MAX_CHOICES}.",
                param="n",
            )
        stream, include_usage = read_stream(known)
        # What the catalog lets clients send may be printed by whatever is behind the endpoint.
        added = printed_bound({name: passed[name] for name in passed if name in entry.extra_fields})
        longest = max(text.estimated_tokens for text in texts)
        return ModelRequest(
            dialect=self,
            model=entry.slug,
            prompts=tuple(Prompt({"prompt": text.value}, text.estimated_tokens) for text in texts),
            fields=passed,
            stream=stream,
            include_usage=include_usage,
            output_cap_tokens=output_cap(
                "max_tokens", known.get("max_tokens"), entry=entry, estimated_prompt_tokens=longest
            ),
            prompt_bound_tokens=sum(min(text.bound_tokens + added, entry.context_tokens) for text in texts),
            choices=choices,
            payload_sha256=hashlib.sha256(raw).hexdigest(),
            needs=needs_of(logprobs=passed.get("logprobs") is not None),
            prefix_key=prefix_key(texts[0].beginning),
        )

    def read_run(
        self, events: Sequence[bytes], *, engine: EngineAdapter, include_usage: bool, name: PublicName
    ) -> EventRun:
        return stream_events.read_run(
            events, engine=engine, include_usage=include_usage, name=name, content=_CONTENT
        )


COMPLETIONS = CompletionsDialect()
