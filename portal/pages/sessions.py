"""Whose session a socket belongs to, asked of the database: what the handshake found may have ended since."""

from __future__ import annotations

from importlib import import_module

from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, load_backend
from django.contrib.sessions.backends.base import SessionBase
from django.utils.crypto import constant_time_compare

from tenants.models import User


def session_and_user(session_key: str | None) -> tuple[SessionBase, User] | None:
    """A session that is still valid, and who is signed in: not ended, and no new password since."""
    if not session_key:
        return None
    session: SessionBase = import_module(settings.SESSION_ENGINE).SessionStore(session_key)
    backend_path = session.get(BACKEND_SESSION_KEY)
    if SESSION_KEY not in session or backend_path not in settings.AUTHENTICATION_BACKENDS:
        return None
    user = load_backend(backend_path).get_user(User._meta.pk.to_python(session[SESSION_KEY]))
    if not isinstance(user, User) or not user.is_active:
        return None
    given = session.get(HASH_SESSION_KEY, "")
    return (session, user) if given and constant_time_compare(given, user.get_session_auth_hash()) else None
