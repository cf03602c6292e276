"""Names, endpoints and ends of models in catalog files, and what the database says of names."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.db import IntegrityError, connections, transaction

from models_catalog.catalog_file import CatalogFileError
from models_catalog.models import CancelPolicy, CatalogModel, ModelAlias
from models_catalog.tests.catalog_files import MODEL, apply, fresh_name, revision
from tenants.scope import role_scope

pytestmark = pytest.mark.usefixtures("database")


def file(*models: tuple[str, tuple[str, ...]]) -> str:
    """Models by their suffixes, each with further lines."""
    return "models:\n" + "".join(
        MODEL.format(n=n) + "".join(f"  {line}\n" for line in lines) for n, lines in models
    )


def stored(n: str) -> CatalogModel:
    with role_scope("operator"):
        return CatalogModel.objects.select_related("successor").get(slug=f"acme/m-{n}")


def aliases(n: str) -> list[str]:
    with role_scope("operator"):
        found = ModelAlias.objects.filter(model__slug=f"acme/m-{n}").order_by("name")
        return list(found.values_list("name", flat=True))


def refused(text: str) -> str:
    with pytest.raises(CatalogFileError) as caught:
        apply(text)
    return str(caught.value)


def test_aliases_come_move_and_go() -> None:
    a, b = f"a{fresh_name()}", f"b{fresh_name()}"
    one, two = f"GPT-{a}", f"latest/{a}"
    assert f"+ alias {one} of acme/m-{a}" in apply(file((a, (f"aliases: [{one}, {two}]",)), (b, ()))).lines
    assert aliases(a) == [one, two]
    before = revision()
    assert apply(file((a, (f"aliases: [{one}, {two}]",)))).lines == ()
    assert apply(file((a, ()))).lines == (), "what the file does not speak of stays"
    assert revision() == before
    assert apply(file((a, (f"aliases: [{one}]",)), (b, (f"aliases: [{two}]",)))).lines == (
        f"~ alias {two} acme/m-{a} → acme/m-{b}",
    )
    assert revision() > before
    assert apply(file((a, ("aliases: []",)))).lines == (f"- alias {one} of acme/m-{a}",)
    assert (aliases(a), aliases(b)) == ([], [two])


def test_endpoints_policy_and_end() -> None:
    a, b = f"a{fresh_name()}", f"b{fresh_name()}"
    lines = (
        "endpoints: [chat.completions, messages]",
        "cancel_policy: input",
        "deprecated_at: 2030-01-01T00:00:00Z",
        "sunset_at: 2030-06-01T08:00:00+08:00",
        f"successor: acme/m-{b}",
    )
    assert f"~ model acme/m-{a} successor acme/m-{b}" in apply(file((a, lines), (b, ()))).lines
    model = stored(a)
    assert model.endpoints == ["chat.completions", "messages"]
    assert model.cancel_policy == CancelPolicy.INPUT
    assert model.sunset_at is not None
    assert model.sunset_at.isoformat() == "2030-06-01T00:00:00+00:00"
    assert model.successor is not None
    assert model.successor.slug == f"acme/m-{b}"
    assert apply(file((a, lines), (b, ()))).lines == ()
    gone = ("endpoints: []", "cancel_policy: delivered", "sunset_at:", "deprecated_at:", "successor:")
    told = apply(file((a, gone))).lines
    assert told[0].startswith(f"~ model acme/m-{a} endpoints [chat.completions, messages] → []")
    assert "cancel_policy input → delivered" in told[0]
    assert "sunset_at 2030-06-01T00:00:00Z → none" in told[0]
    assert told[1] == f"~ model acme/m-{a} successor none"
    assert stored(a).deprecated_at is None


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("endpoints: [chat]", "must be of chat.completions"),
        ("aliases: ['has space']", "must be letters"),
        ("aliases: [x, x]", "is in the list already"),
        ("cancel_policy: sometimes", "must be one of delivered, input, nothing"),
        ("sunset_at: tomorrow", "must be a moment"),
        ("successor: nobody/nothing", "there is no model nobody/nothing"),
    ],
)
def test_mistakes_are_named(line: str, said: str) -> None:
    assert said in refused(file((fresh_name(), (line,))))


def test_an_end_follows_its_announcement() -> None:
    n = fresh_name()
    moments = ("deprecated_at: 2030-06-01T00:00:00Z", "sunset_at: 2030-01-01T00:00:00Z")
    assert "must not be before" in refused(file((n, moments)))
    assert "model_deprecated_before_sunset" in refused(file((n, moments[1:])))
    assert "must be another model" in refused(file((n, (f"successor: acme/m-{n}",))))


def test_a_name_leads_to_one_model() -> None:
    a, b = f"a{fresh_name()}", f"b{fresh_name()}"
    assert "leads to another model" in refused(file((a, ("aliases: [x1]",)), (b, ("aliases: [x1]",))))
    apply(file((a, ()), (b, ())))
    taken = refused(file((a, (f"aliases: [acme/m-{b}]",))))
    assert f"acme/m-{b} is both a model's and an alias" in taken


@pytest.fixture
def two_operators() -> Iterator[None]:
    with role_scope("operator"):
        yield
    connections["operator"].close()


@pytest.mark.usefixtures("two_operators")
def test_the_database_itself_keeps_names_apart() -> None:
    n = fresh_name()
    fields = {"context_tokens": 100, "max_output_tokens": 50, "default_output_cap_tokens": 50}
    model = CatalogModel.objects.create(slug=f"acme/m-{n}", display_name="M", **fields)
    ModelAlias.objects.create(name=f"acme/other-{n}", model=model)
    for make in (
        lambda: CatalogModel.objects.create(slug=f"acme/other-{n}", display_name="M", **fields),
        lambda: ModelAlias.objects.create(name=f"acme/m-{n}", model=model),
        lambda: ModelAlias.objects.create(name=f"acme/other-{n}", model=model),
        lambda: ModelAlias.objects.create(name="no good", model=model),
    ):
        with pytest.raises(IntegrityError), transaction.atomic(using="operator"):
            make()
