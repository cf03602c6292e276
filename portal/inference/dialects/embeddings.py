"""POST /v1/embeddings: all inputs of a request are one call to a backend, and there is no output."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from models_catalog.engines import Endpoint, EngineAdapter
from models_catalog.engines.text_fields import EMBEDDINGS_COMMON, EMBEDDINGS_OURS, MAX_INPUTS
from portal.inference.dialects.base import ModelRequest, Prompt
from portal.inference.dialects.openai import OpenAIAnswers
from portal.inference.dialects.reading import (
    FieldRules,
    missing,
    prefix_key,
    printed_bound,
    sort_fields,
)
from portal.inference.dialects.texts import read_texts
from portal.inference.public_name import PublicName
from portal.inference.snapshot import ModelEntry
from portal.inference.stream_events import EventRun
from portal.inference.upstream_answers import PlainAnswer, wire_id_of

_RULES = FieldRules(
    ours=EMBEDDINGS_OURS,
    common=EMBEDDINGS_COMMON,
    takes_engine_fields=True,
    reasons={"stream": "Embeddings come in one piece; leave stream out."},
)


class _Answer(Struct):
    # What each vector is, is not looked at: there may be thousands.
    data: list[msgspec.Raw]
    id: str | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Answer).decode


class EmbeddingsDialect(OpenAIAnswers):
    endpoint = Endpoint.EMBEDDINGS

    def read_request(
        self, body: Mapping[str, Any], *, raw: bytes, entry: ModelEntry, engines: Collection[EngineAdapter]
    ) -> ModelRequest:
        known, passed = sort_fields(body, _RULES, entry=entry, engines=engines)
        if "input" not in known:
            raise missing("input")
        texts = read_texts("input", known["input"], entry=entry, limit=MAX_INPUTS)
        # What the catalog lets clients send may be put before every input.
        added = printed_bound({name: passed[name] for name in passed if name in entry.extra_fields})
        added += entry.template_overhead_tokens
        bound = sum(min(text.bound_tokens + added, entry.context_tokens) for text in texts)
        estimated = sum(text.estimated_tokens for text in texts)
        return ModelRequest(
            dialect=self,
            model=entry.slug,
            prompts=(Prompt({"input": known["input"]}, min(estimated, bound)),),
            fields=passed,
            stream=False,
            include_usage=False,
            output_cap_tokens=0,
            prompt_bound_tokens=bound,
            choices=1,
            payload_sha256=hashlib.sha256(raw).hexdigest(),
            needs=frozenset(),
            prefix_key=prefix_key(texts[0].beginning),
        )

    def read_run(
        self, events: Sequence[bytes], *, engine: EngineAdapter, include_usage: bool, name: PublicName
    ) -> EventRun:
        raise NotImplementedError("embeddings are not streamed")

    def read_opening(self, event: bytes) -> str | None:
        raise NotImplementedError("embeddings are not streamed")

    def read_plain(self, body: bytes) -> PlainAnswer:
        answer = _decode(body)
        if answer.error is not None:
            raise msgspec.DecodeError("an answer has no error")
        return PlainAnswer(body, wire_id_of(answer.id), "")


EMBEDDINGS = EmbeddingsDialect()
