"""The addresses of the management API, its description, and the page that shows it."""

from django.urls import path

from portal.api import documentation, problems
from portal.api.operators.urls import urlpatterns as operators
from portal.api.tenant import keys, limits, models, money, organization, top_ups, usage

app_name = "api"
urlpatterns = [
    path("docs/api", documentation.page, name="docs"),
    path("docs/api/<str:section>", documentation.section_page, name="docs-section"),
    path("api/v1/openapi.json", documentation.openapi_json, name="openapi-json"),
    path("api/v1/openapi.yaml", documentation.openapi_yaml, name="openapi-yaml"),
    path("api/v1/organization", organization.OrganizationEndpoint.as_view(), name="organization"),
    path("api/v1/keys", keys.KeyList.as_view(), name="keys"),
    path("api/v1/keys/<str:key>", keys.KeyDetail.as_view(), name="key"),
    path("api/v1/keys/<str:key>/rotate", keys.KeyRotation.as_view(), name="key-rotate"),
    path("api/v1/keys/<str:key>/revoke", keys.KeyRevocation.as_view(), name="key-revoke"),
    path("api/v1/models", models.ModelList.as_view(), name="models"),
    path("api/v1/models/<str:vendor>/<str:name>", models.ModelDetail.as_view(), name="model"),
    path("api/v1/models/<str:vendor>/<str:name>/enable", models.ModelEnabling.as_view(), name="model-enable"),
    path(
        "api/v1/models/<str:vendor>/<str:name>/disable", models.ModelDisabling.as_view(), name="model-disable"
    ),
    path("api/v1/usage", usage.UsageEndpoint.as_view(), name="usage"),
    path("api/v1/requests", usage.RequestList.as_view(), name="requests"),
    path("api/v1/requests/<str:request_id>", usage.RequestDetail.as_view(), name="request"),
    path("api/v1/balance", money.BalanceEndpoint.as_view(), name="balance"),
    path("api/v1/transactions", money.TransactionList.as_view(), name="transactions"),
    path("api/v1/top-ups", top_ups.TopUpList.as_view(), name="top-ups"),
    path("api/v1/top-ups/<str:top_up>", top_ups.TopUpDetail.as_view(), name="top-up"),
    path("api/v1/limits", limits.LimitList.as_view(), name="limits"),
    path("api/v1/limits/<str:limit>", limits.LimitDetail.as_view(), name="limit"),
    *operators,
    # Whatever is none of these is answered as the API answers.
    path("api/v1/<path:rest>", problems.nothing_there, name="nothing"),
    path("api/v1/", problems.nothing_there, name="version"),
    path("api/", problems.nothing_there, name="root"),
]
