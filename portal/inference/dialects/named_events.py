"""Events whose data has a type, which is their name as well: those of responses and messages."""

import re

import msgspec
from msgspec import Struct

from portal.inference.upstream_answers import UNREADABLE
from portal.kit.sse import event_data

_TYPE = re.compile(rb'event:\s?([\w.]+)[\r\n]|data:\s?\{"type":\s?"([\w.]+)"')


class _Typed(Struct):
    type: str = ""


_decode = msgspec.json.Decoder(_Typed).decode


def event_type(event: bytes) -> bytes:
    """The type of an event; empty for one without, such as a comment. Only an event that begins in an
    unusual way is decoded."""
    match = _TYPE.match(event)
    if match is not None:
        return match[1] or match[2]
    data = event_data(event)
    if not data:
        return b""
    try:
        return _decode(data).type.encode()
    except UNREADABLE:
        return b""
