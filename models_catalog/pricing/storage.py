"""Contents of versions to rows and back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from uuid import UUID

from django.db import connections
from django.db.backends.postgresql.psycopg_any import NumericRange

from models_catalog.models import PriceLine, PriceVersion, PriceWindow, PriceWindowSpan
from models_catalog.pricing.content import PriceContent, PriceLineContent
from models_catalog.pricing.weeks import Span, merged
from portal.kit.ids import uuid7
from tenants.scope import scope_alias


def read_contents(versions: Iterable[PriceVersion]) -> dict[UUID, PriceContent]:
    """What these versions say, drafts and published ones, of the scope that is open; by version."""
    versions = list(versions)
    ids = [version.id for version in versions]
    names = dict(PriceWindow.objects.filter(version__in=ids).values_list("id", "name"))
    windows: dict[UUID, dict[str, list[Span]]] = defaultdict(lambda: defaultdict(list))
    for span in PriceWindowSpan.objects.filter(version__in=ids):
        windows[span.version_id][names[span.window_id]].append((span.minutes.lower, span.minutes.upper))
    lines: dict[UUID, set[PriceLineContent]] = defaultdict(set)
    for line in PriceLine.objects.filter(version__in=ids):
        lines[line.version_id].add(
            PriceLineContent(
                token_class=line.token_class,
                service_tier=line.service_tier,
                window=None if line.window_id is None else names[line.window_id],
                input_from_tokens=line.input_from_tokens,
                input_to_tokens=line.input_to_tokens,
                price_nanos_per_million=line.price_nanos_per_million,
            )
        )
    return {
        version.id: PriceContent(
            time_zone=version.time_zone,
            windows=frozenset((name, merged(spans)) for name, spans in windows[version.id].items()),
            lines=frozenset(lines[version.id]),
        )
        for version in versions
    }


def read_content(version: PriceVersion) -> PriceContent:
    return read_contents([version])[version.id]


def write_parts(version_id: UUID, content: PriceContent) -> None:
    """Write windows and lines of a draft that has none."""
    window_ids = {name: uuid7() for name, _ in content.ordered_windows}
    PriceWindow.objects.bulk_create(
        PriceWindow(id=window_id, version_id=version_id, name=name) for name, window_id in window_ids.items()
    )
    PriceWindowSpan.objects.bulk_create(
        PriceWindowSpan(version_id=version_id, window_id=window_ids[name], minutes=NumericRange(start, end))
        for name, spans in content.ordered_windows
        for start, end in spans
    )
    PriceLine.objects.bulk_create(
        PriceLine(
            version_id=version_id,
            token_class=line.token_class,
            service_tier=line.service_tier,
            window_id=None if line.window is None else window_ids[line.window],
            input_from_tokens=line.input_from_tokens,
            input_to_tokens=line.input_to_tokens,
            price_nanos_per_million=line.price_nanos_per_million,
        )
        for line in content.ordered_lines
    )


def delete_parts(version_id: UUID) -> None:
    """Take windows and lines of a draft away. Not through the ORM, which would search all calls for them."""
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute("DELETE FROM models_catalog_priceline WHERE version_id = %s", [version_id])
        cursor.execute("DELETE FROM models_catalog_pricewindowspan WHERE version_id = %s", [version_id])
        cursor.execute("DELETE FROM models_catalog_pricewindow WHERE version_id = %s", [version_id])
