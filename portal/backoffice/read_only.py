"""The admin as a reading room: lists and pages of every table, and no way to change one."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final
from uuid import UUID

from django.contrib import admin
from django.core.paginator import Paginator
from django.db import models
from django.db.models.constants import LOOKUP_SEP
from django.http import Http404, HttpRequest, HttpResponse
from django.utils.functional import cached_property
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from portal.kit.ids import PREFIXES, InvalidPublicId, parse_public_id

# A list counts no further than this: counting a partitioned table to its end would take minutes.
MAX_COUNTED: Final = 1000
MAX_RELATED: Final = 100


class CappedPaginator(Paginator):  # type: ignore[type-arg]
    """Pages through the first MAX_COUNTED rows; whoever looks for others searches for them by id."""

    @cached_property
    def count(self) -> int:
        rows = self.object_list
        if isinstance(rows, models.QuerySet):
            return rows.order_by().values("pk")[:MAX_COUNTED].count()
        return min(len(rows), MAX_COUNTED)


class ReadOnlyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Shows every column but the hidden ones, which are not even read from the database.

    Changes go through domain operations, which keep their rules and their trail.
    related: further rows on the page of an object, as name → (heading, columns, rows of the object).
    """

    hidden: ClassVar[Sequence[str]] = ()
    related: ClassVar[Mapping[str, "Related"]] = {}
    paginator = CappedPaginator
    show_full_result_count = False
    list_per_page = 50
    list_max_show_all = 0
    # Counting each filter's rows would count whole tables.
    show_facets = admin.ShowFacets.NEVER
    actions = None
    id_prefix: ClassVar[str] = ""
    is_list_only: ClassVar[bool] = False

    def has_view_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return request.user.is_active and getattr(request.user, "is_staff", False)

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return False

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        # The admin's own log stays empty, because nothing is changed here.
        raise Http404

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        links = [
            field.name
            for field in self.model._meta.concrete_fields
            if field.is_relation and field.related_model in self.admin_site._registry
        ]
        unread = self.unread()
        for link in links:
            target = self.admin_site._registry[self.model._meta.get_field(link).related_model]
            if isinstance(target, ReadOnlyAdmin):
                unread += [f"{link}__{name}" for name in target.unread()]
        return super().get_queryset(request).select_related(*links).defer(*unread)

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        # The admin lets an address filter by every column of the table: whoever asks what a secret begins
        # with, sign by sign, reads it all the same.
        is_hidden = lookup.split(LOOKUP_SEP, 1)[0] in self.unread()
        return not is_hidden and super().lookup_allowed(lookup, value, request)

    def unread(self) -> list[str]:
        """What is never read: the hidden columns, and digests, which are of no use to a reader."""
        return [
            field.name
            for field in self.model._meta.concrete_fields
            if field.name in self.hidden or isinstance(field, models.BinaryField)
        ]

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        return None if self.is_list_only else super().get_object(request, object_id, from_field)

    def get_fields(self, request: HttpRequest, obj: models.Model | None = None) -> list[Any]:
        unread = self.unread()
        columns = [field.name for field in self.model._meta.concrete_fields if field.name not in unread]
        return [*columns, *self.related]

    def get_readonly_fields(self, request: HttpRequest, obj: models.Model | None = None) -> list[Any]:
        return self.get_fields(request, obj)

    def get_search_fields(self, request: HttpRequest) -> tuple[str, ...]:
        # Without a field the admin shows no search box; the id is looked for in get_search_results.
        return tuple(self.search_fields) or ("pk",)

    def get_search_results(
        self, request: HttpRequest, queryset: models.QuerySet[Any], search_term: str
    ) -> tuple[models.QuerySet[Any], bool]:
        """By UUID or public id of the row or of its organization, else by the search fields."""
        term = search_term.strip()
        if not term:
            return queryset, False
        wanted = _parse_id(term, self.id_prefix)
        if wanted is not None and isinstance(self.model._meta.pk, models.UUIDField | models.ForeignKey):
            found = models.Q(pk=wanted)
            if any(field.attname == "tenant_id" for field in self.model._meta.concrete_fields):
                found |= models.Q(tenant_id=wanted)
            return queryset.filter(found), False
        if not self.search_fields:
            return queryset.none(), False
        return super().get_search_results(request, queryset, term)


def _parse_id(text: str, prefix: str) -> UUID | None:
    for kind in (prefix, "organization"):
        if kind in PREFIXES:
            try:
                return parse_public_id(PREFIXES[kind], text)
            except InvalidPublicId:
                continue
    try:
        return UUID(text)
    except ValueError:
        return None


class Related:
    """Rows of tables that the admin cannot register, because their key has several columns, as a table on the
    page of the object that they belong to."""

    def __init__(
        self, heading: str, columns: Sequence[str], rows: Callable[[Any], Iterable[models.Model]]
    ) -> None:
        self.heading = heading
        self._columns = columns
        self._rows = rows

    def as_table(self, obj: models.Model) -> SafeString:
        head = format_html_join("", "<th scope='col'>{}</th>", ((column,) for column in self._columns))
        body = format_html_join(
            "",
            "<tr>{}</tr>",
            (
                (format_html_join("", "<td>{}</td>", ((getattr(row, column),) for column in self._columns)),)
                for row in self._rows(obj)
            ),
        )
        return format_html("<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>", head, body)


def read_only(
    *columns: str,
    hidden: Sequence[str] = (),
    search: Sequence[str] = (),
    filters: Sequence[str] = (),
    newest_first: bool = True,
    id_prefix: str = "",
    is_list_only: bool = False,
    related: Mapping[str, Related] | None = None,
) -> type[ReadOnlyAdmin]:
    """An admin class that lists `columns`.

    hidden: columns never read. search: fields besides the ids. filters: columns with few values, of tables
    that are not large. is_list_only: there are no pages of single objects, whose name would need what is
    hidden. related: see Related.
    """
    attributes: dict[str, Any] = {
        "list_display": columns,
        "hidden": tuple(hidden),
        "search_fields": tuple(search),
        "list_filter": tuple(filters),
        **({"list_display_links": None} if is_list_only else {}),
        "ordering": ("-pk",) if newest_first else columns[:1],
        "id_prefix": id_prefix,
        "is_list_only": is_list_only,
        "related": related or {},
    }
    for name, table in (related or {}).items():

        def show(self: ReadOnlyAdmin, obj: models.Model, table: Related = table) -> SafeString:
            return table.as_table(obj)

        attributes[name] = admin.display(description=table.heading)(show)
    return type("ReadOnly", (ReadOnlyAdmin,), attributes)
