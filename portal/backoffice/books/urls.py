"""The addresses of this group of pages; the namespace is backoffice."""

from django.urls import URLPattern, path

from portal.backoffice.books import closing, journal, pages

_HERE = "operator/books"

urlpatterns: list[URLPattern] = [
    path(f"{_HERE}/", pages.books, name="books"),
    path(f"{_HERE}/entries/", journal.entries, name="books-entries"),
    path(f"{_HERE}/journal.csv", journal.journal_csv, name="books-journal"),
    path(f"{_HERE}/close", closing.close, name="books-close"),
]
