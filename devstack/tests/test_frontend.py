"""The build of stylesheet and scripts, with the real tools, and what the sources promise."""

from __future__ import annotations

import json
import re
import shutil
import threading
from pathlib import Path

import pytest

from devstack import frontend
from devstack.frontend import HERE, BuildFailed, Places

SOURCES = HERE.frontend
TEXT_CONTRAST = 4.5
SHAPE_CONTRAST = 3.0


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """The sources of this tree with one template; its modules are links to the installed ones."""
    frontend.build_if_needed(HERE)
    copied = Places(tmp_path / "frontend", tmp_path / "templates", tmp_path / "static" / "dist")
    shutil.copytree(SOURCES, copied.frontend, ignore=shutil.ignore_patterns("node_modules"))
    copied.modules.mkdir()
    for module in HERE.modules.iterdir():
        if module.name not in {".built", ".installed"}:
            (copied.modules / module.name).symlink_to(module)
    shutil.copy(HERE.installed_stamp, copied.installed_stamp)
    copied.templates.mkdir()
    (copied.templates / "page.html").write_text('<p class="mt-7">')
    return copied


def test_a_build_makes_one_stylesheet_and_a_script_for_each_entry(places: Places) -> None:
    assert frontend.build_if_needed(places)
    entries = {file.name for file in (SOURCES / "js" / "entries").glob("*.js")}
    assert {file.name for file in places.dist.iterdir()} == {"app.css", *entries}
    style = (places.dist / "app.css").read_text()
    assert ".mt-7" in style
    assert "prefers-reduced-motion" in style
    script = (places.dist / "app.js").read_text()
    assert "X-CSRFToken" in script


def test_nothing_is_done_twice_and_everything_that_counts_starts_it_again(places: Places) -> None:
    assert frontend.build_if_needed(places)
    assert not frontend.build_if_needed(places)
    (places.templates / "page.html").write_text('<p class="mt-9">')
    assert frontend.build_if_needed(places)
    assert ".mt-9" in (places.dist / "app.css").read_text()
    source = places.frontend / "css" / "tokens.css"
    source.write_text(source.read_text() + "\n:root { --made-by-a-test: 1px; }\n")
    assert frontend.build_if_needed(places)
    (places.dist / "app.js").unlink()
    assert frontend.build_if_needed(places)
    assert not frontend.build_if_needed(places)


def test_what_no_source_stands_for_any_more_goes_away(places: Places) -> None:
    (places.frontend / "js" / "entries" / "extra.js").write_text("export const extra = 1;\n")
    frontend.build_if_needed(places)
    assert (places.dist / "extra.js").is_file()
    (places.frontend / "js" / "entries" / "extra.js").unlink()
    frontend.build_if_needed(places)
    assert not (places.dist / "extra.js").exists()


def test_a_mistake_is_named_and_what_was_built_stays(places: Places) -> None:
    frontend.build_if_needed(places)
    before = (places.dist / "app.js").read_bytes()
    (places.frontend / "js" / "entries" / "app.js").write_text('import "../nowhere.js";\n')
    with pytest.raises(BuildFailed, match=r"Could not resolve \"../nowhere.js\""):
        frontend.build_if_needed(places)
    assert (places.dist / "app.js").read_bytes() == before
    assert not list(places.modules.glob(".build-*"))


def test_npm_says_why_it_fails(tmp_path: Path) -> None:
    """package.json and the lock disagree, which npm finds out without asking anybody."""
    alone = Places(tmp_path, tmp_path / "templates", tmp_path / "dist")
    (tmp_path / "package.json").write_text(
        '{"name": "x", "version": "1.0.0", "dependencies": {"htmx.org": "2.0.10"}}'
    )
    (tmp_path / "package-lock.json").write_text(
        '{"name": "x", "version": "1.0.0", "lockfileVersion": 3, "packages": {"": {"name": "x"}}}'
    )
    with pytest.raises(
        BuildFailed, match=r"(?s)npm could not install.*registry of your own.*npm (error|ERR)"
    ):
        frontend.build_if_needed(alone)


def test_two_at_once_build_once(places: Places) -> None:
    built: list[bool] = []
    threads = [
        threading.Thread(target=lambda: built.append(frontend.build_if_needed(places))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert sorted(built) == [False, True]


def test_the_lock_names_no_registry_and_versions_are_exact() -> None:
    lock = (SOURCES / "package-lock.json").read_text()
    assert "resolved" not in lock
    assert "://" not in re.sub(r'"url": "https?://[^"]+"', "", lock)
    package = json.loads((SOURCES / "package.json").read_text())
    for version in (*package["dependencies"].values(), *package["devDependencies"].values()):
        assert re.fullmatch(r"\d+\.\d+\.\d+", version)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("frame", ["", "operator"])
def test_colours_have_the_contrast_that_they_need(frame: str, theme: int) -> None:
    colours = {name: value[theme] for name, value in read_colours(frame).items()}
    grounds = ("paper", "sunken", "raised")
    text = [(ink, ground) for ink in ("ink", "muted", "accent", "amber", "red") for ground in grounds]
    text += [("ink", wash) for wash in ("accent-wash", "amber-wash", "red-wash")]
    text += [
        ("muted", "accent-wash"),
        ("on-accent", "accent"),
        ("on-accent", "accent-strong"),
        ("on-red", "red"),
    ]
    text += [("paper", "ink"), ("paper", "amber")]
    shapes = [("edge", ground) for ground in grounds]
    shapes += [(name, "paper") for name in colours if name.startswith("series-")]
    weak = [
        (one, other, round(contrast(colours[one], colours[other]), 2))
        for pairs, least in ((text, TEXT_CONTRAST), (shapes, SHAPE_CONTRAST))
        for one, other in pairs
        if contrast(colours[one], colours[other]) < least
    ]
    assert not weak


def read_colours(frame: str) -> dict[str, tuple[str, str]]:
    plain, operator = (SOURCES / "css" / "tokens.css").read_text().split(':root[data-frame="operator"]')
    found = re.findall(
        r"--([a-z0-9-]+): light-dark\((#\w{6}), (#\w{6})\)", plain + (operator if frame else "")
    )
    return {name: (light, dark) for name, light, dark in found}


def contrast(one: str, other: str) -> float:
    """WCAG 2: 1 to 21."""
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
