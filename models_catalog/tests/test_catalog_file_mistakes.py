"""Wrong catalog files: each mistake is told with file, line and field, all at once, and changes nothing."""

from __future__ import annotations

import pytest

from models_catalog.catalog_file import CatalogFileError
from models_catalog.catalog_file.parse import MAX_TEXT_BYTES
from models_catalog.catalog_file.problems import MAX_PROBLEMS
from models_catalog.tests.catalog_files import apply, revision

pytestmark = pytest.mark.usefixtures("database")

# Line 1 is the first line; the cases below count on it.
GOOD = """\
pools:
  - code: wrong-pool
    name: Pool
    accelerator_kind: cpu
    region: here
backends:
  - code: wrong-1
    pool: wrong-pool
    engine: vllm
    base_url: http://engine:8000
    credential: sk-secret
    max_concurrency: 4
models:
  - slug: wrong/model
    display_name: Wrong
    context_tokens: 4096
    max_output_tokens: 1024
    default_output_cap_tokens: 256
    capabilities: [chat]
    deployments:
      - backend: wrong-1
        upstream_model: up
    prices:
      - currency: USD
        time_zone: Europe/Berlin
        windows:
          - name: night
            spans: [Mon-Fri 22:00-06:00]
        lines:
          - class: input
            price_per_million: "1"
          - class: output
            price_per_million: "2"
          - class: output
            price_per_million: "1"
            window: night
"""

REGION = "pools[0].region"
URL = "backends[0].base_url"
CREDENTIAL_ENV = "backends[0].credential_env"
CONCURRENCY = "backends[0].max_concurrency"
DEPLOYMENT = "models[0].deployments[0]"
PRICE = "models[0].prices[0]"
SPAN = f"{PRICE}.windows[0].spans[0]"
AMOUNT = f"{PRICE}.lines[1].price_per_million"

# What the cases replace.
ADDRESS = "http://engine:8000"
CREDENTIAL = "credential: sk-secret"
NIGHTS = "[Mon-Fri 22:00-06:00]"
TWO = 'price_per_million: "2"'

CASES = [
    # Pools and references.
    ("code: wrong-pool", "code: wrong pool", 2, "pools[0].code", "must be of letters, digits"),
    ("    name: Pool\n", "", 2, "pools[0].name", "is required"),
    ("name: Pool", "name: 5", 3, "pools[0].name", "must be a text, but YAML reads a number"),
    ("region: here", "region: no", 5, REGION, "must be a text, but YAML reads a truth value"),
    ("region: here", "region:", 5, REGION, "has no value"),
    ("region: here", 'region: "a\\nb"', 5, REGION, "must be one line without control"),
    ("region: here", 'region: "\\uD800"', 5, REGION, "must be one line without control"),
    ("region: here", "region: [here]", 5, REGION, "must be a single value"),
    ("region: here", "region: here\n    colour: red", 6, "pools[0].colour", "is not a field here"),
    ("region: here", "region: here\n    region: there", 6, REGION, "is written twice"),
    ("region: here", "region: x\n  - code: wrong-pool\n    name: B\n    accelerator_kind: c\n    region: x",
     6, "pools[1].code", "is in this list already"),
    ("pool: wrong-pool", "pool: nowhere", 8, "backends[0].pool", "there is no pool nowhere"),
    ("backend: wrong-1", "backend: nowhere", 21, f"{DEPLOYMENT}.backend", "there is no backend nowhere"),
    # Backends.
    ("engine: vllm", "engine: tgi", 9, "backends[0].engine", "must be one of sglang, vllm"),
    ("engine: vllm", "engine: vllm\n    engine_version: 1", 10, "backends[0].engine_version", "must be a"),
    (ADDRESS, "ftp://engine", 10, URL, "must be an http:// or https://"),
    (ADDRESS, "'http:///x'", 10, URL, "must be an http:// or https://"),
    (ADDRESS, "http://u:p@engine", 10, URL, "must not hold credentials"),
    (ADDRESS, "http://engine/?a=b", 10, URL, "must have no query"),
    (ADDRESS, "http://engine/#a", 10, URL, "must have no query"),
    (ADDRESS, "http://engine/v1/", 10, URL, "must be written without /v1"),
    (ADDRESS, "http://engine:99999", 10, URL, "must be a valid address"),
    (ADDRESS, "'http://en gine'", 10, URL, "must be a valid address"),
    (ADDRESS, "http://${ENGINE", 10, URL, "must name each variable"),
    (ADDRESS, "http://${NOT_SET}", 10, URL,
     "the environment variable NOT_SET is not set or empty"),
    (CREDENTIAL, "credential_env: NOT_SET", 11, CREDENTIAL_ENV,
     "the environment variable NOT_SET is not set"),
    (CREDENTIAL, "credential: sk-secret\n    credential_env: SET", 12, CREDENTIAL_ENV,
     "must not stand beside credential"),
    (CREDENTIAL, "credential: 'sk-secret\\\\ x'", 11, "backends[0].credential", "must be at most"),
    ("max_concurrency: 4", "max_concurrency: 0", 12, CONCURRENCY, "must be from 1 to"),
    ("max_concurrency: 4", "max_concurrency: 4.0", 12, CONCURRENCY, "must be a whole"),
    ("max_concurrency: 4", "max_concurrency: '4'", 12, CONCURRENCY, "must be a whole"),
    ("max_concurrency: 4", "max_concurrency: 4\n    state: retired", 13, "backends[0].state",
     "must be one of active, draining, disabled"),
    # Models.
    ("slug: wrong/model", "slug: Wrong/Model", 14, "models[0].slug", "must be vendor/name"),
    ("context_tokens: 4096", "context_tokens: 99999999", 16, "models[0].context_tokens", "must be from 2 to"),
    ("output_tokens: 1024", "output_tokens: 4096", 17, "models[0].max_output_tokens", "must be below"),
    ("cap_tokens: 256", "cap_tokens: 2000", 18, "models[0].default_output_cap_tokens", "must not be above"),
    ("[chat]", "[chat, chat]", 19, "models[0].capabilities[1]", "is in the list already"),
    ("[chat]", "chat", 19, "models[0].capabilities", "must be a list"),
    ("capabilities: [chat]", "extra_fields: ['a b']", 19, "models[0].extra_fields[0]", "must be the name of"),
    ("capabilities: [chat]", "state: disabled", 19, "models[0].state", "must be one of active, retired"),
    ("upstream_model: up", "upstream: up", 22, f"{DEPLOYMENT}.upstream", "is not a field here"),
    # Prices.
    ("currency: USD", "currency: usd", 24, f"{PRICE}.currency", "must be a code such as USD"),
    ("currency: USD", "currency: EUR", 24, f"{PRICE}.currency", "must be one of USD, CNY"),
    ("Europe/Berlin", "Europe/Berln", 25, f"{PRICE}.time_zone", "there is no time zone Europe/Berln"),
    ("Europe/Berlin", "Europe/Berlin\n        active_from: 2099-01-01", 26, f"{PRICE}.active_from",
     "must be a moment with its offset"),
    (NIGHTS, "[Mo-Fr 22:00-06:00]", 28, SPAN, "must look like"),
    (NIGHTS, "[Mon 22:00-25:00]", 28, SPAN, "must look like"),
    (NIGHTS, "[Mon 10:00-10:00]", 28, SPAN, "begins and ends at the same"),
    (NIGHTS, "[]", 28, f"{PRICE}.windows[0].spans", "must have at least one span"),
    (NIGHTS, "[Mon 01:00-02:00]\n          - name: two\n            spans: [Sun 00:00-Mon 01:01]",
     30, f"{PRICE}.windows[1].spans", "must not overlap those of the window 'night'"),
    ("class: input", "class: prompt", 30, f"{PRICE}.lines[0].class", "must be one of input, cached_input"),
    (TWO, "price_per_million: 2", 33, AMOUNT,
     "must be a decimal string"),
    (TWO, 'price_per_million: "1e3"', 33, AMOUNT,
     "must be a decimal string"),
    (TWO, 'price_per_million: "-1"', 33, AMOUNT, "must be from 0"),
    (TWO, 'price_per_million: "1000.000000001"', 33, AMOUNT,
     "must be from 0 to 1000"),
    (TWO, 'price_per_million: "0.0000000001"', 33, AMOUNT,
     "must be a decimal string"),
    ("window: night", "window: day", 36, f"{PRICE}.lines[2].window", "is not one of this price's windows"),
    ("window: night", "tier: cheap", 36, f"{PRICE}.lines[2].tier", "must be one of standard"),
    ("window: night", "input_from: 5\n            input_to: 5", 37, f"{PRICE}.lines[2].input_to", "must be"),
    ("            window: night\n", "", 34, f"{PRICE}.lines[2]", "another line has a price"),
    ('class: input\n            price_per_million: "1"', 'class: input\n            price_per_million: "1"\n'
     "            input_to: 5", 29, f"{PRICE}.lines",
     "need a price of class input and tier standard, without a window, for inputs from 5 tokens on"),
    ("window: night", "tier: batch", 29, f"{PRICE}.lines", "need a price of class input and tier batch"),
    # The file as a whole.
    ("pools:\n", "pools:\n\t", 2, "", "not valid YAML"),
    ("name: Pool", "name: &pool Pool", 3, "", "anchors and aliases"),
    ("name: Pool", "name: *pool", 3, "", "anchors and aliases"),
    ("name: Pool", "name: !!python/name:os.system Pool", 3, "", "tags (!) are not allowed"),
    ("name: Pool", "name: Pool\n    <<: {region: x}", 4, "pools[0].<<", "is not a field here"),
    ("name: Pool", "name: [[[[[[[[[[[[x]]]]]]]]]]]]", 3, "", "nested deeper than"),
    ("name: Pool", "? [a]\n    : b", 3, "", "a key is a text"),
    ("name: Pool", "name: Pool\x07", 3, "", "holds a character that YAML does not allow"),
    ("window: night\n", "window: night\n---\npools: []\n", 37, "", "a catalog file holds one YAML document"),
    (GOOD, "", 1, "", "the file is empty"),
    (GOOD, "- pools", 1, "", "must be a mapping with pools, backends, models"),
    (GOOD, "pools: {a: b}", 1, "pools", "must be a list"),
    (GOOD, "pools: [a]", 1, "pools[0]", "must be a mapping with code, name"),
    (GOOD, "x" * (MAX_TEXT_BYTES + 1), 1, "", "a catalog file has at most 1048576 bytes"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("good", "wrong", "line", "field", "what"),
    CASES,
    ids=[f"{index}-{case[3] or 'file'}" for index, case in enumerate(CASES)],
)
def test_a_mistake_is_told_with_file_line_and_field(
    good: str, wrong: str, line: int, field: str, what: str
) -> None:
    assert good in GOOD
    before = revision()
    with pytest.raises(CatalogFileError) as caught:
        apply(GOOD.replace(good, wrong, 1), environ={"SET": "sk-secret"})
    place = f"catalog.yaml:{line}: {field}: " if field else f"catalog.yaml:{line}: "
    assert [each for each in caught.value.problems if each.startswith(place + what)], caught.value.problems
    assert "sk-secret" not in str(caught.value)
    assert revision() == before


def test_the_good_file_has_no_mistake() -> None:
    assert len(apply(GOOD, dry_run=True).changes) == 5


def test_two_prices_of_one_currency_may_not_begin_together() -> None:
    second = GOOD[GOOD.index("      - currency: USD") :]
    with pytest.raises(CatalogFileError) as caught:
        apply(GOOD + second)
    [problem] = caught.value.problems
    assert problem.startswith(
        "catalog.yaml:37: models[0].prices[1].active_from: another price of this currency"
    )


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file() -> None:
    text = (
        GOOD.replace("region: here", "region: 7")
        .replace("pool: wrong-pool", "pool: nowhere")
        .replace("engine: vllm", "engine: tgi")
        .replace("Europe/Berlin", "Mars/Olympus")
        .replace('price_per_million: "2"', "price_per_million: 2")
    )
    with pytest.raises(CatalogFileError) as caught:
        apply(text)
    assert [problem.split(": ")[0] for problem in caught.value.problems] == [
        f"catalog.yaml:{line}" for line in (5, 8, 9, 25, 33)
    ]


def test_the_list_of_mistakes_is_bounded() -> None:
    with pytest.raises(CatalogFileError) as caught:
        apply("pools:\n" + "- {}\n" * 100)
    assert caught.value.count == 400
    assert len(caught.value.problems) == MAX_PROBLEMS + 1
    assert caught.value.problems[-1] == "catalog.yaml: and 350 more"
