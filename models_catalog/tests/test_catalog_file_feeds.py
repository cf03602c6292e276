"""Usage feeds in catalog files."""

from __future__ import annotations

import pytest

from models_catalog.catalog_file import CatalogFileError
from models_catalog.models import UsageFeed
from models_catalog.tests.catalog_files import BACKEND, POOL, apply, fresh_name
from tenants.scope import role_scope

pytestmark = pytest.mark.usefixtures("database")

COLUMNS = "columns: {wire_id: id, prompt_tokens: usage.in, completion_tokens: usage.out}"


def file(n: str, *feeds: str) -> str:
    """A backend with these feeds, each a flow mapping."""
    backend = BACKEND.format(n=n).rstrip("}") + ", feeds: [" + ", ".join(feeds) + "]}"
    return f"pools:\n{POOL.format(n=n)}\nbackends:\n{backend}\n"


def stored(code: str) -> UsageFeed:
    with role_scope("operator"):
        return UsageFeed.objects.select_related("backend").get(code=code)


def refused(text: str) -> str:
    with pytest.raises(CatalogFileError) as caught:
        apply(text)
    return str(caught.value)


def test_feeds_are_made_changed_and_left_alone() -> None:
    n = fresh_name()
    text = file(
        n,
        f"{{format: ndjson, folder: '${{FEEDS}}/one', {COLUMNS}, time_unit: unix_ms, "
        "finishes: {done: STOP}, time_zone: Asia/Shanghai, grace_s: 60}",
        f"{{code: feed-{n}, format: sglang_export, folder: /feeds/two}}",
    )
    environ = {"FEEDS": "/var/feeds"}
    lines = apply(text, environ=environ).lines
    assert f"+ feed backend-{n}-ndjson" in lines
    assert f"+ feed feed-{n}" in lines
    feed = stored(f"backend-{n}-ndjson")
    assert (feed.backend.code, feed.folder, feed.time_zone) == (
        f"backend-{n}",
        "/var/feeds/one",
        "Asia/Shanghai",
    )
    assert (feed.grace_s, feed.is_enabled) == (60, True)
    assert feed.columns == {
        "columns": {"wire_id": "id", "prompt_tokens": "usage.in", "completion_tokens": "usage.out"},
        "finishes": {"done": "STOP"},
        "time_unit": "unix_ms",
    }
    assert apply(text, environ=environ).lines == ()
    assert apply(file(n)).lines == ()
    assert apply(file(n, f"{{code: feed-{n}, format: sglang_export, enabled: false, folder: ''}}")).lines == (
        f'~ feed feed-{n} folder /feeds/two → "", is_enabled True → False',
    )
    changed = apply(file(n, f"{{format: ndjson, {COLUMNS.replace('usage.in', 'in')}}}")).lines
    assert changed == (f"~ feed backend-{n}-ndjson columns changed",)
    assert stored(f"backend-{n}-ndjson").grace_s == 60


@pytest.mark.parametrize(
    ("feed", "said"),
    [
        ("{}", "format: is required"),
        ("{format: nothing}", "must be one of sglang_log"),
        ("{format: ndjson}", "columns lacks 'wire_id'"),
        ("{format: csv, " + COLUMNS + "}", "header lacks the column 'id'"),
        ("{format: sglang_log, " + COLUMNS + "}", "has columns of its own"),
        ("{format: sglang_log, folder: feeds}", "must be an absolute path"),
        ("{format: sglang_log, folder: '/${NOT_THERE}'}", "NOT_THERE is not set"),
        ("{format: sglang_log, time_zone: Middle/Earth}", "no IANA time zone"),
        ("{format: sglang_log, grace_s: 604801}", "must be from 0 to 604800"),
        ("{format: sglang_log, enabled: maybe}", "must be one of true, false"),
        ("{format: ndjson, columns: [a]}", "must be a mapping of texts"),
        ("{format: ndjson, columns: {wire_id: {a: b}}}", "must be a single value"),
        ("{format: ndjson, columns: {wire_id: a, prompt_tokens: b, completion_tokens: c, more: d}}", "more"),
        ("{format: sglang_log}, {format: sglang_log}", "is a feed of this file already"),
        ("{format: sglang_log, credential: secret}", "credential: is not a field here"),
    ],
)
def test_mistakes_are_told_with_their_place(feed: str, said: str) -> None:
    answer = refused(file(fresh_name(), feed))
    assert said in answer
    assert "catalog.yaml:" in answer


def test_a_code_belongs_to_one_backend() -> None:
    n, m = fresh_name(), fresh_name()
    apply(file(n, f"{{code: feed-{n}, format: sglang_log}}"))
    assert "another backend's feed" in refused(file(m, f"{{code: feed-{n}, format: sglang_log}}"))
