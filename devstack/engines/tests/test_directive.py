"""The directive language is strict: what it does not understand, it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from devstack.engines.directive import FAULTS, Directive, DirectiveError, Fault, parse_directive
from devstack.engines.testing import sim
from devstack.engines.tokens import completion_text, count_prompt_tokens, last_user_text, token_text


def test_everything_at_once():
    text = "Tell [[sim tokens=40 rate=200.5 ttft_ms=50 cached=10 reasoning=5 prompt=99 overrun=3]] me"
    assert parse_directive(text) == Directive(
        tokens=40, rate_per_s=200.5, ttft_ms=50, cached=10, reasoning=5, prompt=99, overrun=3
    )


def test_without_a_directive_the_defaults_hold():
    assert parse_directive("Nothing to see [here]") == Directive()
    assert parse_directive("[[sim]]") == Directive()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("reset_before", Fault("reset_before", text="reset_before")),
        ("close_after:7", Fault("close_after", number=7, text="close_after:7")),
        ("usage_lies:+5", Fault("usage_lies", number=5, text="usage_lies:+5")),
        ("usage_lies:-2", Fault("usage_lies", number=-2, text="usage_lies:-2")),
        ("slow_headers", Fault("slow_headers", number=2000, text="slow_headers")),
        ("nonsense:html", Fault("nonsense", kind="html", text="nonsense:html")),
        ("status:429", Fault("status", number=429, text="status:429")),
    ],
)
def test_faults(text: str, expected: Fault):
    assert parse_directive(f"[[sim fault={text}]]").fault == expected


@pytest.mark.parametrize(
    "inside",
    [
        " token=1",
        " tokens=-1",
        " tokens=1.5",
        " tokens=1000001",
        " tokens=1 tokens=2",
        " tokens=",
        " tokens",
        "tokens=1",
        " rate=fast",
        " rate=1e9",
        " ttft_ms=120001",
        " fault=explode",
        " fault=reset_after",
        " fault=reset_after:x",
        " fault=reset_before:1",
        " fault=status:418",
        " fault=usage_lies:5",
        " fault=big_line:99999999",
        " fault=nonsense:poem",
        " [[sim tokens=1]]",
    ],
)
def test_refused(inside: str):
    with pytest.raises(DirectiveError):
        parse_directive(f"please [[sim{inside}]]")


def test_an_unclosed_directive_is_refused():
    with pytest.raises(DirectiveError, match="malformed"):
        parse_directive("[[sim tokens=1")


def test_the_helper_writes_what_the_parser_reads():
    assert sim(tokens=40, fault="hang_after:2") == "[[sim tokens=40 fault=hang_after:2]]"
    with pytest.raises(DirectiveError):
        sim(tokns=40)


def test_every_fault_has_an_argument_kind():
    assert set(FAULTS.values()) <= {"none", "tokens", "status", "kind", "signed", "bytes", "ms"}


def test_prompt_tokens():
    parts = [{"type": "text", "text": "three more words"}, {"type": "image_url", "image_url": {"url": "x"}}]
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "two words"},
        {"role": "user", "content": parts},
    ]
    assert count_prompt_tokens(messages) == 3 + (4 + 2) + (4 + 3 + 16)
    assert last_user_text(messages) == "three more words"
    assert last_user_text([{"role": "system", "content": "x"}]) == ""


def test_completion_tokens_are_countable():
    joined = "".join(token_text(step, reasoning_tokens=2) for step in range(3, 6))
    assert joined == "w1 w2 w3"
    assert completion_text(5, 2) == ("r1 r2", "w1 w2 w3")
