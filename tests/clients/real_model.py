"""The real small model that the SDKs talk to, seen from outside the gateway."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

import httpx2 as httpx


@dataclass(slots=True)
class RealModel:
    """llama.cpp's server with a small model. Counters are since its start."""

    url: str
    key: str
    backend_id: UUID
    upstream_model: str

    def counters(self) -> dict[str, int]:
        """Prompt tokens (cached ones included) and completion tokens that the engine has counted itself."""
        page = httpx.get(f"{self.url}/metrics", headers={"Authorization": f"Bearer {self.key}"}).text
        values = dict(line.rsplit(" ", 1) for line in page.splitlines() if line and not line.startswith("#"))
        return {
            "prompt": int(float(values["llamacpp:prompt_tokens_total"]))
            + int(float(values["llamacpp:prompt_tokens_cached_total"])),
            "completion": int(float(values["llamacpp:tokens_predicted_total"])),
        }
