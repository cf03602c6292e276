#!/usr/bin/env python3
"""Checks a verifiable bill offline: who signed it, that not one bit was changed, and every line and total.

    python3 verify_bundle.py BUNDLE.zip --key PUBLIC_KEY_HEX
    python3 verify_bundle.py BUNDLE.zip --keys sluice-bundle-keys.json

Python 3.9 or newer, its standard library, and nothing else: no network, and no code of whoever sent the bill.
Exit code 0: the bill is right. 1: it is not, and the reasons are printed. 2: called wrongly.
"""

# It has to run on Python 3.9, whose spellings the linter would modernize, and it talks to who started it.
# ruff: noqa: B905, T201, UP006, UP017, UP035, UP045
from __future__ import annotations

import argparse
import hashlib
import json
import re
import struct
import sys
import zlib
from bisect import bisect_right
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, BinaryIO, Dict, Iterator, List, NamedTuple, Optional, Tuple

FORMAT, VERSION = "sluice-bill-bundle", 1
SIGNED_PREFIX = b"sluice-bill-bundle 1\n"
DATA_FILES = ("usage.csv", "corrections.csv", "prices.json")
NAMES = (*DATA_FILES, "manifest.json", "manifest.sig")
MAX_ARCHIVE_BYTES = 2 * 2**30
MAX_DIRECTORY_BYTES = 64 * 2**10
MAX_FILE_BYTES = {"usage.csv": 4 * 10**9, "corrections.csv": 10**9, "prices.json": 64 * 2**20}
MAX_MANIFEST_BYTES = 4 * 2**20
MAX_LINE_BYTES = 4096
MAX_FINDINGS = 20
PIECE = 2**16

CALL = [
    "request",
    "admitted_at",
    "model",
    "api_key",
    "endpoint",
    "price",
    "window",
    "service_tier",
    "choices",
]
CALL += ["cancel_policy", "state", "hold_nanos", "ceiling_nanos"]
RECORD = ["revision", "recorded_at", "source", "basis", "provenance", "billed"]
TOKENS = ["prompt_tokens", "cached_tokens", "image_tokens", "completion_tokens", "reasoning_tokens"]
AMOUNTS = ["cost_nanos", "waived_nanos", "overrun_nanos", "charged_nanos", "granted_nanos", "owed_nanos"]
COLUMNS = [*CALL, *RECORD, *TOKENS, *AMOUNTS, "transaction"]
NUMBERS = ("choices", "hold_nanos", "revision", *TOKENS, *AMOUNTS)
NUMBER = re.compile(r"0|[1-9][0-9]{0,18}")
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


class Refused(Exception):
    """The bundle is not what it says, and nothing further in it can be believed."""


# --- Ed25519 (RFC 8032, section 5.1), verification only -------------------------------------------------
P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
ROOT = pow(2, (P - 1) // 4, P)
Point = Tuple[int, int, int, int]


def _add(a: Point, b: Point) -> Point:
    u, v = (a[1] - a[0]) * (b[1] - b[0]) % P, (a[1] + a[0]) * (b[1] + b[0]) % P
    w, z = 2 * a[3] * b[3] * D % P, 2 * a[2] * b[2] % P
    e, f, g, h = v - u, z - w, z + w, v + u
    return e * f % P, g * h % P, f * g % P, e * h % P


def _times(number: int, point: Point) -> Point:
    result: Point = (0, 1, 1, 0)
    while number:
        if number & 1:
            result = _add(result, point)
        point = _add(point, point)
        number >>= 1
    return result


def _decode(text: bytes) -> Optional[Point]:
    y = int.from_bytes(text, "little")
    sign, y = y >> 255, y & (2**255 - 1)
    if y >= P:
        return None
    xx = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(xx, (P + 3) // 8, P)
    if (x * x - xx) % P:
        x = x * ROOT % P
    if (x * x - xx) % P or (x == 0 and sign):
        return None
    x = P - x if x & 1 != sign else x
    return x, y, 1, x * y % P


_BASE_Y = 4 * pow(5, P - 2, P) % P
_BASE = _decode(_BASE_Y.to_bytes(32, "little"))


def signature_holds(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether it is the Ed25519 signature of this key over the message."""
    if len(public_key) != 32 or len(signature) != 64 or _BASE is None:
        return False
    a, r, s = _decode(public_key), _decode(signature[:32]), int.from_bytes(signature[32:], "little")
    if a is None or r is None or s >= ORDER:
        return False
    k = int.from_bytes(hashlib.sha512(signature[:32] + public_key + message).digest(), "little") % ORDER
    left, right = _times(s, _BASE), _add(r, _times(k, a))
    return not (
        (left[0] * right[2] - right[0] * left[2]) % P or (left[1] * right[2] - right[1] * left[2]) % P
    )


def key_id(public_key: bytes) -> str:
    return "ed25519-" + hashlib.sha256(public_key).hexdigest()[:16]


# --- The archive ------------------------------------------------------------------------------------------
class Entry(NamedTuple):
    name: str
    method: int
    crc: int
    packed: int
    size: int
    start: int  # of its bytes


LOCAL, CENTRAL, END = struct.Struct("<4s5H3I2H"), struct.Struct("<4s6H3I5H2I"), struct.Struct("<4s4H2IH")


def read_directory(file: BinaryIO, size: int) -> List[Entry]:
    """The entries. The directory, and every header, must be to the byte what a bundle has: so nothing can
    hide in or between them, and no bit of them can change."""
    if size > MAX_ARCHIVE_BYTES:
        raise Refused(f"the file has {size} bytes; a bundle has at most {MAX_ARCHIVE_BYTES}")
    tail = _read(file, max(0, size - END.size), min(size, END.size))
    if len(tail) != END.size or tail[:4] != b"PK\5\6":
        raise Refused("this is no whole bundle: a ZIP archive does not end here")
    _, disk, first_disk, here, count, length, at, comment = END.unpack(tail)
    if (disk, first_disk, comment) != (0, 0, 0) or here != count or at + length + END.size != size:
        raise Refused("the end of the ZIP archive is not that of a bundle")
    if count != len(NAMES):
        raise Refused(f"the archive has {count} files; a bundle has {len(NAMES)}: {', '.join(NAMES)}")
    if length > MAX_DIRECTORY_BYTES:
        raise Refused(f"the directory of the archive has {length} bytes; a bundle's has a few hundred")
    directory = _read(file, at, length)
    entries: List[Entry] = []
    offset, place = 0, 0
    for name in NAMES:
        fields = directory[place : place + CENTRAL.size]
        if len(fields) != CENTRAL.size:
            raise Refused("the directory of the archive is cut off")
        crc, packed, unpacked = struct.unpack_from("<3I", fields, 16)
        found = directory[place + CENTRAL.size : place + CENTRAL.size + len(name)]
        if found != name.encode():
            raise Refused(
                f"the archive holds {found!r} where a bundle has {name}: unknown, double or swapped"
            )
        method = 0 if name.startswith("manifest") else 8
        common = (20, 0, method, 0, 33, crc, packed, unpacked, len(name), 0)
        local = LOCAL.pack(b"PK\3\4", *common) + name.encode()
        central = CENTRAL.pack(b"PK\1\2", 20 | 3 << 8, *common, 0, 0, 0, 0o600 << 16, offset)
        if fields != central or _read(file, offset, len(local)) != local:
            raise Refused(f"the header of {name} in the archive is not that of a bundle")
        if method == 0 and packed != unpacked:
            raise Refused(f"the header of {name} says two sizes")
        entries.append(Entry(name, method, crc, packed, unpacked, offset + len(local)))
        offset += len(local) + packed
        place += CENTRAL.size + len(name)
    if offset != at or place != length:
        raise Refused("there is something between the files of the archive")
    return entries


def _read(file: BinaryIO, start: int, length: int) -> bytes:
    file.seek(start)
    return file.read(length)


def stored(file: BinaryIO, entry: Entry, limit: int) -> bytes:
    """The whole of an entry that is not compressed."""
    if entry.size > limit:
        raise Refused(f"{entry.name} has {entry.size} bytes; at most {limit} are read")
    content = _read(file, entry.start, entry.size)
    if zlib.crc32(content) != entry.crc:
        raise Refused(f"{entry.name} is damaged (its checksum in the archive differs)")
    return content


def unpacked(file: BinaryIO, entry: Entry, told: Dict[str, Any]) -> Iterator[bytes]:
    """An entry piece by piece: never more than the manifest says, and in the end exactly that."""
    size, digest, crc = 0, hashlib.sha256(), 0
    if told.get("size") != entry.size or entry.size > MAX_FILE_BYTES[entry.name]:
        raise Refused(f"{entry.name} has another size than the manifest says, or is too large")
    inflate, at, end = zlib.decompressobj(-15), entry.start, entry.start + entry.packed
    packed = b""
    while not inflate.eof:
        if not packed:
            packed = _read(file, at, min(PIECE, end - at))
            at += len(packed)
        try:
            piece = inflate.decompress(packed, PIECE)
        except zlib.error:
            raise Refused(f"{entry.name} is damaged: it cannot be unpacked") from None
        if not packed and not piece and not inflate.eof:
            raise Refused(f"{entry.name} is cut off")
        packed = inflate.unconsumed_tail
        size += len(piece)
        if size > entry.size:
            raise Refused(f"{entry.name} is larger than it says")
        digest.update(piece)
        crc = zlib.crc32(piece, crc)
        yield piece
    if inflate.unused_data or at != end or size != entry.size:
        raise Refused(f"{entry.name} is not as long as it says")
    if digest.hexdigest() != told.get("sha256") or crc != entry.crc:
        raise Refused(f"{entry.name} is not what was signed: its SHA-256 differs from the manifest's")


def lines_of(pieces: Iterator[bytes], name: str) -> Iterator[str]:
    """Whole lines without their ends."""
    rest = b""
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        if len(rest) > MAX_LINE_BYTES:
            raise Refused(f"{name} has a line of more than {MAX_LINE_BYTES} bytes")
        for line in whole:
            try:
                yield line.decode("ascii")
            except UnicodeDecodeError:
                raise Refused(f"{name} has a line with other signs than ASCII") from None
    if rest:
        raise Refused(f"{name} does not end with a line")


# --- The rule of prices -----------------------------------------------------------------------------------
# A class without a line of its own is charged as the class that contains it.
FALLS_BACK = {"cached_input": "input", "image": "input", "reasoning": "output"}


def line_cost(units: int, price: int) -> int:
    """Nano-units for so many tokens at a price per million, rounded half up, once."""
    return (units * price + 500_000) // 1_000_000


CLASSES = ("input", "cached_input", "image", "output", "reasoning", "request")


class Price:
    """A price version."""

    def __init__(self, told: Dict[str, Any]) -> None:
        self.model, self.currency, self.zone = told["model"], told["currency"], told["time_zone"]
        self.active_from = told["active_from"]
        self.active_to = told["active_to"] or "9999"
        self.windows = {w["window"]: w["minutes_of_week"] for w in told["windows"]}
        self.lines: List[Dict[str, Any]] = told["lines"]
        ends = {line[end] or 0 for line in self.lines for end in ("input_from_tokens", "input_to_tokens")}
        self._steps = sorted(ends)
        self._chosen: Dict[Tuple[str, str, int], Dict[str, Optional[int]]] = {}

    def of(self, token_class: str, tier: str, window: str, prompt: int) -> Optional[int]:
        """The price of a class for a prompt of this length: its own lines decide before those of the class
        that contains it, and among them the one of the window before the one of the whole week."""
        for name in (token_class, FALLS_BACK.get(token_class)):
            found = [
                line
                for line in self.lines
                if line["token_class"] == name
                and line["service_tier"] == tier
                and line["window"] in (None, window)
                and line["input_from_tokens"] <= prompt
                and (line["input_to_tokens"] is None or prompt < line["input_to_tokens"])
            ]
            found.sort(key=lambda line: line["window"] is None)
            if found:
                return int(found[0]["price_nanos_per_million"])
        return None

    def lines_of(self, call: Dict[str, Any], *, with_output: bool) -> Iterator[Tuple[str, int, int, int]]:
        """Class, tokens, price per million and amount of each line of a record. Raises ValueError where a
        class has no price."""
        prompt, tier, window = call["prompt_tokens"], call["service_tier"], call["window"]
        out = call["completion_tokens"] if with_output else 0
        reasoning = call["reasoning_tokens"] if with_output else 0
        cached, image = call["cached_tokens"], call["image_tokens"]
        # Between two input lengths at which a line begins or ends, everything costs the same.
        step = (tier, window, bisect_right(self._steps, prompt))
        chosen = self._chosen.get(step)
        if chosen is None:
            chosen = self._chosen[step] = {name: self.of(name, tier, window, prompt) for name in CLASSES}
        for name, units in zip(
            CLASSES, (prompt - cached - image, cached, image, out - reasoning, reasoning, 1)
        ):
            price = chosen[name]
            if units < 0:
                raise ValueError(f"there are less than no {name} tokens")
            if units and price is None and name != "request":
                raise ValueError(f"its price has no line for {name}")
            if units and price is not None:
                yield name, units, price, line_cost(units, price)

    def cost(self, call: Dict[str, Any], *, with_output: bool) -> int:
        return sum(amount for _, _, _, amount in self.lines_of(call, with_output=with_output))

    def window_at(self, moment: str) -> Optional[str]:
        """The window that is open at a moment, "" outside all; None where this computer knows no zones."""
        at = datetime.strptime(moment, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=timezone.utc)
        if self.zone != "UTC":
            try:
                from zoneinfo import ZoneInfo

                at = at.astimezone(ZoneInfo(self.zone))
            except Exception:  # noqa: BLE001 (no module, no data, or a name that it does not know)
                return None
        minute = at.weekday() * 1440 + at.hour * 60 + at.minute
        for window, spans in self.windows.items():
            if any(start <= minute < end for start, end in spans):
                return str(window)
        return ""


# --- Lines ------------------------------------------------------------------------------------------------
BASE32 = str.maketrans("0123456789abcdefghjkmnpqrstvwxyz", "0123456789abcdefghijklmnopqrstuv")


def transaction_of(request: str, revision: int) -> str:
    """The id of the ledger's transfer that posted this revision: it follows from the call and the number."""
    number = f"{int(request[4:].translate(BASE32), 32):032x}"
    parts = (number[:8], number[8:12], number[12:16], number[16:20], number[20:])
    digest = hashlib.sha256(f"USAGE:{'-'.join(parts)}:{revision}".encode()).digest()[:16]
    value, digits = int.from_bytes(digest, "big"), ""
    for _ in range(26):
        value, digit = divmod(value, 32)
        digits = "0123456789abcdefghjkmnpqrstvwxyz"[digit] + digits
    return "txn_" + digits


def parse(line: str, columns: List[str]) -> Dict[str, Any]:
    """A line as a record. Raises ValueError for what is no line of a bundle."""
    cells = line.split(",")
    if len(cells) != len(columns):
        raise ValueError(f"it has {len(cells)} cells and not {len(columns)}")
    call: Dict[str, Any] = dict(zip(columns, cells))
    for name in NUMBERS:
        if NUMBER.fullmatch(call[name]) is None:
            raise ValueError(f"{name} is {call[name]!r} and no whole number")
        call[name] = int(call[name])
    for name in ("admitted_at", "recorded_at"):
        if (call[name] or call["revision"]) and MOMENT.fullmatch(call[name]) is None:
            raise ValueError(f"{name} is {call[name]!r} and no moment")
    if re.fullmatch(r"req_[0-7][0-9a-hjkmnp-tv-z]{25}", call["request"]) is None:
        raise ValueError(f"{call['request']!r} is no id of a request")
    return call


class Rules:
    """What every record of a call has to keep."""

    def __init__(self, manifest: Dict[str, Any], prices: List[Dict[str, Any]]) -> None:
        self.currency = manifest["currency"]
        self.prices = {told["price"]: Price(told) for told in prices}
        self.zones_unknown: set[str] = set()

    def broken_by(self, call: Dict[str, Any]) -> Iterator[str]:
        """What is wrong with a record, in words."""
        price = self.prices.get(call["price"])
        if price is None:
            yield f"its price {call['price']} is not in prices.json"
            return
        if (price.model, price.currency) != (call["model"], self.currency):
            yield f"its price is of {price.model} in {price.currency}"
        if not price.active_from <= call["admitted_at"] < price.active_to:
            yield f"its price was not in force at {call['admitted_at']}"
        window = price.window_at(call["admitted_at"]) if price.windows else ""
        if window is None:
            self.zones_unknown.add(price.zone)
        elif window != call["window"]:
            yield f"its window is {call['window'] or 'none'}, and at that moment {window or 'none'} was open"
        if call["revision"] == 0:
            if any(call[name] for name in (*TOKENS, *AMOUNTS, "transaction")) or call["state"] == "POSTED":
                yield "it has no record of usage, and yet something is charged or counted"
            return
        try:
            yield from self._wrong_amounts(call, price)
        except ValueError as error:
            yield str(error)

    def _wrong_amounts(self, call: Dict[str, Any], price: Price) -> Iterator[str]:
        if call["basis"] == "NOTHING":
            cost = due = 0
            if any(call[name] for name in TOKENS):
                yield "nothing was delivered, and yet it has tokens"
        else:
            cost = price.cost(call, with_output=True)
            due = {"DELIVERED": cost, "NOTHING": 0}.get(call["billed"], -1)
            if call["billed"] == "INPUT":
                due = price.cost(call, with_output=False)
        if call["billed"] not in ("DELIVERED", call["cancel_policy"]):
            yield f"it is billed as {call['billed']!r}, and its cancel policy is {call['cancel_policy']}"
        if call["cost_nanos"] != cost:
            yield f"cost_nanos is {call['cost_nanos']}, and by its price it is {cost}"
        if call["waived_nanos"] != cost - due:
            yield f"waived_nanos is {call['waived_nanos']}, and by its cancel policy it is {cost - due}"
        yield from self._wrong_charge(call, due)

    def _wrong_charge(self, call: Dict[str, Any], due: int) -> Iterator[str]:
        charged = call["charged_nanos"]
        right = min(due, call["hold_nanos"])
        if charged != right:
            yield f"charged_nanos is {charged}, and by its price and what was held it is {right}"
        elif call["overrun_nanos"] != due - charged:
            yield f"overrun_nanos is {call['overrun_nanos']}, and it is {due - charged}"
        if call["ceiling_nanos"] and int(call["ceiling_nanos"]) < max(charged, call["hold_nanos"]):
            yield f"its ceiling was {call['ceiling_nanos']}"
        if call["granted_nanos"] + call["owed_nanos"] > charged:
            yield "more was paid from granted credit and owed than charged"
        posted = call["transaction"]
        if posted and posted != transaction_of(call["request"], call["revision"]):
            yield f"its transaction {posted} is not the one of this record"
        if not posted and call["revision"] == 1 and call["cost_nanos"]:
            yield "it cost something, and yet no transaction is named"


# --- The bill ---------------------------------------------------------------------------------------------
class Bill:
    """Everything that is checked once the signature and the archive are known to be right."""

    def __init__(self, manifest: Dict[str, Any]) -> None:
        self.manifest = manifest
        self.start, self.end = manifest["period"]["from"], manifest["period"]["to"]
        self.findings: List[str] = []
        self.corrected: Dict[str, str] = {}  # request → its newest record, as a line
        self.late = {"calls": 0, "corrections": 0, "cost_nanos": 0, "charged_nanos": 0}
        self.models: Dict[str, Dict[str, int]] = {}
        self.lines = self.calls = 0

    def find(self, text: str) -> None:
        if len(self.findings) == MAX_FINDINGS:
            raise Refused("\n".join([*self.findings, "and more; the rest is not looked at"]))
        self.findings.append(text)

    def read_corrections(self, lines: Iterator[str], rules: Rules) -> None:
        """Every revision of the calls that were set right."""
        columns = [*COLUMNS, "cause"]
        if next(lines, "") != ",".join(columns):
            raise Refused("corrections.csv has other columns than a bundle")
        before: Optional[Dict[str, Any]] = None
        seen: set[str] = set()
        for number, line in enumerate(lines, start=2):
            place = f"corrections.csv, line {number}"
            try:
                call = parse(line, columns)
            except ValueError as error:
                self.find(f"{place}: {error}")
                continue
            place += f" ({call['request']}, revision {call['revision']})"
            for text in rules.broken_by(call):
                self.find(f"{place}: {text}")
            before = before if before and before["request"] == call["request"] else None
            if before is None and call["request"] in seen:
                self.find(f"{place}: the call stands in two places")
            if call["revision"] != (before["revision"] + 1 if before else 1):
                self.find(f"{place}: a revision before it is missing")
            if before and any(before[name] != call[name] for name in CALL):
                self.find(f"{place}: it says something else of the call than the revision before it")
            seen.add(call["request"])
            if call["admitted_at"] >= self.start:
                self.corrected[call["request"]] = line.rpartition(",")[0]
            else:
                self._add_late(call, before)
            before = call

    def _add_late(self, call: Dict[str, Any], before: Optional[Dict[str, Any]]) -> None:
        is_correction = call["revision"] > 1 or call["cause"]
        if not (is_correction and self.start <= call["recorded_at"] < self.end):
            return
        self.late["corrections"] += 1
        for name in ("cost_nanos", "charged_nanos"):
            self.late[name] += call[name] - (before[name] if before else 0)
        # A call's revisions stand together, so a new call begins where the last one that counted was another.
        if getattr(self, "_last_late", "") != call["request"]:
            self.late["calls"] += 1
        self._last_late = call["request"]

    def read_usage(self, lines: Iterator[str], rules: Rules) -> None:
        """Every call of the period, with its newest record."""
        if next(lines, "") != ",".join(COLUMNS):
            raise Refused("usage.csv has other columns than a bundle")
        last = ""
        for number, line in enumerate(lines, start=2):
            place = f"usage.csv, line {number}"
            try:
                call = parse(line, COLUMNS)
            except ValueError as error:
                self.find(f"{place}: {error}")
                continue
            request = call["request"]
            place += f" ({request})"
            for text in rules.broken_by(call):
                self.find(f"{place}: {text}")
            if request <= last:
                self.find(f"{place}: calls stand in the order of their ids, each once")
            if not self.start <= call["admitted_at"] < self.end:
                self.find(f"{place}: admitted at {call['admitted_at']}, which is not of the period")
            newest = self.corrected.pop(request, line if call["revision"] <= 1 else "")
            if newest != line:
                self.find(f"{place}: corrections.csv does not end in this revision of it")
            last = request
            self._add(call)
        for request in self.corrected:
            self.find(f"corrections.csv: {request} is not in usage.csv")

    def _add(self, call: Dict[str, Any]) -> None:
        self.lines += 1
        if not call["revision"]:
            return
        self.calls += 1
        sums = self.models.get(call["model"])
        if sums is None:
            sums = self.models[call["model"]] = dict.fromkeys(["calls", *TOKENS, *AMOUNTS], 0)
        sums["calls"] += 1
        for name in (*TOKENS, *AMOUNTS):
            sums[name] += call[name]

    def check_totals(self) -> None:
        told, names = self.manifest["totals"], [*TOKENS, *AMOUNTS]
        found: Dict[str, Any] = {"lines": self.lines, "calls": self.calls, "models": self.models}
        found.update({name: sum(sums[name] for sums in self.models.values()) for name in names})
        for name in sorted({*found, *told}):
            if found.get(name) != told.get(name):
                self.find(
                    f"manifest.json: the total {name} is {told.get(name)}, by the lines {found.get(name)}"
                )
        if self.manifest["late_corrections"] != self.late:
            self.find(f"manifest.json: of late corrections corrections.csv says {self.late}")


def open_manifest(file: BinaryIO, entries: Dict[str, Entry], keys: Dict[str, bytes]) -> Dict[str, Any]:
    """The manifest, once its signature holds. Nothing else is looked at before."""
    content = stored(file, entries["manifest.json"], MAX_MANIFEST_BYTES)
    signature = stored(file, entries["manifest.sig"], 129)
    if re.fullmatch(rb"[0-9a-f]{128}\n", signature) is None:
        raise Refused("manifest.sig holds no signature")
    signed = bytes.fromhex(signature[:-1].decode())
    by = [name for name, key in keys.items() if signature_holds(key, SIGNED_PREFIX + content, signed)]
    if not by:
        told = re.search(rb'"key": "(ed25519-[0-9a-f]{16})"', content)
        if told is not None and told[1].decode() not in keys:
            raise Refused(f"it says {told[1].decode()} signed it, and you trust {', '.join(sorted(keys))}")
        raise Refused("the signature does not hold: manifest.json or manifest.sig was changed")
    manifest: Dict[str, Any] = json.loads(content.decode())
    if (manifest["format"], manifest["version"]) != (FORMAT, VERSION):
        raise Refused(
            f"this script reads {FORMAT} {VERSION}, and this is {manifest['format']} {manifest['version']}"
        )
    if manifest["key"] not in by:
        raise Refused(f"it names the key {manifest['key']}, and was signed with {by[0]}")
    return manifest


def verify(path: Path, keys: Dict[str, bytes]) -> Tuple[Bill, Rules]:
    """The bill, with what was found wrong with it. Raises Refused where it makes no sense to go on."""
    with path.open("rb") as file:
        entries = {entry.name: entry for entry in read_directory(file, path.stat().st_size)}
        manifest = open_manifest(file, entries, keys)
        files = {told["name"]: told for told in manifest["files"]}
        if len(manifest["files"]) != len(DATA_FILES) or set(files) != set(DATA_FILES):
            raise Refused("manifest.json names other files than those of a bundle")
        before = entries["manifest.json"].start - LOCAL.size - len("manifest.json")
        digest = hashlib.sha256()
        file.seek(0)
        for start in range(0, before, PIECE):
            digest.update(file.read(min(PIECE, before - start)))
        if manifest["archive"] != {"size": before, "sha256": digest.hexdigest()}:
            raise Refused("what stands in the archive before manifest.json is not what was signed")
        prices = b"".join(unpacked(file, entries["prices.json"], files["prices.json"]))
        rules, bill = Rules(manifest, json.loads(prices.decode())["prices"]), Bill(manifest)
        for name, read in (("corrections.csv", bill.read_corrections), ("usage.csv", bill.read_usage)):
            read(lines_of(unpacked(file, entries[name], files[name]), name), rules)
        bill.check_totals()
    return bill, rules


def amount(nanos: int, currency: str) -> str:
    return f"{'-' if nanos < 0 else ''}{abs(nanos) // 10**9}.{abs(nanos) % 10**9:09d} {currency}"


def report(bill: Bill, rules: Rules) -> None:
    told, currency = bill.manifest, bill.manifest["currency"]
    certificate, totals = told["certificate"], told["totals"]
    whole = "the whole period" if certificate["is_complete"] else "NOT the whole period"
    unbilled = totals["waived_nanos"] + totals["overrun_nanos"]
    seen = f"{certificate['matched_attempts']} of {certificate['attempts']} answers"
    name = "".join(sign if sign.isprintable() else "?" for sign in told["organization"]["name"])
    print(f"organization   {name} ({told['organization']['id']})")
    print(f"period         from {bill.start} until before {bill.end}, as known at {told['made_at']}")
    print(f"signed by      {told['issuer']} with {told['key']}")
    print(f"complete to    {certificate['complete_to']}: {whole}")
    print(f"two witnesses  for {seen}: the backends' own records say the same")
    print(f"calls          {bill.calls} recomputed, and {bill.lines - bill.calls} without usage")
    print(f"total          {amount(totals['charged_nanos'], currency)}")
    print(f"  not billed   {amount(unbilled, currency)} (waived, or beyond what was held)")
    if bill.late["corrections"]:
        print(
            f"  besides      {amount(bill.late['charged_nanos'], currency)} by corrections of earlier calls"
        )
    if rules.zones_unknown:
        print(f"not checked    weekly windows in {', '.join(sorted(rules.zones_unknown))}: unknown here")


def trusted(arguments: argparse.Namespace) -> Dict[str, bytes]:
    texts = list(arguments.key or [])
    if arguments.keys:
        texts += [told["public_key"] for told in json.loads(arguments.keys.read_text("utf-8"))["keys"]]
    keys = [bytes.fromhex(text) for text in texts]
    if not keys or any(len(key) != 32 for key in keys):
        raise ValueError("a public key is 64 hexadecimal digits")
    return {key_id(key): key for key in keys}


def main(given: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(description="Checks a verifiable bill offline.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--key", action="append", help="a public key that you trust: 64 hexadecimal digits")
    parser.add_argument("--keys", type=Path, help="the file of public keys that the service publishes")
    arguments = parser.parse_args(given)
    try:
        keys = trusted(arguments)
    except (OSError, ValueError, KeyError, TypeError) as error:
        parser.error(f"no public key to trust: {error}")
    try:
        bill, rules = verify(arguments.bundle, keys)
        problems = bill.findings
    except Refused as error:
        problems = str(error).splitlines()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        problems = [f"it cannot be read: {type(error).__name__}: {error}"]
    if problems:
        print(f"NOT VALID: {arguments.bundle}", *problems, sep="\n  ")
        return 1
    report(bill, rules)
    print("VALID")
    return 0


if __name__ == "__main__":
    sys.exit(main())
