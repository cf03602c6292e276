"""Puts our name of a model in the place of the engine's, in whatever the engine answers."""

import re

import msgspec

from portal.inference.upstream_answers import UNREADABLE
from portal.kit.sse import event_data

# Quotes inside JSON strings are escaped, so text cannot look like this.
_MODEL = re.compile(rb'"model":\s?"(?:[^"\\]|\\.)*+"')

# A shorter name may be a word, and is changed only where it stands in quotes.
_LEAST_NAME = 6

_Members = dict[str, msgspec.Raw]
_decode_members = msgspec.json.Decoder(_Members).decode


class PublicName:
    """The name under which one attempt's answer is shown. Of an engine it learns what it calls the model."""

    def __init__(self, slug: str, *, upstream_model: str) -> None:
        self._slug, self._upstream = slug, upstream_model
        self._json = msgspec.json.encode(slug)
        self._ours = b'"model":' + self._json
        self._theirs = b'"model":' + msgspec.json.encode(upstream_model)

    def in_event(self, event: bytes) -> bytes:
        """In an event that names the model once, as those of chats and completions do. Not decoded."""
        # The same object when there is nothing to replace, and faster than cutting it up.
        shown = event.replace(self._theirs, self._ours, 1)
        if shown is not event:
            return shown
        match = _MODEL.search(event)
        if match is None:
            return event
        self._theirs = match[0]
        return event[: match.start()] + self._ours + event[match.end() :]

    def in_member(self, event: bytes, name: str) -> bytes:
        """In an event whose data has the named model inside of this member. Errors: msgspec.DecodeError."""
        data = event_data(event)
        members = _decode_members(data or b"")
        inner = members.get(name)
        if inner is not None:
            members[name] = msgspec.Raw(self.in_answer(bytes(inner)))
        members.pop("timings", None)
        shown = msgspec.json.encode(members)
        if b"\n" in shown or b"\r" in shown:
            # Written over several lines, which would now be fields of their own.
            shown = msgspec.json.format(shown, indent=-1)
        lines = event.split(b"\n", 1)[0] if event.startswith(b"event:") else b""
        return (lines + b"\n" if lines else b"") + b"data: " + shown + b"\n\n"

    def in_answer(self, body: bytes) -> bytes:
        """In a whole answer, without llama.cpp's timings."""
        try:
            members = _decode_members(body)
        except UNREADABLE:
            # Whoever reads less of it could read it.
            return _MODEL.sub(lambda _: self._ours, body)
        if "model" in members:
            members["model"] = msgspec.Raw(self._json)
        members.pop("timings", None)
        return msgspec.json.encode(members)

    def in_text(self, text: str) -> str:
        """In a message for people, where the name stands in quotes, or is no ordinary word."""
        for quote in "'`\"":
            text = text.replace(f"{quote}{self._upstream}{quote}", f"{quote}{self._slug}{quote}")
        if len(self._upstream) >= _LEAST_NAME:
            text = re.sub(rf"(?<![\w./-]){re.escape(self._upstream)}(?![\w/-])", lambda _: self._slug, text)
        return text
