import hashlib
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.kit.clock import utc_now
from portal.kit.ids import (
    PREFIXES,
    InvalidPublicId,
    parse_public_id,
    partition_bound,
    public_id,
    transfer_id,
    uuid7,
    uuid7_time,
)

moments = st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001


def test_uuid7_has_its_version_its_variant_and_the_time() -> None:
    before = utc_now() - timedelta(milliseconds=1)
    made = [uuid7() for _ in range(1000)]
    after = utc_now()
    assert len(set(made)) == 1000
    for value in made:
        assert value.version == 7
        assert value.variant == "specified in RFC 4122"
        assert before <= uuid7_time(value) <= after


def test_uuid7_bits_are_random() -> None:
    ones = zeros = 0
    for _ in range(200):
        ones |= uuid7().int
        zeros |= ~uuid7().int
    fixed = (0xF << 76) | (0b11 << 62)
    random_bits = (1 << 80) - 1 & ~fixed
    assert ones & random_bits == random_bits
    assert zeros & random_bits == random_bits


@given(moments)
def test_a_partition_bound_is_the_lowest_id_of_its_millisecond(moment: datetime) -> None:
    bound = partition_bound(moment)
    assert bound.int & (1 << 80) - 1 == 0
    assert timedelta(0) <= moment - uuid7_time(bound) < timedelta(milliseconds=1)


def test_ids_lie_between_the_bounds_of_their_day() -> None:
    value = uuid7()
    day = uuid7_time(value).replace(hour=0, minute=0, second=0, microsecond=0)
    assert partition_bound(day) <= value < partition_bound(day + timedelta(days=1))


def test_a_partition_bound_is_the_same_in_every_time_zone() -> None:
    there = datetime(2026, 11, 24, 8, tzinfo=timezone(timedelta(hours=8)))
    assert partition_bound(there) == partition_bound(datetime(2026, 11, 24, tzinfo=UTC))
    assert partition_bound(there) == UUID("01a20ada-2c00-0000-0000-000000000000")


@pytest.mark.parametrize(
    "moment",
    [datetime(2026, 1, 1), datetime(1969, 12, 31, tzinfo=UTC)],  # noqa: DTZ001
)
def test_a_partition_bound_needs_an_aware_moment_since_1970(moment: datetime) -> None:
    with pytest.raises(ValueError, match=r"moment|aware"):
        partition_bound(moment)


def test_a_uuid_beyond_the_calendar_has_no_time() -> None:
    with pytest.raises(ValueError, match="10000"):
        uuid7_time(UUID(int=2**128 - 1))


@given(st.uuids(), st.sampled_from(sorted(PREFIXES.values())))
def test_public_ids_come_back(value: UUID, prefix: str) -> None:
    text = public_id(prefix, value)
    assert len(text) == len(prefix) + 27
    assert parse_public_id(prefix, text) == value


def test_a_public_id_looks_like_this() -> None:
    value = UUID("01a20f94-da31-7ffc-8a41-bacd9e085e77")
    assert public_id("req", value) == "req_01m87s9phhfzy8mgdtspf0gqkq"
    assert public_id("org", UUID(int=0)) == "org_" + "0" * 26
    assert public_id("org", UUID(int=2**128 - 1)) == "org_7" + "z" * 25


@given(st.lists(st.uuids(), min_size=2, max_size=2))
def test_public_ids_sort_like_their_uuids(pair: list[UUID]) -> None:
    assert (pair[0] < pair[1]) == (public_id("req", pair[0]) < public_id("req", pair[1]))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "req",
        "req_",
        "req_01m87s9phhfzy8mgdtspf0gqk",
        "req_01m87s9phhfzy8mgdtspf0gqkqq",
        "req_81m87s9phhfzy8mgdtspf0gqkq",
        "req_01M87S9PHHFZY8MGDTSPF0GQKQ",
        "req_01m87s9phhfzy8mgdtspf0gqku",
        "req_o1m87s9phhfzy8mgdtspf0gqkq",
        "req-01m87s9phhfzy8mgdtspf0gqkq",
        "REQ_01m87s9phhfzy8mgdtspf0gqkq",
        "org_01m87s9phhfzy8mgdtspf0gqkq",
        "req_01m87s9phhfzy8mgdtspf0gqk\n",
        "req_01m87s9phhfzy8mgdtspf0gqk_",
        "req_01m87s9phhfzy8mgdtspf0gqk٣",
        " req_1m87s9phhfzy8mgdtspf0gqkq",
    ],
)
def test_other_spellings_are_refused(text: str) -> None:
    with pytest.raises(InvalidPublicId):
        parse_public_id("req", text)


@given(st.text(alphabet="0123456789abcdefghijklmnopqrstuvwxyzABC_ \n", min_size=26, max_size=26))
def test_what_is_accepted_is_canonical(text: str) -> None:
    try:
        value = parse_public_id("req", f"req_{text}")
    except InvalidPublicId:
        return
    assert public_id("req", value) == f"req_{text}"


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0")))
def test_transfer_ids_are_half_a_digest(key: str) -> None:
    digest = hashlib.sha256(b"settle:" + key.encode()).hexdigest()
    # The very words of the SQL expression: the first 32 hexadecimal digits, cast to uuid.
    assert transfer_id("settle", key) == UUID(digest[:32])


def test_transfer_ids_never_change() -> None:
    assert transfer_id("top_up", "pi_123") == UUID("93c8961a-4969-2169-994f-66633c4ab574")


@pytest.mark.parametrize(("kind", "key"), [("a:b", "c"), ("a", "b\0"), ("a", "\ud800")])
def test_ambiguous_transfer_ids_are_refused(kind: str, key: str) -> None:
    with pytest.raises(ValueError, match=r"colon|NUL|surrogates"):
        transfer_id(kind, key)


def test_prefixes_are_distinct() -> None:
    assert len(set(PREFIXES.values())) == len(PREFIXES)
