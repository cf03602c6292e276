"""Lines and bodies that are wrong or meant to do harm: each is quarantined or refused with its reason, what
stands around it is taken, nothing of it is kept or told, and no money moves."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from models_catalog.engines.feeds import FeedFormat, LineProblem, UnreadableLine
from portal.kit.clock import utc_now
from portal.kit.ids import PREFIXES, public_id, uuid7
from portal.kit.secrets import SecretStore
from quotas.reconciliation.ingest.credentials import is_signed_by, is_token_of, new_token, signature_of
from quotas.reconciliation.ingest.folders import tail_feed
from quotas.reconciliation.ingest.identity import NotTaken
from quotas.reconciliation.ingest.pushes import TooManyUnreadable, take_push
from quotas.reconciliation.ingest.source import FeedSource
from quotas.reconciliation.ingest.tests.feeds import (
    attempt_name,
    entry_dict,
    make_feed,
    moment,
    ndjson_line,
    quarantine_of,
    records_of,
)
from quotas.tests.doors import admitted, settle_one
from tenants import queries as tenant_queries
from tests.database import connected, money_of, rows_of
from tests.factories import admission_row, enable, make_model, make_tenant, settlement_row

SECRET = "a prompt that nobody may see"
ANY = frozenset({*LineProblem, *NotTaken})
# Of each kind so many: 300 with the 20 forged proofs.
BY_KIND = 20


def id_at(milliseconds: int) -> str:
    number = (milliseconds % 2**48) << 80 | uuid7().int & (2**80 - 1)
    return public_id(PREFIXES["attempt"], UUID(int=number))


def changed(**values: Any) -> bytes:
    return json.dumps(entry_dict(**values) | {"prompt": SECRET}).encode()


def hostile_lines(chance: random.Random) -> Iterator[tuple[bytes, frozenset[str]]]:
    """A line, and the reasons that it may be quarantined for."""
    whole = changed()
    now_ms = int(utc_now().timestamp() * 1000)
    for number in range(BY_KIND):
        rubbish = (
            chance.randbytes(chance.randrange(1, 400)).replace(b"\n", b"\xff").strip(b" \t\r") or b"\xff"
        )
        yield rubbish, ANY
        yield whole[: chance.randrange(1, len(whole) - 1)], ANY
        yield changed(**{chance.choice(COUNTS): -1 - number}), frozenset({"negative"})
        yield (
            changed(unit=chance.choice(["characters", "", None, 7, "Tokens", SECRET])),
            frozenset({"wrong_unit"}),
        )
        yield (
            changed(
                **{chance.choice(COUNTS[:2]): chance.choice([1.5, "18", True, None, [1], {"a": 1}, "1e3"])}
            ),
            frozenset({"not_whole", "wrong_shape", "missing_field"}),
        )
        yield (
            changed(**{chance.choice(COUNTS[:2]): 2**31 + number * 10**18}),
            frozenset({"too_big", "not_json"}),
        )
        yield changed(cached_tokens=19 + number), frozenset({"inconsistent"})
        bad_id = chance.choice(["", "x" * 201, "a\0b", "a\tb", "a\nb", "\u202e" + SECRET, "\ud800", 7, None])
        yield (
            whole.replace(json.dumps(json.loads(whole)["wire_id"]).encode(), json.dumps(bad_id).encode()),
            frozenset({"bad_id", "wrong_shape", "missing_field", "not_json", "not_utf8"}),
        )
        yield (
            changed(
                finished_at=chance.choice(["1970-01-01T00:00:00Z", "9999-12-31T23:59:59Z", SECRET, 7, {}])
            ),
            frozenset({"bad_time", "wrong_shape"}),
        )
        ahead = utc_now() + timedelta(hours=chance.randrange(2, 10_000))
        yield changed(finished_at=ahead.isoformat()), frozenset({"out_of_range"})
        yield changed(wire_id=id_at(now_ms + chance.randrange(7_200_000, 2**46))), frozenset({"out_of_range"})
        yield changed(wire_id=id_at(chance.randrange(now_ms // 2))), frozenset({"out_of_range"})
        yield changed(wire_id=f"theirs-{number}", finished_at=None), frozenset({"no_time"})
        yield b'{"wire_id":' + b"[" * 10 ** chance.randrange(2, 5), ANY


COUNTS = ("prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens")


def test_lines_of_a_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    hostile = list(hostile_lines(random.Random(7)))
    assert len(hostile) == 280
    good = [ndjson_line() for _ in range(len(hostile) + 1)]
    content = good[0]
    offsets = {}
    for (line, reasons), between in zip(hostile, good[1:], strict=True):
        offsets[len(content)] = (line, reasons)
        content += line + b"\n" + between
    (tmp_path / "usage.ndjson").write_bytes(content)
    feed = make_feed(folder=tmp_path)
    read = tail_feed(feed=feed, now=tenant_queries.database_time())
    assert read.is_whole
    assert (read.taken.inserted, read.taken.quarantined) == (len(good), len(hostile))
    rows = quarantine_of(feed)
    assert len(rows) < len(hostile) + 1
    for row in rows:
        line, reasons = offsets[row["offset"]]
        assert row["reason"] in reasons, (row["reason"], line[:200])
        assert row["length"] == len(line) + 1
    assert len(records_of(feed)) == len(good)
    assert SECRET not in str(rows)
    assert SECRET not in caplog.text


def test_the_same_pushed_one_by_one(caplog: pytest.LogCaptureFixture) -> None:
    feed = make_feed()
    for line, reasons in hostile_lines(random.Random(8)):
        pushed = take_push(
            feed=feed, body=line, content_type="text/plain", now=tenant_queries.database_time()
        )
        assert pushed.taken.entries == 0
        assert {problem.reason for problem in pushed.problems} <= reasons
        assert pushed.problems
        assert SECRET not in str(pushed)
    rows = quarantine_of(feed)
    assert SECRET not in str(rows)
    assert all(len(row["body"]) <= 4000 for row in rows)
    assert not records_of(feed)
    assert SECRET not in caplog.text


def test_forged_proofs() -> None:
    feed = make_feed()
    secrets = _secrets()
    token = new_token(feed.id)
    signed = FeedSource(
        **{name: getattr(feed, name) for name in FeedSource.__slots__ if name != "credential_encrypted"},
        credential_encrypted=secrets.encrypt(token),
    )
    body, now_s = b"body", 1_800_000_000.0
    timestamp = "1800000000"
    right = signature_of(token=token, timestamp=timestamp, complete_to="", body=body)

    def proves(feed: FeedSource | None, at: str, signature: str, what: bytes = body) -> bool:
        return is_signed_by(
            feed,
            timestamp=at,
            complete_to="",
            signature=signature,
            body=what,
            now_s=now_s,
            secrets=secrets,
        )

    assert proves(signed, timestamp, f"v1={right}")
    forged = [
        *(
            (signed, timestamp, f"v1={right[:at]}{'0' if right[at] != '0' else '1'}{right[at + 1 :]}")
            for at in range(8)
        ),
        (signed, timestamp, right),
        (signed, timestamp, f"v1={right.upper()}"),
        (signed, timestamp, f"v1={right}0"),
        (signed, timestamp, ""),
        (signed, "1800000001", f"v1={right}"),
        (
            signed,
            "1799999699",
            f"v1={signature_of(token=token, timestamp='1799999699', complete_to='', body=body)}",
        ),
        (
            signed,
            "1800000301",
            f"v1={signature_of(token=token, timestamp='1800000301', complete_to='', body=body)}",
        ),
        (signed, "١٨٠٠٠٠٠٠٠٠", f"v1={right}"),
        (signed, "-1", f"v1={right}"),
        (feed, timestamp, f"v1={right}"),
        (None, timestamp, f"v1={right}"),
        (signed, timestamp, f"v1={signature_of(token='', timestamp=timestamp, complete_to='', body=body)}"),
    ]
    assert len(forged) == 20
    assert not any(proves(*each) for each in forged)
    assert not proves(signed, timestamp, f"v1={right}", b"Body")
    assert is_token_of(signed, token=token, secrets=secrets)
    assert not is_token_of(signed, token=new_token(feed.id), secrets=secrets)
    assert not is_token_of(signed, token=token + "ä", secrets=secrets)
    assert not is_token_of(feed, token=token, secrets=secrets)


def _secrets() -> SecretStore:
    from django.conf import settings

    assert settings.SECRET_STORE is not None
    return settings.SECRET_STORE


def test_attempts_of_others_are_foreign_and_cost_nobody_anything() -> None:
    """Backend B names calls that backend A served: of whoever's organization."""
    model, tenant = make_model(), make_tenant()
    enable(tenant, model)
    attempts = []
    with connected("dataplane") as connection:
        for _ in range(20):
            row = admitted(connection, admission_row(tenant, model))
            settle_one(connection, settlement_row(row, prompt_tokens=10, completion_tokens=5))
            attempts.append(row.attempt_id)
    before = money_of(tenant.id)
    usage = rows_of("quotas_usagerecord", tenant_id=tenant.id)
    feed = make_feed()
    body = b"".join(
        ndjson_line(attempt_name(attempt), prompt_tokens=100, completion_tokens=100) for attempt in attempts
    )
    pushed = take_push(feed=feed, body=body, content_type="text/plain", now=tenant_queries.database_time())
    assert (pushed.taken.inserted, pushed.taken.foreign) == (20, 20)
    verdicts = {row["verdict"] for row in rows_of("quotas_feedrecord", backend_id=feed.backend_id)}
    assert verdicts == {"FOREIGN"}
    assert money_of(tenant.id) == before
    assert rows_of("quotas_usagerecord", tenant_id=tenant.id) == usage


def test_ids_that_look_like_commands_are_kept_as_they_are() -> None:
    ids = [
        "\\.",
        "\\N",
        "'; DROP TABLE quotas_feedrecord; --",
        "a\\tb",
        "%s",
        "{0}",
        "😀 水",
        "\\\\",
        '"',
        "\\x41",
    ]
    feed = make_feed()
    body = b"".join(ndjson_line(name, finished_at=moment().isoformat()) for name in ids)
    pushed = take_push(feed=feed, body=body, content_type="text/plain", now=tenant_queries.database_time())
    assert pushed.taken.foreign == len(ids)
    kept = {row["wire_id"] for row in rows_of("quotas_feedrecord", backend_id=feed.backend_id)}
    assert kept == set(ids)


def test_a_body_of_rubbish_is_refused_as_a_whole() -> None:
    feed = make_feed()
    now = tenant_queries.database_time()
    with pytest.raises(TooManyUnreadable):
        take_push(feed=feed, body=b"x\n" * 5000, content_type="text/plain", now=now)
    events = make_feed(FeedFormat.CLOUDEVENTS)
    with pytest.raises(UnreadableLine):
        take_push(feed=events, body=b"[" * 10**6, content_type="application/cloudevents-batch+json", now=now)
    assert not quarantine_of(feed)
