"""The file of a bundle: a ZIP of three data files, a manifest and its signature.

The manifest holds the digest of each data file and of everything that stands before the manifest in the
archive; the signature is over the manifest. Every other byte (the two last entries and the directory) follows
from these, so a checker that rebuilds it finds any changed bit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any, Final, Self
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

from portal.kit.signing import SigningKey

USAGE: Final = "usage.csv"
CORRECTIONS: Final = "corrections.csv"
PRICES: Final = "prices.json"
MANIFEST: Final = "manifest.json"
SIGNATURE: Final = "manifest.sig"
FORMAT: Final = "sluice-bill-bundle"
VERSION: Final = 1
# What is signed begins with it, so that no signature of ours over something else passes for one of a bundle.
SIGNED_PREFIX: Final = b"sluice-bill-bundle 1\n"
_COPY_BYTES: Final = 2**20


class _Entry:
    """A file that is being written into the archive."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._digest = hashlib.sha256()
        self.size = 0

    def write(self, text: str) -> None:
        content = text.encode()
        self._digest.update(content)
        self.size += len(content)
        self._stream.write(content)

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()


@dataclass(slots=True)
class Archive:
    """Writes a bundle into a file that can be read and sought, entry by entry; `seal` comes last. A context,
    so that one that is given up in the middle is let go of."""

    file: IO[bytes]
    _zip: ZipFile = field(init=False)
    _files: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._zip = ZipFile(self.file, "w")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._zip.close()

    @contextmanager
    def entry(self, name: str) -> Iterator[_Entry]:
        with self._zip.open(_info(name, ZIP_DEFLATED), "w") as stream:
            entry = _Entry(stream)
            yield entry
        self._files.append({"name": name, "size": entry.size, "sha256": entry.sha256})

    def seal(self, facts: dict[str, Any], key: SigningKey) -> None:
        """Write the manifest, which says `facts` and what the files are, and its signature."""
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            "key": key.public.id,
            **facts,
            "files": self._files,
            "archive": self._written(),
        }
        content = json.dumps(manifest, ensure_ascii=False, indent=2).encode() + b"\n"
        self._store(MANIFEST, content)
        self._store(SIGNATURE, key.sign(SIGNED_PREFIX + content).hex().encode() + b"\n")
        self._zip.close()

    def _store(self, name: str, content: bytes) -> None:
        self._zip.writestr(_info(name, ZIP_STORED), content)

    def _written(self) -> dict[str, Any]:
        size = self.file.tell()
        digest = hashlib.sha256()
        self.file.seek(0)
        left = size
        while left and (piece := self.file.read(min(left, _COPY_BYTES))):
            digest.update(piece)
            left -= len(piece)
        self.file.seek(size)
        return {"size": size, "sha256": digest.hexdigest()}


def _info(name: str, method: int) -> ZipInfo:
    """The same header for the same name: no time, no rights, no system."""
    info = ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    info.compress_type = method
    info.external_attr = 0o600 << 16
    info.create_system = 3
    return info
