"""Grants on the tables of accounts: addresses, second factors, connected accounts, signed-in devices.

They belong to people, not to organizations, so no tenant's wall stands around them: sign-in alone writes them, and
operators see what is there without the secrets in it. Nor are sessions theirs: whoever reads one is signed in
as somebody else.
"""

from django.db import migrations

from portal.kit.migrations import LockTimeout, grant, revoke


class Migration(migrations.Migration):
    dependencies = [
        ("portal", "0001_grants_of_django_tables"),
        ("tenants", "0003_invitations_terms_and_mail"),
        ("account", "0009_emailaddress_unique_primary_email"),
        ("mfa", "0003_authenticator_type_uniq"),
        ("socialaccount", "0006_alter_socialaccount_extra_data"),
        ("usersessions", "0001_initial"),
    ]

    operations = [
        LockTimeout(),
        revoke("ALL", "django_session", "operator"),
        grant(
            "SELECT, INSERT, UPDATE, DELETE",
            ("account_emailaddress", "mfa_authenticator", "socialaccount_socialaccount", "usersessions_usersession"),
            "auth",
        ),
        # Links are signed and tokens of providers are not kept, so these stay empty; deleting an address or a
        # connected account looks into them all the same.
        grant("SELECT, DELETE", ("account_emailconfirmation", "socialaccount_socialtoken"), "auth"),
        # Providers come from the environment; the library asks this table too.
        grant("SELECT", "socialaccount_socialapp", "auth"),
        grant("SELECT", "account_emailaddress", "operator"),
        grant("SELECT (id, user_id, type, created_at, last_used_at)", "mfa_authenticator", "operator"),
        grant(
            "SELECT (id, user_id, provider, uid, last_login, date_joined)", "socialaccount_socialaccount", "operator"
        ),
        grant(
            "SELECT (id, user_id, created_at, last_seen_at, ip, user_agent)", "usersessions_usersession", "operator"
        ),
    ]
