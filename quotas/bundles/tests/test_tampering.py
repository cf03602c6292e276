"""No bit of a bundle can change, and nothing can be put in or taken out, without the checker saying so."""

from __future__ import annotations

import hashlib
import io
import json
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portal.kit.signing import SigningKey, new_seed
from quotas.bundles.archive import CORRECTIONS, MANIFEST, PRICES, SIGNATURE, SIGNED_PREFIX, USAGE, Archive
from quotas.bundles.tests.checker import problems_of, run_script, verify_bundle
from quotas.bundles.tests.stage import make_bundle, public_key
from quotas.bundles.tests.test_bundles import use
from tests.factories import ModelFixture, TenantFixture, enable, make_tenant

DATA = (USAGE, CORRECTIONS, PRICES)
OURS = SigningKey.of_seed(1, new_seed())


@pytest.fixture(scope="module")
def bundle(database: None, model: ModelFixture, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.database import connected

    tenant: TenantFixture = make_tenant()
    enable(tenant, model)
    with connected("dataplane") as dataplane:
        use(tenant, model, dataplane)
    return make_bundle(tenant, tmp_path_factory.mktemp("bundle"))


def contents(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewritten(
    tmp_path: Path, original: Path, change: Callable[[dict[str, Any]], None], key: SigningKey
) -> Path:
    """The bundle with other contents, all digests computed anew, signed with a key."""
    texts: dict[str, Any] = {name: content.decode() for name, content in contents(original).items()}
    facts = json.loads(texts[MANIFEST])
    for name in ("format", "version", "key", "files", "archive"):
        facts.pop(name)
    texts["facts"] = facts
    change(texts)
    path = tmp_path / "rewritten.zip"
    with path.open("wb+") as file, Archive(file) as archive:
        for name in DATA:
            with archive.entry(name) as entry:
                entry.write(texts[name])
        archive.seal(texts["facts"], key)
    return path


# --- Without the key -------------------------------------------------------------------------------


def test_every_single_bit_counts(bundle: Path, tmp_path: Path) -> None:
    """One bit flipped at each of many places, and at every place of what frames the files."""
    original = bundle.read_bytes()
    chooser = random.Random(7)
    ends = range(len(original) - 400, len(original))
    places = sorted({*chooser.sample(range(len(original)), 500), *range(40), *ends})
    path = tmp_path / "flipped.zip"
    for place in places:
        changed = bytearray(original)
        changed[place] ^= 1 << chooser.randrange(8)
        path.write_bytes(changed)
        assert problems_of(path, public_key()), f"byte {place} does not count"


def test_one_digit_changed_in_any_file(bundle: Path, tmp_path: Path) -> None:
    """In the files as they are read, packed again by an honest hand that has no key."""
    chooser = random.Random(11)
    files = contents(bundle)
    for name in (*DATA, MANIFEST):
        digits = [place for place, byte in enumerate(files[name]) if chr(byte).isdigit()]
        for place in chooser.sample(digits, min(40, len(digits))):
            changed = bytearray(files[name])
            changed[place] = ord("0") + (changed[place] - ord("0") + chooser.randrange(1, 10)) % 10
            path = tmp_path / "digit.zip"
            with zipfile.ZipFile(path, "w") as archive:
                for each, content in files.items():
                    method = zipfile.ZIP_DEFLATED if each in DATA else zipfile.ZIP_STORED
                    info = zipfile.ZipInfo(each, date_time=(1980, 1, 1, 0, 0, 0))
                    info.external_attr = 0o600 << 16
                    archive.writestr(info, bytes(changed) if each == name else content, method)
            assert problems_of(path, public_key()), (name, place)


def test_the_same_bundle_packed_by_us_is_the_same(bundle: Path, tmp_path: Path) -> None:
    """So that the tests above fail for what they change and for nothing else."""
    assert problems_of(bundle, public_key()) == []
    again = rewritten(tmp_path, bundle, lambda texts: None, OURS)
    assert problems_of(again, OURS.public.hex) == []


def test_signed_again_with_another_key(bundle: Path, tmp_path: Path) -> None:
    forged = rewritten(tmp_path, bundle, lambda texts: None, SigningKey.of_seed(9, new_seed()))
    (problem,) = problems_of(forged, public_key())
    assert "you trust" in problem
    told = run_script(str(forged), "--key", public_key())
    assert (told.returncode, told.stdout.splitlines()[0][:9]) == (1, "NOT VALID")


def test_another_key_under_our_name(bundle: Path, tmp_path: Path) -> None:
    files = contents(bundle)
    files[SIGNATURE] = OURS.sign(SIGNED_PREFIX + files[MANIFEST]).hex().encode() + b"\n"
    original = bundle.read_bytes()
    at = original.rindex(contents(bundle)[SIGNATURE])
    path = tmp_path / "forged.zip"
    path.write_bytes(original[:at] + files[SIGNATURE] + original[at + len(files[SIGNATURE]) :])
    assert problems_of(path, public_key())


# --- With the key: what is signed must be right, too -------------------------------------------------

CHARGED = "charged_nanos"


def _line(texts: dict[str, Any], number: int) -> dict[str, str]:
    rows = texts[USAGE].splitlines()
    return dict(zip(rows[0].split(","), rows[number].split(","), strict=True))


def _set(texts: dict[str, Any], number: int, **cells: str) -> None:
    rows = texts[USAGE].splitlines()
    row = _line(texts, number) | cells
    rows[number] = ",".join(row.values())
    texts[USAGE] = "\n".join(rows) + "\n"


def _drop_line(texts: dict[str, Any]) -> None:
    rows = texts[USAGE].splitlines()
    texts[USAGE] = "\n".join(rows[:1] + rows[2:]) + "\n"


def _double_line(texts: dict[str, Any]) -> None:
    rows = texts[USAGE].splitlines()
    texts[USAGE] = "\n".join([*rows[:2], rows[1], *rows[2:]]) + "\n"


def _swap_lines(texts: dict[str, Any]) -> None:
    rows = texts[USAGE].splitlines()
    texts[USAGE] = "\n".join([rows[0], rows[2], rows[1], *rows[3:]]) + "\n"


def _dearer(texts: dict[str, Any]) -> None:
    told = json.loads(texts[PRICES])
    told["prices"][0]["lines"][0]["price_nanos_per_million"] += 10**6
    texts[PRICES] = json.dumps(told)


def _without_price(texts: dict[str, Any]) -> None:
    texts[PRICES] = json.dumps({"prices": []})


def _price_of_later(texts: dict[str, Any]) -> None:
    told = json.loads(texts[PRICES])
    told["prices"][0]["active_from"] = "2999-01-01T00:00:00.000000Z"
    texts[PRICES] = json.dumps(told)


def _one_more_nano(texts: dict[str, Any]) -> None:
    """In the line and in every total: only the price says that it is wrong."""
    line = _line(texts, 1)
    _set(texts, 1, **{name: str(int(line[name]) + 1) for name in ("cost_nanos", CHARGED, "granted_nanos")})
    totals = texts["facts"]["totals"]
    for sums in (totals, totals["models"][line["model"]]):
        for name in ("cost_nanos", CHARGED, "granted_nanos"):
            sums[name] += 1


def _other_total(texts: dict[str, Any]) -> None:
    texts["facts"]["totals"][CHARGED] += 1


def _other_model_total(texts: dict[str, Any]) -> None:
    next(iter(texts["facts"]["totals"]["models"].values()))["calls"] += 1


def _other_period(texts: dict[str, Any]) -> None:
    texts["facts"]["period"]["to"] = texts["facts"]["period"]["from"]


def _late_total(texts: dict[str, Any]) -> None:
    texts["facts"]["late_corrections"][CHARGED] += 1


def _without_corrections(texts: dict[str, Any]) -> None:
    texts[CORRECTIONS] = texts[CORRECTIONS].splitlines()[0] + "\n"


def _half_a_correction(texts: dict[str, Any]) -> None:
    rows = texts[CORRECTIONS].splitlines()
    texts[CORRECTIONS] = "\n".join([rows[0], *rows[2:]]) + "\n"


def _other_columns(texts: dict[str, Any]) -> None:
    texts[USAGE] = texts[USAGE].replace("prompt_tokens", "prompt_token", 1)


def _without_last_newline(texts: dict[str, Any]) -> None:
    texts[USAGE] = texts[USAGE].rstrip("\n")


def _other_transaction(texts: dict[str, Any]) -> None:
    _set(texts, 1, transaction=_line(texts, 2)["transaction"])


def _other_policy(texts: dict[str, Any]) -> None:
    _set(texts, 1, billed="NOTHING")


def _negative(texts: dict[str, Any]) -> None:
    _set(texts, 1, cached_tokens="-1")


def _lower_ceiling(texts: dict[str, Any]) -> None:
    _set(texts, 1, ceiling_nanos="1")


def _other_currency(texts: dict[str, Any]) -> None:
    texts["facts"]["currency"] = "CNY"


CHANGES = [
    _drop_line,
    _double_line,
    _swap_lines,
    _dearer,
    _without_price,
    _price_of_later,
    _one_more_nano,
    _other_total,
    _other_model_total,
    _other_period,
    _late_total,
    _without_corrections,
    _half_a_correction,
    _other_columns,
    _without_last_newline,
    _other_transaction,
    _other_policy,
    _negative,
    _lower_ceiling,
    _other_currency,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__.strip("_"))
def test_what_was_signed_wrongly_is_found(
    bundle: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    assert problems_of(rewritten(tmp_path, bundle, change, OURS), OURS.public.hex)


@settings(deadline=None)
@given(data=st.data())
def test_any_other_number_in_a_line_is_found(bundle: Path, data: st.DataObject) -> None:
    """Even by whoever holds the key: the line no longer agrees with its price, the totals or the others."""
    rows = contents(bundle)[USAGE].decode().splitlines()
    number = data.draw(st.integers(1, len(rows) - 1))
    column = data.draw(st.sampled_from([*verify_bundle.TOKENS, *verify_bundle.AMOUNTS, "revision"]))
    value = data.draw(st.integers(0, 10**7))
    line = dict(zip(rows[0].split(","), rows[number].split(","), strict=True))
    if int(line[column]) == value:
        return
    rows[number] = ",".join((line | {column: str(value)}).values())

    def change(texts: dict[str, Any]) -> None:
        texts[USAGE] = "\n".join(rows) + "\n"

    assert problems_of(rewritten(bundle.parent, bundle, change, OURS), OURS.public.hex)


# --- Archives that mean harm -------------------------------------------------------------------------


def _zip(path: Path, files: list[tuple[str, bytes]]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files:
            archive.writestr(name, content)
    return path


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_unknown_double_and_climbing_names(bundle: Path, tmp_path: Path) -> None:
    files = list(contents(bundle).items())
    for changed in (
        files[:-1],
        [*files, ("more.txt", b"x")],
        [*files[:-1], files[0]],
        [("../usage.csv", files[0][1]), *files[1:]],
        [("/usage.csv", files[0][1]), *files[1:]],
        [files[1], files[0], *files[2:]],
        [],
    ):
        (problem, *_) = problems_of(_zip(tmp_path / "z.zip", changed), public_key())
        assert "archive" in problem or "bundle" in problem


def test_appended_prepended_and_cut_off(bundle: Path, tmp_path: Path) -> None:
    original = bundle.read_bytes()
    path = tmp_path / "z.zip"
    for changed in (
        original + b"x",
        b"x" + original,
        original[:-1],
        original[:100],
        b"",
        b"PK\5\6" + bytes(18),
    ):
        path.write_bytes(changed)
        assert problems_of(path, public_key())


def test_a_bomb_does_not_go_off(bundle: Path, tmp_path: Path) -> None:
    """Signed even, and with sizes that do not say how much is in it: no more is unpacked than was told."""

    def change(texts: dict[str, Any]) -> None:
        texts[PRICES] = " " * 70_000_000

    (problem,) = problems_of(rewritten(tmp_path, bundle, change, OURS), OURS.public.hex)
    assert "too large" in problem
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x", bytes(50_000_000))
    entry = verify_bundle.Entry(PRICES, 8, 0, len(packed.getvalue()) - 30 - 1 - 69, 1000, 31)
    with pytest.raises(verify_bundle.Refused, match="larger than it says"):
        list(verify_bundle.unpacked(packed, entry, {"size": 1000, "sha256": ""}))


def test_a_whole_gigabyte_of_nothing_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse.zip"
    with path.open("wb") as file:
        file.truncate(3 * 2**30)
    (problem,) = problems_of(path, public_key())
    assert "at most" in problem


def test_the_end_record_of_another_length(bundle: Path, tmp_path: Path) -> None:
    original = bundle.read_bytes()
    end = bytearray(original[-22:])
    struct.pack_into("<H", end, 20, 5)
    path = tmp_path / "z.zip"
    path.write_bytes(original[:-22] + end + b"hello")
    assert problems_of(path, public_key())


def test_digests_are_those_of_the_files(bundle: Path) -> None:
    files = contents(bundle)
    manifest = json.loads(files[MANIFEST])
    for told in manifest["files"]:
        assert told["sha256"] == hashlib.sha256(files[told["name"]]).hexdigest()
        assert told["size"] == len(files[told["name"]])


def test_a_directory_that_fills_the_memory_is_not_read(bundle: Path, tmp_path: Path) -> None:
    content = bytearray(bundle.read_bytes())
    (length,) = struct.unpack_from("<I", content, len(content) - 10)
    filling = bytes(2**20)
    struct.pack_into("<I", content, len(content) - 10, length + len(filling))
    forged = tmp_path / "large.zip"
    forged.write_bytes(content[:-22] + filling + content[-22:])
    (problem,) = problems_of(forged, public_key())
    assert "the directory of the archive has" in problem
