"""A centre: TLS in front, secrets in a directory, everything named by the environment."""

from django.core.exceptions import ImproperlyConfigured

from portal.settings.base import *  # noqa: F403
from portal.settings.base import ALLOWED_HOSTS, PORTAL_URL, SECRET_STORE, environment

for _name in (
    "DATABASE_URL",
    "VALKEY_URL",
    "SECRETS_DIR",
    "PORTAL_URL",
    "API_BASE",
    "ALLOWED_HOSTS",
    "EMAIL_HOST",
    # Without it the metrics are for whoever comes from this machine, which behind a proxy is everybody.
    "METRICS_TOKEN",
):
    environment.text(_name)
if SECRET_STORE is None:
    raise ImproperlyConfigured("SECRETS_DIR must be set")
if not PORTAL_URL.startswith("https://"):
    raise ImproperlyConfigured("PORTAL_URL must start with https://: cookies go over TLS only")
if "*" in ALLOWED_HOSTS:
    raise ImproperlyConfigured("ALLOWED_HOSTS must name the hosts: * lets every page on the net pose as ours")

SESSION_COOKIE_SECURE = True
CSRF_COOKIE_SECURE = True
LANGUAGE_COOKIE_SECURE = True
SECURE_SSL_REDIRECT = True
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SECURE_HSTS_SECONDS = 31536000
SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
}
