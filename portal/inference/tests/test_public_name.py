"""The engine's name of a model never reaches a client, however the engine writes it."""

from __future__ import annotations

import json

import pytest

from portal.inference.public_name import PublicName

SLUG = "acme/model"


def name(upstream: str = "up") -> PublicName:
    return PublicName(SLUG, upstream_model=upstream)


@pytest.mark.parametrize("upstream", ["up", "/models/a b.gguf", 'quo"ted', "模型", SLUG])
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_events_of_any_spelling(upstream: str, separators: tuple[str, str]) -> None:
    """Also when the engine answers under another name than it was asked by, and then another."""
    names = name("asked")
    for engines_own in (upstream, upstream, "another", upstream):
        value = {"id": "1", "choices": [{"delta": {"content": '"model":"kept"'}}], "model": engines_own}
        event = f"data: {json.dumps(value, separators=separators)}\n\n".encode()
        assert json.loads(names.in_event(event)[6:]) == value | {"model": SLUG}


@pytest.mark.parametrize("is_first", [True, False])
def test_every_event_of_a_stream_is_renamed(is_first: bool) -> None:
    """Whether the name comes before what differs from event to event or behind it."""
    names = name()
    for number in range(9):
        choices = {"choices": [{"delta": {"content": f"{number}"}}]}
        value: dict[str, object] = {"model": "up", **choices} if is_first else {**choices, "model": "up"}
        shown = names.in_event(f"data: {json.dumps(value)}\n\n".encode())
        assert json.loads(shown[6:]) == value | {"model": SLUG}
        assert shown.endswith(b"}\n\n")


@pytest.mark.parametrize("event", [b": comment\n\n", b"data: [DONE]\n\n", b'data: {"choices":[]}\n\n'])
def test_events_without_a_name_stay_as_they_are(event: bytes) -> None:
    assert name().in_event(event) == event


def test_numbers_and_strings_of_answers_stay_as_they_were_written() -> None:
    body = b'{"id":"\\u6a21","model": "up","choices":[{"x":1.10,"n":12345678901234567890}],"timings":{"a":1}}'
    assert name().in_answer(body) == (
        b'{"id":"\\u6a21","model":"acme/model","choices":[{"x":1.10,"n":12345678901234567890}]}'
    )


def test_an_answer_that_cannot_be_taken_apart_is_renamed_all_the_same() -> None:
    body = b'{"\xff":1,"model":"up","choices":[]}'
    assert name().in_answer(body) == b'{"\xff":1,"model":"acme/model","choices":[]}'


def test_messages() -> None:
    assert name("tiny").in_text("The model `tiny` is too tiny.") == f"The model `{SLUG}` is too tiny."


def test_messages_that_name_the_model_without_quotes() -> None:
    names = name("Qwen/Qwen3-8B-Instruct")
    assert names.in_text("Qwen/Qwen3-8B-Instruct has no tools.") == f"{SLUG} has no tools."
    assert names.in_text("model=Qwen/Qwen3-8B-Instruct") == f"model={SLUG}"
    # Part of another name, and too short to be told from a word.
    assert names.in_text("Qwen/Qwen3-8B-Instruct-2507") == "Qwen/Qwen3-8B-Instruct-2507"
    assert name("the").in_text("the prompt is too long") == "the prompt is too long"


def test_data_of_several_lines_stays_one_event() -> None:
    lines = [b'{"message": {"model": "up", "id": "m"},', b'"usage": {', b'"input_tokens": 1}}']
    event = b"event: message_start\r\n" + b"".join(b"data: %b\r\n" % line for line in lines) + b"\r\n"
    shown = name().in_member(event, "message")
    assert shown.count(b"\n") == 3, "its name, one line of data and a blank line"
    assert json.loads(shown.partition(b"data: ")[2]) == {
        "message": {"model": SLUG, "id": "m"},
        "usage": {"input_tokens": 1},
    }
