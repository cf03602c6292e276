"""Addresses that backends push to. docs/usage-feeds.md describes them."""

from django.urls import path

from portal.ingest import views

app_name = "ingest"
urlpatterns = [
    path("ingest/v1/<str:feed>/cloudevents", views.cloudevents, name="cloudevents"),
    path("ingest/v1/<str:feed>/ndjson", views.ndjson, name="ndjson"),
    path("ingest/v1/<str:feed>/csv", views.csv, name="csv"),
    path("ingest/otlp/v1/traces", views.otlp_traces, name="otlp-traces"),
]
