"""Message catalogs: python -m devstack.translations extract|compile|check.

extract reads every text of templates and Python sources into locale/LANGUAGE/LC_MESSAGES/django.po and keeps
what is translated; compile makes the .mo files that Django reads (the installation runs it); check says what
is missing, changed or broken. Works without GNU gettext.
"""

from __future__ import annotations

import ast
import os
import re
import sys
import warnings
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

from babel.messages.catalog import Catalog, Message
from babel.messages.extract import extract_python
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

REPOSITORY = Path(__file__).resolve().parent.parent
LANGUAGES = ("zh_Hans",)
PACKAGES = ("portal", "tenants", "models_catalog", "quotas")
PYTHON_CALLS = {
    f"{name}{suffix}": None
    for name in ("_", "gettext", "ngettext", "pgettext", "npgettext")
    for suffix in ("", "_lazy", "_noop")
}
_STRING = r"""u?('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
# What Django makes of a template: calls in the notation of Python among blanked-out text.
_CALL = re.compile(rf"\b(?P<name>n?p?gettext|_)\(\s*{_STRING}(?:,\s*{_STRING})?(?:,\s*{_STRING})?", re.DOTALL)
_PLACEHOLDER = re.compile(r"%\((\w+)\)[sd]|%%|%[sd]")

Found = tuple[str, int, str | tuple[str, str], str | None]


def main(argv: list[str]) -> int:
    what = argv[0] if argv else ""
    if what == "extract":
        for language in LANGUAGES:
            extract(language)
        return 0
    if what == "compile":
        for language in LANGUAGES:
            compile_catalog(language)
        return 0
    if what == "check":
        problems = [problem for language in LANGUAGES for problem in check(language)]
        print("\n".join(problems) or "Every text is translated.")
        return 1 if problems else 0
    print(__doc__)
    return 2


def po_file(language: str) -> Path:
    return REPOSITORY / "locale" / language / "LC_MESSAGES" / "django.po"


def extract(language: str) -> None:
    """Brings the catalog up to date. Texts that are gone leave it, changed ones do not keep a guess."""
    catalog = _known(language)
    begun_at = catalog.creation_date
    catalog.update(_template(), no_fuzzy_matching=True)
    # A date that changes with every run would be all that most changes of this file are about.
    catalog.creation_date = begun_at
    catalog.obsolete.clear()
    path = po_file(language)
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = BytesIO()
    write_po(buffer, catalog, width=100, sort_by_file=True, include_lineno=False, omit_header=False)
    path.write_bytes(buffer.getvalue())
    missing = sum(1 for message in catalog if message.id and not _is_translated(message))
    print(f"{language}: {len(catalog)} texts, {missing} without translation")


def compile_catalog(language: str) -> None:
    """Makes the .mo file beside the .po file, in one step, so that nobody reads half of it."""
    path = po_file(language)
    compiled = path.with_suffix(".mo")
    if not path.is_file():
        return
    if compiled.is_file() and compiled.stat().st_mtime_ns > path.stat().st_mtime_ns:
        return
    buffer = BytesIO()
    write_mo(buffer, _known(language))
    partial = path.with_name(f"django.mo.{os.getpid()}")
    partial.write_bytes(buffer.getvalue())
    partial.replace(compiled)


def check(language: str) -> list[str]:
    """What keeps the catalog from being complete, a line each."""
    known = {_key(message): message for message in _known(language) if message.id}
    wanted = {_key(message): message for message in _template() if message.id}
    problems = [f"{language}: not in the catalog: {key[1]!r}" for key in wanted if key not in known]
    problems += [f"{language}: no longer in any source: {key[1]!r}" for key in known if key not in wanted]
    for key, message in known.items():
        if not _is_translated(message):
            problems.append(f"{language}: not translated: {key[1]!r}")
        elif message.fuzzy:
            problems.append(f"{language}: a guess nobody has confirmed: {key[1]!r}")
        elif not _same_placeholders(message):
            problems.append(f"{language}: other placeholders: {key[1]!r}")
    return problems


def _known(language: str) -> Catalog:
    """The catalog as it is; an empty one when there is none yet."""
    path = po_file(language)
    if not path.is_file():
        return Catalog(locale=language, project="Sluice", charset="utf-8", fuzzy=False)
    with path.open("rb") as file:
        return read_po(file, locale=language, charset="utf-8")


def _template() -> Catalog:
    catalog = Catalog(project="Sluice", charset="utf-8", fuzzy=False)
    for file, line, text, context in (*_python_texts(), *_template_texts()):
        catalog.add(text, locations=[(file, line)], context=context, flags=_flags(text))
    return catalog


def _flags(text: str | tuple[str, str]) -> set[str]:
    return {"python-format"} if _placeholders(text if isinstance(text, str) else text[1]) else set()


def _python_texts() -> Iterator[Found]:
    for package in PACKAGES:
        for path in sorted((REPOSITORY / package).rglob("*.py")):
            if {"tests", "migrations"} & set(path.parts):
                continue
            name = str(path.relative_to(REPOSITORY))
            with path.open("rb") as file:
                for line, function, arguments, _comments in extract_python(
                    file, PYTHON_CALLS, [], {"encoding": "utf-8"}
                ):
                    texts = _as_list(arguments)
                    found = _from_call(str(function or "_"), texts)
                    if found:
                        yield (name, line, *found)


def _template_texts() -> Iterator[Found]:
    from django.conf import settings
    from django.utils.translation.template import templatize

    if not settings.configured:
        settings.configure(USE_I18N=True)
    for path in sorted((REPOSITORY / "templates").rglob("*.*")):
        if path.suffix not in {".html", ".txt"}:
            continue
        name = str(path.relative_to(REPOSITORY))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            source = templatize(path.read_text(encoding="utf-8"), origin=name)
        for match in _CALL.finditer(source):
            texts = [ast.literal_eval(text) for text in match.groups()[1:] if text is not None]
            found = _from_call(match["name"], texts)
            if found:
                yield (name, source.count("\n", 0, match.start()) + 1, *found)


def _as_list(arguments: Any) -> list[Any]:
    # One argument comes alone, several as a sequence, whatever the library's types say.
    return list(arguments) if isinstance(arguments, list | tuple) else [arguments]


def _from_call(function: str, texts: list[Any]) -> tuple[str | tuple[str, str], str | None] | None:
    """The text (or singular and plural) and the context of one call; None when they are not literal."""
    name = function.removesuffix("_lazy").removesuffix("_noop")
    context = texts.pop(0) if name in {"pgettext", "npgettext"} and texts else None
    count = 2 if name in {"ngettext", "npgettext"} else 1
    wanted = texts[:count]
    if len(wanted) < count or not all(isinstance(text, str) and text for text in wanted):
        return None
    return ((wanted[0], wanted[1]) if count == 2 else wanted[0]), context


def _key(message: Message) -> tuple[str | None, str]:
    return message.context, message.id if isinstance(message.id, str) else message.id[0]


def _is_translated(message: Message) -> bool:
    texts = _strings(message)
    return bool(texts) and all(texts)


def _strings(message: Message) -> list[str]:
    """The translation, or one for each plural form."""
    if message.string is None or isinstance(message.string, str):
        return [message.string or ""]
    return list(message.string)


def _same_placeholders(message: Message) -> bool:
    wanted = _placeholders(message.id if isinstance(message.id, str) else message.id[1])
    return all(_placeholders(text) == wanted for text in _strings(message))


def _placeholders(text: str) -> set[str]:
    return {match.group() for match in _PLACEHOLDER.finditer(text)} - {"%%"}


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
