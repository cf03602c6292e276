"""The examples in docs/usage-feeds.md are read as the page says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from models_catalog.engines.feeds import FeedFormat, FeedOptions, Finish, parse_options, reader_of
from models_catalog.engines.feeds.tests.samples import ATTEMPT_ID, VALUES, vllm_middleware

PAGE = (Path(__file__).resolve().parents[4] / "docs" / "usage-feeds.md").read_text()
BLOCK = re.compile(r"<!-- (example|options): (\w+) -->\n```\w*\n(.*?)```", re.DOTALL)
BLOCKS = {(kind, name): text for kind, name, text in BLOCK.findall(PAGE)}


@pytest.mark.parametrize("name", ["ndjson", "csv", "cloudevents"])
def test_the_examples_are_read(name: str) -> None:
    format = FeedFormat(name)
    told = BLOCKS.get(("options", name))
    options = parse_options(format, yaml.safe_load(told)) if told else FeedOptions()
    entry = reader_of(format, options).read(BLOCKS["example", name].encode())
    assert entry is not None
    assert (entry.attempt_id, entry.prompt_tokens, entry.completion_tokens) == (ATTEMPT_ID, 18, 16)
    assert entry.finish is Finish.LENGTH
    assert entry.finished_at is not None
    assert entry.finished_at.timestamp() == VALUES["finished_unix"]


def test_the_middlewares_line_is_read() -> None:
    (line,) = [line for line in PAGE.splitlines() if line.startswith('{"v":1')]
    reader = reader_of(FeedFormat.VLLM_MIDDLEWARE, FeedOptions())
    entry, made = reader.read(line.encode()), reader.read(vllm_middleware(VALUES))
    assert entry is not None
    assert made is not None
    assert (entry.attempt_id, entry.prompt_tokens) == (made.attempt_id, made.prompt_tokens)


def test_every_format_has_its_row() -> None:
    for format in FeedFormat:
        assert f"`{format.value}`" in PAGE
