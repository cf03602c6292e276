"""/v1/embeddings: a vector of unit length for each input, the same one for the same words and width."""

from __future__ import annotations

import base64
import hashlib
import math
import random
import struct
from collections.abc import Sequence

from devstack.engines.call import Call
from devstack.engines.dialects.base import Json
from devstack.engines.formats.base import Format, Stream

DEFAULT_DIMENSIONS = 16
MAX_DIMENSIONS = 8192


def vector_of(text: str, tokens: int, dimensions: int) -> list[float]:
    """The vector of a text; token ids are told from each other by their number only."""
    seed = hashlib.sha256(text.encode() or str(tokens).encode()).digest()
    dice = random.Random(seed)
    values = [dice.uniform(-1, 1) for _ in range(dimensions)]
    length = math.sqrt(sum(value * value for value in values)) or 1.0
    # As a client reads them from 32 bits, so that both encodings carry the same numbers.
    return list(
        struct.unpack(f"<{dimensions}f", struct.pack(f"<{dimensions}f", *(v / length for v in values)))
    )


class EmbeddingsFormat(Format):
    """Lists of numbers, or their bytes in base64."""

    endpoint = "embeddings"

    def plain(self, call: Call) -> Json:
        wish, prompt = call.request.wish, call.request.prompt
        dimensions = max(1, min(wish.dimensions or DEFAULT_DIMENSIONS, MAX_DIMENSIONS))
        data = [
            self._entry(index, vector_of(text, tokens, dimensions), as_base64=wish.base64)
            for index, (text, tokens) in enumerate(zip(prompt.texts, prompt.counts, strict=True))
        ]
        usage = self.dialect.usage_field(call, lambda _: self._usage(call))
        match self.dialect.flavour:
            case "llamacpp":
                return {"model": call.model, "object": "list", **usage, "data": data}
            case "vllm":
                head = {"id": call.wire_id, "object": "list", "created": call.created_unix}
                return head | {"model": call.model, "data": data} | usage
            case _:
                return {"object": "list", "data": data, "model": call.model, **usage}

    def stream(self, call: Call) -> Stream:
        raise NotImplementedError("embeddings are not streamed")

    @staticmethod
    def _entry(index: int, vector: Sequence[float], *, as_base64: bool) -> Json:
        if not as_base64:
            return {"object": "embedding", "index": index, "embedding": list(vector)}
        packed = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
        return {"object": "embedding", "index": index, "embedding": packed}

    def _usage(self, call: Call) -> Json:
        usage: Json = {"prompt_tokens": call.prompt_tokens, "total_tokens": call.prompt_tokens}
        if self.dialect.flavour in ("vllm", "sglang"):
            usage |= {"completion_tokens": 0, "prompt_tokens_details": None}
        return usage
