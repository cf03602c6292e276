"""Applying catalog files: each kind of change, again without effect, and without writing."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connections, transaction

from models_catalog.catalog_file import CatalogBusy, CatalogFileError, apply_catalog
from models_catalog.fleet.tests.rows import make_backend, make_capacity, make_deployment, make_pool
from models_catalog.models import (
    CatalogModel,
    Deployment,
    FleetState,
    ModelState,
    PriceVersion,
    ServingBackend,
    ServingPool,
)
from models_catalog.tests.catalog_files import apply, fresh_name, model_file, revision, store, usd, whole_file
from portal.kit.clock import utc_now
from tenants.scope import ScopeMissing, role_scope

pytestmark = pytest.mark.usefixtures("database")

SECRET = "sk-secret-0123456789"


def backend_file(n: str, *extra: str, concurrency: int = 4, pool: str = "") -> str:
    code = pool or f"pool-{n}"
    fields = "".join(f"    {line}\n" for line in extra)
    return (
        f"pools:\n  - {{code: {code}, name: Pool, accelerator_kind: cpu, region: here}}\n"
        f"backends:\n  - code: backend-{n}\n    pool: {code}\n    engine: generic\n"
        f"    base_url: http://engine:8000\n    max_concurrency: {concurrency}\n{fields}"
    )


def versions(n: str) -> list[PriceVersion]:
    with role_scope("operator"):
        return list(
            PriceVersion.objects.filter(model__slug=f"acme/m-{n}").order_by("active_from", "created_at")
        )


def stored_backend(n: str) -> ServingBackend:
    with role_scope("operator"):
        return ServingBackend.objects.select_related("pool").get(code=f"backend-{n}")


def amounts(n: str) -> list[tuple[str, bool]]:
    """Units per million of each version that was ever in force or will be, and whether it is open-ended."""
    with role_scope("operator"):
        return [
            (
                str(version.lines.filter(token_class="input").get().price_nanos_per_million / 10**9),
                not version.active_to,
            )
            for version in versions(n)
            if version.active_to is None or version.active_to > version.active_from
        ]


def without_moments(lines: tuple[str, ...]) -> list[str]:
    return [re.sub(r"\d{4}-\d\d-\d\dT[0-9:.]+Z", "T", line) for line in lines]


def test_a_new_catalog_is_written_once() -> None:
    n = fresh_name()
    assert without_moments(apply(whole_file(n)).lines) == [
        f"+ pool pool-{n}",
        f"+ backend backend-{n}",
        f"+ model acme/m-{n}",
        f"+ deployment acme/m-{n} on backend-{n}",
        f"+ price acme/m-{n} USD from T (2 lines)",
    ]
    before = revision()
    assert apply(whole_file(n)).lines == ()
    assert revision() == before
    [version] = versions(n)
    assert version.published_at is not None
    assert version.active_to is None


def test_a_dry_run_tells_the_same_and_writes_nothing() -> None:
    n = fresh_name()
    before = revision()
    told = apply(whole_file(n), dry_run=True)
    assert told.dry_run
    with role_scope("operator"):
        assert not ServingPool.objects.filter(code=f"pool-{n}").exists()
        assert not CatalogModel.objects.filter(slug=f"acme/m-{n}").exists()
    assert revision() == before
    assert without_moments(told.lines) == without_moments(apply(whole_file(n)).lines)


def test_each_change_of_pools_and_backends_is_told_and_made() -> None:
    n = fresh_name()
    apply(backend_file(n))
    assert apply(backend_file(n, concurrency=8)).lines == (f"~ backend backend-{n} max_concurrency 4 → 8",)
    changed = backend_file(n, "engine_version: '0.5.1'", "state: draining", concurrency=9).replace(
        "http://engine:8000", "https://other:9000/base/"
    )
    assert apply(changed).lines == (
        f"~ backend backend-{n} base_url http://engine:8000 → https://other:9000/base, "
        'max_concurrency 8 → 9, engine_version "" → 0.5.1, state active → draining',
    )
    assert stored_backend(n).base_url == "https://other:9000/base"
    assert stored_backend(n).state == FleetState.DRAINING
    assert apply(changed.replace("name: Pool", "name: New name")).lines == (
        f'~ pool pool-{n} name Pool → "New name"',
    )
    moved = backend_file(n, concurrency=9, pool=f"pool2-{n}").replace(
        "http://engine:8000", "https://other:9000/base"
    )
    assert apply(moved).lines == (
        f"+ pool pool2-{n}",
        f"~ backend backend-{n} pool pool-{n} → pool2-{n}",
    )
    # What the last file did not write is as it was.
    assert stored_backend(n).state == FleetState.DRAINING
    assert stored_backend(n).engine_version == "0.5.1"


def test_notes_about_a_backend_have_lines_and_are_not_repeated() -> None:
    n = fresh_name()
    apply(backend_file(n))
    noted = backend_file(n, "configuration: |", "  --tensor-parallel-size 8", "  --quantization fp8")
    assert apply(noted).lines == (f"~ backend backend-{n} configuration changed",)
    assert stored_backend(n).configuration == "--tensor-parallel-size 8\n--quantization fp8\n"
    assert apply(noted).lines == ()


def test_a_backend_cannot_be_moved_into_a_pool_that_is_reserved() -> None:
    n = fresh_name()
    apply(backend_file(n))
    with role_scope("operator"):
        backend = stored_backend(n)
        full, other = make_backend(make_pool()), make_deployment(backend)
        start = utc_now().replace(microsecond=0)
        make_capacity(make_deployment(full), reserved_ppm=900_000, active_from=start)
        make_capacity(other, reserved_ppm=200_000, active_from=start)
    with pytest.raises(CatalogFileError, match="would be reserved"):
        apply(backend_file(n, pool=full.pool.code))
    assert stored_backend(n).pool == backend.pool


def test_each_change_of_models_and_deployments_is_told_and_made() -> None:
    n = fresh_name()
    apply(whole_file(n))
    text = (
        whole_file(n)
        .replace("context_tokens: 4096", "context_tokens: 8192")
        .replace(
            "  deployments:",
            "  description: |\n    Two\n    lines.\n  capabilities: [chat, tools]\n  extra_fields: [top_k]\n"
            "  image_allowance_tokens: 100\n  template_overhead_tokens: 0\n  deployments:",
        )
    )
    assert apply(text).lines == (
        f"~ model acme/m-{n} context_tokens 4096 → 8192, template_overhead_tokens 256 → 0, "
        "image_allowance_tokens none → 100, description changed, capabilities [] → [chat, tools], "
        "extra_fields [] → [top_k]",
    )
    assert apply(whole_file(n).replace("context_tokens: 4096", "context_tokens: 8192")).lines == ()
    with role_scope("operator"):
        model = CatalogModel.objects.get(slug=f"acme/m-{n}")
    assert (model.description, model.capabilities) == ("Two\nlines.\n", ["chat", "tools"])
    cleared = whole_file(n).replace(
        "  deployments:", "  state: retired\n  image_allowance_tokens:\n  capabilities: []\n  deployments:"
    )
    assert apply(cleared.replace("upstream_model: up", "upstream_model: other, state: disabled")).lines == (
        f"~ model acme/m-{n} context_tokens 8192 → 4096, image_allowance_tokens 100 → none, "
        "state active → retired, capabilities [chat, tools] → []",
        f"~ deployment acme/m-{n} on backend-{n} upstream_model up → other, state active → disabled",
    )
    with role_scope("operator"):
        assert CatalogModel.objects.get(slug=f"acme/m-{n}").state == ModelState.RETIRED
        assert Deployment.objects.get(model__slug=f"acme/m-{n}").state == FleetState.DISABLED


def test_what_a_deployment_can_do_is_told_and_made() -> None:
    n = fresh_name()
    apply(whole_file(n))
    able = "upstream_model: up, context_tokens: 2048, capabilities: [tools], quantisation: FP8"
    (line,) = apply(whole_file(n).replace("upstream_model: up", able)).lines
    assert line.startswith(f"~ deployment acme/m-{n} on backend-{n} ")
    assert "context_tokens none → 2048" in line
    assert "capabilities none → [tools]" in line
    assert "FP8" in line
    # What the file does not speak of stays; an empty value takes it away.
    assert apply(whole_file(n)).lines == ()
    (line,) = apply(
        whole_file(n).replace("upstream_model: up", "upstream_model: up, context_tokens:, capabilities:")
    ).lines
    assert "context_tokens 2048 → none" in line
    assert "capabilities [tools] → none" in line


def test_a_file_may_refer_to_what_an_earlier_one_made() -> None:
    n = fresh_name()
    apply(whole_file(n))
    second = whole_file(n).split("backends:", 1)[1].replace(f"backend-{n}", f"backend2-{n}", 1)
    assert apply("backends:" + second).lines == (f"+ backend backend2-{n}",)


def test_credentials_are_encrypted_compared_and_never_told(capsys: pytest.CaptureFixture[str]) -> None:
    n = fresh_name()
    environ = {"ENGINE_KEY": SECRET}
    told = [*apply(backend_file(n, "credential_env: ENGINE_KEY"), environ=environ).lines]
    stored = stored_backend(n).credential_encrypted
    assert SECRET not in stored
    assert store().decrypt(stored) == SECRET
    for same in ("credential_env: ENGINE_KEY", f"credential: {SECRET}", "credential: '${ENGINE_KEY}'"):
        assert apply(backend_file(n, same), environ=environ).lines == ()
    assert stored_backend(n).credential_encrypted == stored
    # A file that does not speak of the credential leaves it.
    assert apply(backend_file(n)).lines == ()
    told += apply(backend_file(n, "credential: sk-other-0123456789")).lines
    assert told[-1] == f"~ backend backend-{n} credential changed"
    assert store().decrypt(stored_backend(n).credential_encrypted) == "sk-other-0123456789"
    told += apply(backend_file(n, "credential: ''")).lines
    assert told[-1] == f"~ backend backend-{n} credential removed"
    assert stored_backend(n).credential_encrypted == ""
    assert "sk-" not in "\n".join(told) + capsys.readouterr().out


def test_a_credential_that_cannot_be_opened_is_replaced() -> None:
    n = fresh_name()
    apply(backend_file(n, f"credential: {SECRET}"))
    with role_scope("operator"):
        ServingBackend.objects.filter(code=f"backend-{n}").update(credential_encrypted="1:rubbish")
    assert apply(backend_file(n, f"credential: {SECRET}")).lines == (
        f"~ backend backend-{n} credential changed",
    )
    assert store().decrypt(stored_backend(n).credential_encrypted) == SECRET


def test_the_environment_fills_addresses() -> None:
    n = fresh_name()
    text = backend_file(n).replace("http://engine:8000", "http://${HOST}:${PORT}")
    apply(text, environ={"HOST": "127.0.0.1", "PORT": "9"})
    assert stored_backend(n).base_url == "http://127.0.0.1:9"


def test_another_price_ends_the_one_in_force_at_that_moment() -> None:
    n = fresh_name()
    apply(model_file(n, usd("1")))
    assert without_moments(apply(model_file(n, usd("2"))).lines) == [
        f"~ price acme/m-{n} USD from T ends T",
        f"+ price acme/m-{n} USD from T (2 lines)",
    ]
    first, second = versions(n)
    assert first.active_to == second.active_from
    assert second.active_to is None
    assert apply(model_file(n, usd("2"))).lines == ()


def test_an_announced_price_is_published_once() -> None:
    n = fresh_name()
    begins = datetime(2099, 1, 1, tzinfo=UTC)
    text = model_file(n, usd("1"), usd("2", "2099-01-01T08:00:00+08:00"))
    apply(text)
    assert [(version.active_to, version.active_from == begins) for version in versions(n)] == [
        (begins, False),
        (None, True),
    ]
    before = revision()
    assert apply(text).lines == ()
    # Nor does it when the announced price is in force at last.
    assert apply(text, now=begins).lines == ()
    assert apply(text, now=begins + timedelta(days=30)).lines == ()
    assert revision() == before
    # A file without the announcement leaves it alone.
    assert apply(model_file(n, usd("1"))).lines == ()
    # A price that is withdrawn before it ever held is replaced.
    assert apply(model_file(n, usd("1"), usd("3", "2099-01-01T00:00:00Z"))).lines == (
        f"- price acme/m-{n} USD from 2099-01-01T00:00:00Z withdrawn",
        f"+ price acme/m-{n} USD from 2099-01-01T00:00:00Z (2 lines)",
    )
    assert amounts(n) == [("1.0", False), ("3.0", True)]


def test_an_announced_price_can_be_put_off() -> None:
    n = fresh_name()
    apply(model_file(n, usd("1"), usd("2", "2099-01-01T00:00:00Z")))
    assert apply(model_file(n, usd("1"), usd("2", "2099-02-01T00:00:00Z"))).lines == (
        f"- price acme/m-{n} USD from 2099-01-01T00:00:00Z withdrawn",
        f"+ price acme/m-{n} USD from 2099-01-01T00:00:00Z until 2099-02-01T00:00:00Z (2 lines)",
        f"+ price acme/m-{n} USD from 2099-02-01T00:00:00Z (2 lines)",
    )
    assert amounts(n) == [("1.0", False), ("1.0", False), ("2.0", True)]


def test_the_first_price_may_begin_in_the_past_but_no_later_one() -> None:
    n = fresh_name()
    apply(model_file(n, usd("1", "2020-01-01T00:00:00Z")))
    [version] = versions(n)
    assert version.active_from == datetime(2020, 1, 1, tzinfo=UTC)
    assert apply(model_file(n, usd("1", "2020-01-01T00:00:00Z"))).lines == ()
    with pytest.raises(
        CatalogFileError, match=r"^catalog\.yaml:8: models\[0\]\.prices\[0\]\.active_from: this moment"
    ):
        apply(model_file(n, usd("2", "2020-01-01T00:00:00Z")))
    assert amounts(n) == [("1.0", True)]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("time_zone: Europe/Berlin", "time_zone: Asia/Shanghai"),
        ("Mon-Fri 22:00-06:00", "Mon-Fri 22:00-07:00"),
        ("tier: batch", "tier: reserved"),
        ("window: night}", "window: night, input_to: 1000}"),
        ("'0.5'", "'0.500000001'"),
        (", {class: request, price_per_million: '9'}", ""),
    ],
)
def test_any_difference_in_content_is_a_new_version(before: str, after: str) -> None:
    n = fresh_name()
    price = (
        "{currency: CNY, time_zone: Europe/Berlin, windows: [{name: night, spans: [Mon-Fri 22:00-06:00]}], "
        "lines: ["
        "{class: input, price_per_million: '1'}, {class: output, price_per_million: '2'}, "
        "{class: input, price_per_million: '0.5', window: night}, "
        "{class: input, price_per_million: '1', tier: batch}, "
        "{class: output, price_per_million: '1', tier: batch}, "
        "{class: request, price_per_million: '9'}]}"
    )
    apply(model_file(n, price))
    reordered = price.replace("{class: input, price_per_million: '1'}, ", "", 1).replace(
        "lines: [", "lines: [{class: input, price_per_million: '1.000'}, "
    )
    assert apply(model_file(n, reordered)).lines == ()
    assert before in price
    assert len(apply(model_file(n, price.replace(before, after))).changes) == 2


def test_spans_across_the_end_of_the_week_are_stored_in_two_parts() -> None:
    n = fresh_name()
    price = (
        "{currency: USD, windows: [{name: rest, spans: [Sun 22:00-Mon 06:00]}], lines: ["
        "{class: input, price_per_million: '1'}, {class: output, price_per_million: '2'}]}"
    )
    apply(model_file(n, price))
    with role_scope("operator"), connections["operator"].cursor() as cursor:
        cursor.execute(
            "SELECT lower(minutes), upper(minutes) FROM models_catalog_pricewindowspan s "
            "JOIN models_catalog_priceversion v ON v.id = s.version_id "
            "JOIN models_catalog_catalogmodel m ON m.id = v.model_id WHERE m.slug = %s ORDER BY 1",
            [f"acme/m-{n}"],
        )
        assert cursor.fetchall() == [(0, 360), (9960, 10080)]
    assert apply(model_file(n, price)).lines == ()


def test_currencies_have_prices_of_their_own() -> None:
    n = fresh_name()
    apply(model_file(n, usd("1"), usd("7").replace("USD", "CNY")))
    assert without_moments(apply(model_file(n, usd("1"), usd("8").replace("USD", "CNY"))).lines) == [
        f"~ price acme/m-{n} CNY from T ends T",
        f"+ price acme/m-{n} CNY from T (2 lines)",
    ]


def test_a_mistake_anywhere_changes_nothing() -> None:
    n = fresh_name()
    before = revision()
    with pytest.raises(CatalogFileError):
        apply(whole_file(n) + f"- {{slug: acme/other-{n}}}\n")
    with role_scope("operator"):
        assert not ServingPool.objects.filter(code=f"pool-{n}").exists()
    assert revision() == before


def test_what_only_the_database_refuses_is_told_like_a_mistake() -> None:
    n = fresh_name()
    apply(model_file(n, usd("1")))
    # As if somebody had published a price after the file was compared: the versions would overlap.
    from models_catalog.catalog_file import plan

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "plan_timeline", lambda published, wanted, now: _plan_blindly(wanted, now))
        with pytest.raises(
            CatalogFileError, match=r"^catalog.yaml:8: models\[0\].prices\[0\]: the database refuses"
        ):
            apply(model_file(n, usd("2")))
    assert amounts(n) == [("1.0", True)]


def _plan_blindly(wanted, now):
    from models_catalog.catalog_file.timeline import PublishStep

    return [PublishStep(entry, now, None) for entry in wanted]


def test_two_files_at_a_time_wait_for_each_other_but_not_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    from models_catalog.pricing import locking as module

    monkeypatch.setattr(module, "_LOCK_TIMEOUT_MS", 50)
    with transaction.atomic(using="owner"), connections["owner"].cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [module._ADVISORY_KEY])
        with pytest.raises(CatalogBusy):
            apply(whole_file(fresh_name()))


def test_a_scope_must_be_open() -> None:
    with pytest.raises(ScopeMissing):
        apply_catalog(document="pools: []", secrets=store())
