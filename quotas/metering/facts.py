"""What a call used, as one side counted it."""

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
        if (
            0 <= self.prompt_tokens <= MAX_TOKENS
            and 0 <= self.completion_tokens <= MAX_TOKENS
            and self.image_tokens >= 0
            and 0 <= self.cached_tokens <= self.prompt_tokens - self.image_tokens
            and 0 <= self.reasoning_tokens <= self.completion_tokens
        ):
            return self
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

# For bytes of ASCII: a letter, white space, or any other sign.
_KINDS = bytes(
    ord("a" if chr(code).isalpha() else " " if chr(code).isspace() else ".") for code in range(128)
)
_KINDS += b"." * 128
_FURTHER_SPACES = [chr(code) for code in range(128, 0x3001) if chr(code).isspace()]


def estimate_tokens(text: str) -> int:
    """How many tokens a text has, about: words, one more for each eight letters, digits, and every other sign
    or Chinese character.

    Used only where an engine reports no usage at all; the record is marked ESTIMATED and never
    exceeds the admitted cap. Counted without taking the text apart: it may be megabytes, and calls wait.
    """
    kinds = text.encode("ascii", "replace").translate(_KINDS)
    words = kinds.startswith(b"a") + kinds.count(b" a") + kinds.count(b".a")
    spaces = 0 if text.isascii() else sum(text.count(space) for space in _FURTHER_SPACES)
    return words + kinds.count(b"aaaaaaaa") + kinds.count(b".") - spaces
