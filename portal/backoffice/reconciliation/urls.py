"""The addresses of this group of pages; the namespace is backoffice."""

from django.urls import URLPattern, path

from portal.backoffice.reconciliation import decisions, feeds, overview, queue, suspense

_HERE = "operator/reconciliation"

urlpatterns: list[URLPattern] = [
    path(f"{_HERE}/", overview.reconciliation, name="reconciliation"),
    path(f"{_HERE}/backends/<str:backend>/", overview.backend_day, name="reconciliation-day"),
    path(f"{_HERE}/discrepancies/", queue.discrepancies, name="discrepancies"),
    path(f"{_HERE}/discrepancies/discrepancies.csv", queue.discrepancies_csv, name="discrepancies-csv"),
    path(f"{_HERE}/discrepancies/decide", decisions.decide_many, name="discrepancies-decide"),
    path(f"{_HERE}/discrepancies/<str:discrepancy>/", queue.discrepancy, name="discrepancy"),
    path(f"{_HERE}/discrepancies/<str:discrepancy>/accept", decisions.accept, name="discrepancy-accept"),
    path(f"{_HERE}/discrepancies/<str:discrepancy>/waive", decisions.waive, name="discrepancy-waive"),
    path(f"{_HERE}/discrepancies/<str:discrepancy>/approve", decisions.approve, name="discrepancy-approve"),
    path(f"{_HERE}/discrepancies/<str:discrepancy>/correct", decisions.correct, name="discrepancy-correct"),
    path(f"{_HERE}/suspense/", suspense.suspense, name="suspense"),
    path(f"{_HERE}/suspense/<str:suspense_item>/explain", suspense.explain, name="suspense-explain"),
    path(f"{_HERE}/suspense/<str:suspense_item>/write-off", suspense.write_off, name="suspense-write-off"),
    path(f"{_HERE}/feeds/", feeds.feeds, name="feeds"),
    path(f"{_HERE}/feeds/<str:feed>/", feeds.feed, name="feed"),
    path(f"{_HERE}/feeds/<str:feed>/switch", feeds.switch, name="feed-switch"),
    path(f"{_HERE}/feeds/<str:feed>/credential", feeds.credential, name="feed-credential"),
    path(f"{_HERE}/lines/<str:feed_line>/retry", feeds.retry, name="feed-line-retry"),
    path(f"{_HERE}/lines/<str:feed_line>/dismiss", feeds.dismiss, name="feed-line-dismiss"),
]
