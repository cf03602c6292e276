import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from portal.kit.sse import EventSplitter, EventTooLarge, event_data

PIECES = [
    b"data: a",
    b"data:",
    b"data",
    b": c",
    b"event: x",
    b"id",
    b"\n",
    b"\r",
    b"\r\n",
    b"\n\n",
    b"\r\n\r\n",
    b"x",
]
streams = st.lists(st.sampled_from(PIECES), max_size=30).map(b"".join)


def split(chunks: list[bytes], max_event_bytes: int = 10_000) -> tuple[list[bytes], bytes]:
    splitter = EventSplitter(max_event_bytes)
    events = [event for chunk in chunks for event in splitter.feed(chunk)]
    return events, splitter.tail()


def split_plainly(stream: bytes) -> tuple[list[bytes], bytes]:
    """Line by line, as the specification puts it; a last CR is not a certain line end."""
    certain = stream[:-1] if stream.endswith(b"\r") else stream
    lines = re.findall(rb"[^\r\n]*(?:\r\n|\n|\r)", certain)
    events, event = [], b""
    for line in lines:
        event += line
        if line in (b"\r\n", b"\n", b"\r"):
            events.append(event)
            event = b""
    return events, stream[sum(map(len, events)) :]


@given(streams)
@example(b"\r")
@example(b"a\r\n\r")
@example(b"a\n\r")
@example(b"\r\n\r\n")
@example(b"a\r\n\n\rb")
def test_events_are_those_of_the_specification(stream: bytes) -> None:
    assert split([stream]) == split_plainly(stream)


@given(streams, st.data())
def test_the_cut_into_chunks_does_not_matter(stream: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    chunks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    expected = split_plainly(stream)
    assert split(chunks) == expected
    assert split([stream[i : i + 1] for i in range(len(stream))]) == expected
    assert b"".join(expected[0]) + expected[1] == stream


@given(st.binary(), st.integers(1, 5))
def test_arbitrary_bytes_come_out_unaltered(stream: bytes, size: int) -> None:
    events, tail = split([stream[i : i + size] for i in range(0, len(stream), size)])
    assert b"".join(events) + tail == stream


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_an_event_is_there_as_soon_as_its_last_byte(end: bytes) -> None:
    splitter = EventSplitter(100)
    event = b"data: {}" + end + end
    for index in range(len(event) - 1):
        assert splitter.feed(event[index : index + 1]) == []
    assert splitter.tail() == event[:-1]
    assert splitter.feed(event[-1:]) == [event]
    assert splitter.tail() == b""
    assert splitter.feed(event) == [event]


def test_an_event_that_ends_in_a_single_cr_waits_for_the_next_byte() -> None:
    splitter = EventSplitter(100)
    assert splitter.feed(b"data: 1\r\r") == []
    assert splitter.tail() == b"data: 1\r\r"
    assert splitter.feed(b"d") == [b"data: 1\r\r"]
    assert splitter.tail() == b"d"


@pytest.mark.parametrize("chunk_bytes", [1, 3, 1000])
def test_an_event_may_be_as_large_as_allowed_and_no_larger(chunk_bytes: int) -> None:
    def feed(stream: bytes) -> list[bytes]:
        return split([stream[i : i + chunk_bytes] for i in range(0, len(stream), chunk_bytes)], 20)[0]

    fitting = b"data: " + b"x" * 12 + b"\n\n"
    assert feed(fitting * 3) == [fitting] * 3
    for stream in (b"data: " + b"x" * 13 + b"\n\n", b"y" * 21, b"a\r\n" * 7):
        with pytest.raises(EventTooLarge):
            feed(fitting + stream)


def test_the_events_before_one_that_is_too_large_are_not_lost() -> None:
    with pytest.raises(EventTooLarge) as caught:
        EventSplitter(10).feed(b"data: 1\n\ndata: 2\n\n" + b"z" * 11)
    assert caught.value.events == [b"data: 1\n\n", b"data: 2\n\n"]
    with pytest.raises(EventTooLarge) as caught:
        EventSplitter(10).feed(b"data: 4567890\n\n")
    assert caught.value.events == []


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (b'data: {"a": 1}\n\n', b'{"a": 1}'),
        (b"data: [DONE]\r\n\r\n", b"[DONE]"),
        (b"data:x\r\r", b"x"),
        (b"data:  x \n\n", b" x "),
        (b"data\n\n", b""),
        (b"data:\n\n", b""),
        (b"data: \n\n", b""),
        (b"data: a\ndata: b\r\ndata\ndata:c\n\n", b"a\nb\n\nc"),
        (b"data: a\n: comment\ndata: b\n\n", b"a\nb"),
        (b"event: ping\nid: 4\ndata: x\nretry: 5\n\n", b"x"),
        (b": keep-alive\n\n", None),
        (b"\n", None),
        (b"", None),
        (b"event: ping\n\n", None),
        (b"dataset: x\n\n", None),
        (b" data: x\n\n", None),
        (b"Data: x\n\n", None),
        (b"data : x\n\n", None),
        (b"\xef\xbb\xbfdata: x\n\n", b"x"),
        (b"data: a:b\n\n", b"a:b"),
        (b"data: \xff\x00\n\n", b"\xff\x00"),
        (b"data: unfinished", b"unfinished"),
        (b"data: a\rdata: b\n\n", b"a\nb"),
    ],
)
def test_data_is_read_as_specified(event: bytes, data: bytes | None) -> None:
    assert event_data(event) == data
