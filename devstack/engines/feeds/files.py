"""The files of a feed: appended to, renamed when the hour is over or a fault wants it, never read back."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from devstack.engines.feeds.lines import LineFormat


class FeedFile:
    """What a format's lines are written to, in `directory`; a file that is there already is continued.

    Whatever is put aside is called NAME.1, NAME.2 and so on, in the order in which that happened.
    """

    def __init__(self, directory: Path, form: LineFormat) -> None:
        """Raises OSError when the folder cannot be made."""
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._form = form
        self._hour = -1
        self._unix = 0.0
        self._descriptor = -1
        self._number = 1
        self.path = directory

    @property
    def is_open(self) -> bool:
        """Whether it may be appended to."""
        return self._descriptor >= 0

    def write(self, data: bytes, unix: float) -> None:
        """Appends whole lines, at a time (Unix) that decides about the name. Raises OSError."""
        hour = int(unix + self._form.skew_s) // 3600
        if hour != self._hour:
            self._turn_hour(hour, unix)
        self.append(data)

    def append(self, data: bytes) -> None:
        """Appends bytes to the file of the last `write` or `open`."""
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]

    def open(self, unix: float) -> None:
        """Opens the file of that time if none is open."""
        if self._descriptor < 0:
            self._turn_hour(int(unix + self._form.skew_s) // 3600, unix)

    def _turn_hour(self, hour: int, unix: float) -> None:
        if self._descriptor >= 0:
            self.close()
            aside = self._form.aside_name(self._unix)
            if aside is not None and self.path.exists():
                self.path.rename(self._free(self._directory / aside))
        self._hour, self._unix = hour, unix
        self.path = self._directory / self._form.file_name(unix)
        self._open()

    def _open(self, *, with_header: bool = True) -> None:
        self._descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        if with_header and self._form.header and not os.fstat(self._descriptor).st_size:
            self.append(self._form.header + b"\n")

    def rotate(self, *, with_header: bool = True) -> str:
        """Renames the file and begins a new one; answers the old one's new name."""
        aside = self._numbered()
        self.close()
        self.path.rename(aside)
        self._open(with_header=with_header)
        return aside.name

    def copy(self) -> str:
        """Copies the file beside itself; answers the copy's name."""
        aside = self._numbered()
        shutil.copyfile(self.path, aside)
        return aside.name

    def truncate(self) -> str:
        """Copies the file and empties it in place; answers the copy's name."""
        name = self.copy()
        os.ftruncate(self._descriptor, 0)
        if self._form.header:
            self.append(self._form.header + b"\n")
        return name

    def close(self) -> None:
        """May be repeated."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _numbered(self) -> Path:
        # It only grows: with thousands of files nobody looks through them all again.
        while (aside := self.path.with_name(f"{self.path.name}.{self._number}")).exists():
            self._number += 1
        return aside

    @staticmethod
    def _free(path: Path) -> Path:
        number = 1
        free = path
        while free.exists():
            free = path.with_name(f"{path.name}.{number}")
            number += 1
        return free
