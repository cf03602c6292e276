"""Grants on the tables of Django's own apps: sessions and the admin's log."""

from django.db import migrations

from portal.kit.migrations import LockTimeout, grant


class Migration(migrations.Migration):
    dependencies = [
        ("tenants", "0002_roles_and_walls"),
        ("quotas", "0002_ledger_functions_and_walls"),
        ("admin", "0003_logentry_add_action_flag_choices"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
        ("sessions", "0001_initial"),
    ]

    operations = [
        LockTimeout(),
        grant("SELECT, INSERT, UPDATE, DELETE", "django_session", "auth", "operator"),
        grant("SELECT", "django_content_type, auth_group, auth_permission, auth_group_permissions", "auth", "operator"),
        grant("SELECT, INSERT", "django_admin_log", "operator"),
        grant("SELECT", "django_migrations", "auth", "operator", "dataplane"),
    ]
