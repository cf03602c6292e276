"""What a call used, as one side counted it."""

import re
from dataclasses import dataclass, replace

from quotas.models import Basis, Provenance

# Counts are stored in 32 bits; an engine that reports more is not believed.
MAX_TOKENS = 2**31 - 1


@dataclass(frozen=True, slots=True)
class UsageFacts:
    """Token counts of a call. `prompt_tokens` includes cached and image tokens, `completion_tokens`
    includes reasoning tokens, as OpenAI's usage block does."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    image_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    basis: Basis = Basis.NOTHING
    provenance: Provenance = Provenance.MEASURED

    def within_reason(self) -> "UsageFacts":
        """The same with parts no larger than their whole and no count below zero or beyond 32 bits.

        Engines have been seen to report more cached than prompt tokens; the whole is what is billed.
        """
        prompt = min(max(self.prompt_tokens, 0), MAX_TOKENS)
        completion = min(max(self.completion_tokens, 0), MAX_TOKENS)
        image = min(max(self.image_tokens, 0), prompt)
        return replace(
            self,
            prompt_tokens=prompt,
            completion_tokens=completion,
            image_tokens=image,
            cached_tokens=min(max(self.cached_tokens, 0), prompt - image),
            reasoning_tokens=min(max(self.reasoning_tokens, 0), completion),
        )


NOTHING = UsageFacts()

_PIECE = re.compile(r"[A-Za-z]+|[0-9]|[^\sA-Za-z0-9]")


def estimate_tokens(text: str) -> int:
    """How many tokens a text has, about: words, digits, and every other sign or Chinese character.

    Used only where an engine reports no usage at all; the record is marked ESTIMATED and never
    exceeds the admitted cap.
    """
    return sum(1 + len(piece) // 8 for piece in _PIECE.findall(text))
