"""libgomp for the model server on systems that lack it.

llama.cpp is linked against libgomp.so.1, which a bare Debian does not have. Many wheels bring a copy under
a name of their own (scikit-learn, pykdtree); a link with the right name in a folder of ours makes it do for
the child's loader. Standard library only: the installation step runs this module too.
"""

from __future__ import annotations

import ctypes
import sys
import sysconfig
from pathlib import Path

LIBRARY = "libgomp.so.1"


def system_has_openmp() -> bool:
    """Whether the dynamic loader finds libgomp by itself (or this system's wheels do not use it)."""
    if sys.platform != "linux":
        return True
    try:
        ctypes.CDLL(LIBRARY)
    except OSError:
        return False
    return True


def bundled_openmp() -> Path | None:
    """A copy of libgomp that some installed wheel brought along, or None."""
    site_packages = Path(sysconfig.get_path("platlib"))
    return next(iter(sorted(site_packages.glob("*.libs/libgomp*.so*"))), None)


def library_path_for_child(folder: Path) -> str | None:
    """The LD_LIBRARY_PATH that the child needs: None where the system has libgomp, else `folder`, with a
    link.

    Returns None as well when there is no copy anywhere; the child then fails with the loader's own message.
    """
    if system_has_openmp():
        return None
    copy = bundled_openmp()
    if copy is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / LIBRARY
    link.unlink(missing_ok=True)
    link.symlink_to(copy)
    return str(folder)


if __name__ == "__main__":
    raise SystemExit(0 if system_has_openmp() or bundled_openmp() else 1)
