import asyncio
import io
import json
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest

from portal.kit import logs
from portal.kit.secrets import new_api_key

logger = logging.getLogger("tests.logs")


@pytest.fixture
def lines() -> Iterator[Callable[[], list[dict[str, Any]]]]:
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    stream = io.StringIO()
    logs.configure("gateway", "info", stream=stream)
    logs.clear()
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    logs.clear()
    logging.captureWarnings(False)
    root.setLevel(level)
    root.handlers[:] = handlers


Lines = Callable[[], list[dict[str, Any]]]


def test_a_line_says_when_what_where_and_for_whom(lines: Lines) -> None:
    logger.info("served %d tokens", 5)
    (line,) = lines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("ts"))
    assert line == {
        "level": "info",
        "service": "gateway",
        "logger": "tests.logs",
        "event": "served 5 tokens",
        "request_id": None,
    }


def test_bound_fields_and_extras_are_added(lines: Lines) -> None:
    logs.bind(request_id="req_1")
    logs.bind(tenant_id=UUID(int=1))
    logger.info("a", extra={"prompt_tokens": 7, "ratio": 0.5, "ok": True, "none": None, "list": [1, ("b",)]})
    logs.clear()
    logger.warning("b", extra={"request_id": "req_2", "level": "mine", "prompt_tokens": float("nan")})
    first, second = lines()
    assert first["request_id"] == "req_1"
    assert first["tenant_id"] == "00000000-0000-0000-0000-000000000001"
    assert (first["prompt_tokens"], first["ratio"], first["ok"], first["none"]) == (7, 0.5, True, None)
    assert first["list"] == [1, ["b"]]
    assert (second["level"], second["level_"], second["request_id"]) == ("warning", "mine", "req_2")
    assert second["prompt_tokens"] == "nan"
    assert "tenant_id" not in second


async def test_tasks_do_not_see_what_others_bind(lines: Lines) -> None:
    async def call(number: int) -> None:
        logs.bind(request_id=f"req_{number}")
        await asyncio.sleep(0)
        logger.info("%d", number)

    await asyncio.gather(*(call(number) for number in range(5)))
    assert {line["event"]: line["request_id"] for line in lines()} == {str(n): f"req_{n}" for n in range(5)}


@pytest.mark.parametrize(
    "name",
    ["authorization", "Authorization", "api_key", "token", "secret", "password", "email", "prompt",
     "messages", "content", "body", "user_email", "x-api-key", "stripe_secret", "request_body", "Set-Cookie"],
)  # fmt: skip
def test_sensitive_fields_lose_their_value(lines: Lines, name: str) -> None:
    logs.bind(**{name: "hush"})
    logger.info("a", extra={f"outer_{name}": "hush", "nested": {"deeper": [{name: "hush", "fine": 1}]}})
    (line,) = lines()
    assert "hush" not in json.dumps(line)
    assert line["nested"]["deeper"][0] == {name: logs.REDACTED, "fine": 1}


@pytest.mark.parametrize(
    "name", ["prompt_tokens", "max_tokens", "content_length", "api_key_id", "token_class"]
)
def test_fields_that_only_sound_sensitive_stay(lines: Lines, name: str) -> None:
    logger.info("a", extra={name: "shown"})
    assert lines()[0][name] == "shown"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("mail to jane.doe+x@mail.example.org now", "mail to [redacted] now"),
        ("Authorization: Bearer abc.def-ghi", "Authorization: Bearer [redacted]"),
        ("postgresql://app:pass/word@db:5432/x", "postgresql://app:pass/word@db:5432/x"),
        ("postgresql://app:hush@db:5432/x", "postgresql://app:[redacted]@db:5432/x"),
        ("sk_live_0123456789 whsec_0123456789", "[redacted] [redacted]"),
        ("duplicate key\nDETAIL:  Key (name)=(Jane) exists.\nEND", "duplicate key\nDETAIL:[redacted]\nEND"),
        ("user@localhost and @mention", "user@localhost and @mention"),
    ],
)
def test_texts_lose_what_is_recognizably_sensitive(lines: Lines, text: str, clean: str) -> None:
    logger.info("%s", text, extra={"detail": text})
    (line,) = lines()
    assert (line["event"], line["detail"]) == (clean, clean)


def test_an_api_key_keeps_the_beginning_of_its_id_only(lines: Lines) -> None:
    made = new_api_key(UUID("01a20f94-da31-7ffc-8a41-bacd9e085e77"))
    logger.info("got %s!", made.token)
    assert lines()[0]["event"] == "got slc_01m87s9p[redacted]!"


def test_exceptions_are_told_without_the_values_of_rows(lines: Lines) -> None:
    error = "no user a@example.org\nDETAIL: Failing row contains (Jane)"
    try:
        raise ValueError(error)
    except ValueError:
        logger.exception("failed")
    (line,) = lines()
    assert line["event"] == "failed"
    assert "Traceback" in line["exc_info"]
    assert "ValueError: no user [redacted]" in line["exc_info"]
    assert "Jane" not in line["exc_info"]


def test_long_texts_and_large_structures_are_cut(lines: Lines) -> None:
    logger.info("x" * 100_000, extra={"many": list(range(1000)), "raw": b"bytes", "deep": [[[[[["deep"]]]]]]})
    logger.info("%s", "y" * 7_995 + "jane@example.org")
    cut, halved = lines()
    assert cut["event"] == "x" * 8000 + "…"
    assert len(cut["many"]) == 50
    assert cut["raw"] == "[5 bytes]"
    assert "jane" not in halved["event"]


def test_hostile_texts_cost_no_more_than_their_length(lines: Lines) -> None:
    for text in ("a." * 4000, "a@" * 4000, "a@a." * 2000, "://a:" * 1600, "bearer " * 1100, "@" * 8000):
        logger.info("%s", text)
    assert len(lines()) == 6


def test_dictionaries_as_messages_are_fields(lines: Lines) -> None:
    logger.info({"prompt": "hush", "count": 1})
    (line,) = lines()
    assert (line["event"], line["prompt"], line["count"]) == ("", logs.REDACTED, 1)


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("hush")

    __repr__ = __str__


@dataclass
class Wrapped:
    email: str


def test_a_wrong_call_still_makes_a_line(lines: Lines, capsys: pytest.CaptureFixture[str]) -> None:
    # The handlers of the test runner fail on purpose when a log call is wrong.
    root = logging.getLogger()
    root.handlers[:] = [handler for handler in root.handlers if isinstance(handler, logs._JsonHandler)]
    template = "%d tokens for %s"
    logger.info(template, "hush")
    logger.info("odd", extra={"value": Unprintable()})
    logger.info("object", extra={"value": Wrapped("jane@example.org")})
    wrong, odd, wrapped = lines()
    assert (wrong["event"], wrong["log_error"]) == ("%d tokens for %s", "TypeError")
    assert (odd["event"], odd["log_error"]) == ("odd", "RuntimeError")
    assert "jane" not in json.dumps(wrapped)
    assert capsys.readouterr().err == ""


def test_configuring_again_replaces(lines: Lines) -> None:
    stream = io.StringIO()
    logs.configure("worker", "ERROR", stream=stream)
    logger.warning("quiet")
    logger.error("loud")
    assert lines() == []
    assert [json.loads(line)["service"] for line in stream.getvalue().splitlines()] == ["worker"]


def test_an_unknown_level_is_a_mistake(lines: Lines) -> None:
    with pytest.raises(ValueError, match="LOUD"):
        logs.configure("gateway", "loud")


def test_warnings_are_lines_too(lines: Lines) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        logs.configure("gateway", "info", stream=(stream := io.StringIO()))
        warnings.warn("worn out", UserWarning, stacklevel=1)
        logging.captureWarnings(False)
    line = json.loads(stream.getvalue())
    assert (line["level"], line["logger"]) == ("warning", "py.warnings")
    assert "UserWarning: worn out" in line["event"]


@pytest.mark.parametrize(
    "path", ["/invitations/", "/accounts/confirm-email/", "/accounts/password/reset/key/"]
)
def test_links_that_let_people_in_lose_what_lets_in(lines: Lines, path: str) -> None:
    """Django writes the addresses of what it refuses, such as forms without their CSRF token."""
    logger.warning(
        "Forbidden (CSRF cookie not set.): %s", f"{path}NQ:1w-S_secret/", extra={"path": f"{path}x"}
    )
    logger.warning("a member's page", extra={"path": "/o/org_1/members/invitations/inv_1/resend"})
    refused, page = lines()
    assert refused["event"] == f"Forbidden (CSRF cookie not set.): {path}{logs.REDACTED}/"
    assert refused["path"] == path + logs.REDACTED
    assert page["path"].endswith("/invitations/inv_1/resend")
