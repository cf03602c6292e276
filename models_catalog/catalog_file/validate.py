"""From the tree of a catalog file to what it asks for. The database is not asked here."""

from __future__ import annotations

import re
from collections.abc import Mapping

from models_catalog.catalog_file.fields import Fields
from models_catalog.catalog_file.parse import Node
from models_catalog.catalog_file.problems import Place
from models_catalog.catalog_file.validate_addresses import (
    ADDRESS_FIELDS,
    CAN_BE_NOTHING,
    read_addresses,
    read_aliases,
    read_successor,
)
from models_catalog.catalog_file.validate_feeds import CODE, CODE_FORM, read_feeds
from models_catalog.catalog_file.validate_prices import read_prices
from models_catalog.catalog_file.wanted import (
    Reading,
    Reference,
    WantedBackend,
    WantedCatalog,
    WantedDeployment,
    WantedModel,
    WantedPool,
)
from models_catalog.fleet.entries import (
    MAX_CONCURRENCY,
    MAX_CREDENTIAL_LENGTH,
    UrlFault,
    fault_of_url,
)
from models_catalog.models import Engine, FleetState, ModelState
from models_catalog.models.fleet import MAX_CONFIGURATION_LENGTH

MAX_ENTRIES = 1000
MAX_DEPLOYMENTS = 200
MAX_CONTEXT_TOKENS = 20_000_000

SLUG = r"[a-z0-9][a-z0-9._-]*/[a-z0-9][a-z0-9._:-]*"
SLUG_FORM = "vendor/name in lower-case letters, digits, dots, hyphens and underscores"

_FLEET_STATES = tuple(state.value.lower() for state in FleetState)
_MODEL_STATES = tuple(state.value.lower() for state in ModelState)
# Visible ASCII: a credential travels in a header.
_CREDENTIAL = re.compile(r"[!-~]*")


def read_catalog(root: Node, reading: Reading) -> WantedCatalog:
    """What the file asks for. What is wrong is added to the problems of `reading`."""
    fields = Fields.of(root, Place(root.line, ""), reading.problems, ("pools", "backends", "models"))
    pools: list[WantedPool] = []
    backends: list[WantedBackend] = []
    models: list[WantedModel] = []
    pool_codes: set[str] = set()
    backend_codes: set[str] = set()
    feed_codes: set[str] = set()
    slugs: set[str] = set()
    if fields is not None:
        for node, place in fields.entries("pools", limit=MAX_ENTRIES):
            pool = _read_pool(node, place, reading, pool_codes)
            pools += [pool] if pool else []
        for node, place in fields.entries("backends", limit=MAX_ENTRIES):
            backend = _read_backend(node, place, reading, backend_codes, feed_codes)
            backends += [backend] if backend else []
        for node, place in fields.entries("models", limit=MAX_ENTRIES):
            model = _read_model(node, place, reading, slugs)
            models += [model] if model else []
    return WantedCatalog(
        pools=tuple(pools),
        backends=tuple(backends),
        models=tuple(models),
        pool_codes=frozenset(pool_codes),
        backend_codes=frozenset(backend_codes),
        references=tuple(reading.references),
    )


def _read_pool(node: Node, place: Place, reading: Reading, codes: set[str]) -> WantedPool | None:
    fields = Fields.of(node, place, reading.problems, ("code", "name", "accelerator_kind", "region"))
    if fields is None:
        return None
    code = _name(fields, "code", CODE, CODE_FORM, high=64, taken=codes)
    values = {
        "name": fields.text("name", high=120, required=True),
        "accelerator_kind": fields.text("accelerator_kind", high=64, required=True),
        "region": fields.text("region", high=64, required=True),
    }
    if code is None or None in values.values():
        return None
    return WantedPool(place, code, values)


def _read_backend(
    node: Node, place: Place, reading: Reading, codes: set[str], feed_codes: set[str]
) -> WantedBackend | None:
    known = (
        *("code", "pool", "engine", "engine_version", "base_url"),
        *("credential", "credential_env", "max_concurrency", "state", "configuration", "feeds"),
    )
    fields = Fields.of(node, place, reading.problems, known)
    if fields is None:
        return None
    code = _name(fields, "code", CODE, CODE_FORM, high=64, taken=codes)
    pool = fields.text("pool", high=64, pattern=CODE, form=CODE_FORM, required=True)
    if pool is not None:
        reading.references.append(Reference("pool", pool, fields.at("pool")))
    values: dict[str, object] = {
        "engine": fields.choice("engine", tuple(Engine.values), required=True),
        "base_url": _base_url(fields, reading.environ),
        "max_concurrency": fields.whole("max_concurrency", low=1, high=MAX_CONCURRENCY, required=True),
    }
    if fields.has("engine_version"):
        values["engine_version"] = fields.text("engine_version", low=0, high=64)
    if fields.has("configuration"):
        values["configuration"] = fields.lines_of_text("configuration", high=MAX_CONFIGURATION_LENGTH)
    _read_state(fields, values, _FLEET_STATES)
    credential = _credential(fields, reading.environ)
    feeds = read_feeds(fields, code, reading, feed_codes)
    if code is None or pool is None or None in values.values():
        return None
    return WantedBackend(place, code, pool, values, credential, feeds)


def _read_model(node: Node, place: Place, reading: Reading, slugs: set[str]) -> WantedModel | None:
    known = (
        *("slug", "display_name", "description", "context_tokens", "max_output_tokens"),
        *("default_output_cap_tokens", "template_overhead_tokens", "image_allowance_tokens"),
        *("capabilities", "extra_fields", "state", "deployments", "prices"),
        *ADDRESS_FIELDS,
    )
    fields = Fields.of(node, place, reading.problems, known)
    if fields is None:
        return None
    slug = _name(fields, "slug", SLUG, SLUG_FORM, high=120, taken=slugs)
    values: dict[str, object] = {"display_name": fields.text("display_name", high=120, required=True)}
    _read_sizes(fields, values)
    _read_state(fields, values, _MODEL_STATES)
    read_addresses(fields, values)
    if fields.has("description"):
        values["description"] = fields.lines_of_text("description", high=4000)
    if fields.has("capabilities"):
        form = "lower-case letters, digits and underscores"
        values["capabilities"] = fields.texts(
            "capabilities", limit=32, high=32, pattern="[a-z0-9_]+", form=form
        )
    if fields.has("extra_fields"):
        form = "the name of a request field"
        values["extra_fields"] = fields.texts(
            "extra_fields", limit=64, high=64, pattern="[A-Za-z_][A-Za-z0-9_]*", form=form
        )
    backends: set[str] = set()
    deployments = [
        _read_deployment(entry, at, reading, backends)
        for entry, at in fields.entries("deployments", limit=MAX_DEPLOYMENTS)
    ]
    prices = read_prices(fields, reading)
    can_be_nothing = CAN_BE_NOTHING | {"image_allowance_tokens"}
    values_are_right = all(value is not None for name, value in values.items() if name not in can_be_nothing)
    # A slug and an alias are names alike.
    aliases = read_aliases(fields, slugs)
    successor = read_successor(fields, slug, reading)
    if slug is None or not values_are_right:
        return None
    return WantedModel(
        place=place,
        slug=slug,
        values=values,
        deployments=tuple(each for each in deployments if each),
        prices=prices,
        aliases=aliases,
        successor=successor,
    )


def _read_sizes(fields: Fields, values: dict[str, object]) -> None:
    """Context, output and allowances, in tokens."""
    context = fields.whole("context_tokens", low=2, high=MAX_CONTEXT_TOKENS, required=True)
    output = fields.whole("max_output_tokens", low=1, high=MAX_CONTEXT_TOKENS, required=True)
    cap = fields.whole("default_output_cap_tokens", low=1, high=MAX_CONTEXT_TOKENS, required=True)
    values |= {"context_tokens": context, "max_output_tokens": output, "default_output_cap_tokens": cap}
    if context is not None and output is not None and output >= context:
        fields.wrong("max_output_tokens", "must be below context_tokens")
    if output is not None and cap is not None and cap > output:
        fields.wrong("default_output_cap_tokens", "must not be above max_output_tokens")
    if fields.has("template_overhead_tokens"):
        values["template_overhead_tokens"] = fields.whole(
            "template_overhead_tokens", low=0, high=MAX_CONTEXT_TOKENS
        )
    if fields.is_nothing("image_allowance_tokens"):
        values["image_allowance_tokens"] = None
    elif fields.has("image_allowance_tokens"):
        values["image_allowance_tokens"] = fields.whole(
            "image_allowance_tokens", low=1, high=MAX_CONTEXT_TOKENS
        )


def _read_deployment(
    node: Node, place: Place, reading: Reading, backends: set[str]
) -> WantedDeployment | None:
    fields = Fields.of(
        node,
        place,
        reading.problems,
        ("backend", "upstream_model", "state", "context_tokens", "capabilities", "quantisation"),
    )
    if fields is None:
        return None
    backend = _name(fields, "backend", CODE, CODE_FORM, high=64, taken=backends)
    if backend is not None:
        reading.references.append(Reference("backend", backend, fields.at("backend")))
    values: dict[str, object] = {"upstream_model": fields.text("upstream_model", high=200, required=True)}
    _read_state(fields, values, _FLEET_STATES)
    if fields.has("quantisation"):
        values["quantisation"] = fields.text("quantisation", low=0, high=64)
    is_right = backend is not None and None not in values.values()
    if fields.is_nothing("context_tokens"):
        values["context_tokens"] = None
    elif fields.has("context_tokens"):
        values["context_tokens"] = fields.whole("context_tokens", low=1, high=MAX_CONTEXT_TOKENS)
        is_right = is_right and values["context_tokens"] is not None
    if fields.is_nothing("capabilities"):
        values["capabilities"] = None
    elif fields.has("capabilities"):
        form = "small letters, digits and underscores"
        values["capabilities"] = fields.texts(
            "capabilities", limit=32, high=32, pattern="[a-z0-9_]+", form=form
        )
        is_right = is_right and values["capabilities"] is not None
    return WantedDeployment(place, backend, values) if backend is not None and is_right else None


def _name(fields: Fields, field: str, pattern: str, form: str, *, high: int, taken: set[str]) -> str | None:
    """The name that an entry goes by; unique among its siblings."""
    name = fields.text(field, high=high, pattern=pattern, form=form, required=True)
    if name is None:
        return None
    if name in taken:
        fields.wrong(field, "is in this list already")
    taken.add(name)
    return name


def _read_state(fields: Fields, values: dict[str, object], states: tuple[str, ...]) -> None:
    if fields.has("state"):
        state = fields.choice("state", states)
        values["state"] = state.upper() if state else None


def _base_url(fields: Fields, environ: Mapping[str, str]) -> str | None:
    """Where the engine answers, without a trailing slash. Messages do not repeat the address."""
    text = fields.substituted("base_url", environ, required=True)
    if text is None:
        return None
    text = text.rstrip("/")
    fault = fault_of_url(text)
    if fault is not None:
        hint = ": use credential or credential_env" if fault == UrlFault.CREDENTIALS else ""
        fields.wrong("base_url", f"{fault.value}{hint}")
        return None
    return text


def _credential(fields: Fields, environ: Mapping[str, str]) -> str | None:
    """What the backend wants as its bearer token; None when absent. Messages do not repeat it."""
    if fields.has("credential") and fields.has("credential_env"):
        fields.wrong("credential_env", "must not stand beside credential")
        return None
    if fields.has("credential_env"):
        name = "credential_env"
        value = fields.variable(name, environ)
    else:
        name = "credential"
        value = fields.substituted(name, environ)
    if value is None:
        return None
    if len(value) > MAX_CREDENTIAL_LENGTH or _CREDENTIAL.fullmatch(value) is None:
        fields.wrong(name, f"must be at most {MAX_CREDENTIAL_LENGTH} visible ASCII characters without spaces")
        return None
    return value
