"""An organization's pages, and the way to them."""

from django.urls import path

from portal.console import (
    chooser,
    keys,
    limits,
    management_keys,
    members,
    models,
    overview,
    settings,
    statement,
    usage,
)

app_name = "console"
urlpatterns = [
    path("o/", chooser.chooser, name="chooser"),
    path("o/new", chooser.new_organization, name="new"),
    # Overview
    path("o/<str:organization>/", overview.overview, name="overview"),
    path("o/<str:organization>/live", overview.live, name="overview-live"),
    path("o/<str:organization>/checklist", overview.checklist, name="checklist"),
    # Usage and statement
    path("o/<str:organization>/usage/", usage.usage, name="usage"),
    path("o/<str:organization>/usage/usage.csv", usage.usage_csv, name="usage-csv"),
    path("o/<str:organization>/usage/requests.csv", usage.requests_csv, name="requests-csv"),
    path("o/<str:organization>/usage/<str:request_id>", usage.receipt, name="request"),
    path("o/<str:organization>/statement/", statement.statement, name="statement"),
    path("o/<str:organization>/statement/statement.csv", statement.statement_csv, name="statement-csv"),
    # API keys
    path("o/<str:organization>/keys/", keys.keys, name="keys"),
    path("o/<str:organization>/keys/new", keys.new_key, name="key-new"),
    path("o/<str:organization>/keys/<str:key>/edit", keys.edit_key, name="key-edit"),
    path("o/<str:organization>/keys/<str:key>/rotate", keys.rotate_key, name="key-rotate"),
    path("o/<str:organization>/keys/<str:key>/revoke", keys.revoke_key, name="key-revoke"),
    # Management keys
    path("o/<str:organization>/management-keys/", management_keys.management_keys, name="management-keys"),
    path(
        "o/<str:organization>/management-keys/new",
        management_keys.new_management_key,
        name="management-key-new",
    ),
    path(
        "o/<str:organization>/management-keys/<str:management_key>/revoke",
        management_keys.revoke_management_key,
        name="management-key-revoke",
    ),
    # Models
    path("o/<str:organization>/models/", models.models, name="models"),
    path("o/<str:organization>/models/<path:slug>/enable", models.enable, name="model-enable"),
    path("o/<str:organization>/models/<path:slug>/disable", models.disable, name="model-disable"),
    # Limits
    path("o/<str:organization>/limits", limits.limits, name="limits"),
    path("o/<str:organization>/limits/new", limits.new_limit, name="limit-new"),
    path("o/<str:organization>/limits/<str:limit>/change", limits.change_limit, name="limit-change"),
    path("o/<str:organization>/limits/<str:limit>/remove", limits.remove_limit, name="limit-remove"),
    # Members
    path("o/<str:organization>/members/", members.members, name="members"),
    path("o/<str:organization>/members/invite", members.invite, name="invite"),
    path("o/<str:organization>/members/leave", members.leave, name="leave"),
    path(
        "o/<str:organization>/members/invitations/<str:invitation>/resend",
        members.resend,
        name="invitation-resend",
    ),
    path(
        "o/<str:organization>/members/invitations/<str:invitation>/revoke",
        members.revoke,
        name="invitation-revoke",
    ),
    path("o/<str:organization>/members/<str:member>/role", members.change_role, name="member-role"),
    path("o/<str:organization>/members/<str:member>/remove", members.remove, name="member-remove"),
    # Settings
    path("o/<str:organization>/settings/", settings.settings_page, name="settings"),
]
