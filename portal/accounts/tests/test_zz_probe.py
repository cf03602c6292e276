import logging, pytest
from django.test import Client
from portal.accounts.tests.visitor import *
from tests.people import make_owner, signed_in, make_person
pytestmark = pytest.mark.usefixtures("database")
def test_log(caplog):
    c = Client(enforce_csrf_checks=True, REMOTE_ADDR="10.9.9.9", HTTP_HOST="localhost")
    with caplog.at_level(logging.INFO):
        c.post("/invitations/TOKENTOKENTOKENTOKEN1234", {"action":"accept"})
        c.put("/invitations/TOKENTOKENTOKENTOKEN1234")
        c.get("/accounts/confirm-email/NQ:1abc:SIGNEDKEYSIGNED/")
        c.put("/accounts/confirm-email/NQ:1abc:SIGNEDKEYSIGNED/")
        c.post("/accounts/confirm-email/NQ:1abc:SIGNEDKEYSIGNED/")
        c.post("/accounts/password/reset/key/1-abcdefg/")
    for r in caplog.records: print(r.name, r.getMessage(), r.__dict__.get("request"))
def test_headers():
    t, p = make_owner()
    c = signed_in(p)
    for path in ["", "members/", "usage/", "statement/", "settings", "keys/", "models/", "playground"]:
        r = c.get(f"/o/{t.public_id}/{path}")
        print(path, r.status_code, {k: v for k, v in r.headers.items() if k in ("Cache-Control","Vary","Referrer-Policy","X-Frame-Options")})
    for path in ["/", "/accounts/login/", "/accounts/", "/o/?choose=1", "/accounts/email/", "/accounts/password/change/", "/accounts/sessions/", "/accounts/2fa/"]:
        r = c.get(path)
        print(path, r.status_code, {k: v for k, v in r.headers.items() if k in ("Cache-Control","Vary","Referrer-Policy")})
    r = c.post("/accounts/logout/"); print("logout", r.status_code, dict(r.headers))
def test_host():
    e = new_address()
    c = new_client()
    c.post("/accounts/signup/", {}, HTTP_HOST="127.0.0.1")
    from portal.accounts.tests import visitor
    u = visitor.verified_user
    with role_scope("auth"): u(e)
    c.post("/accounts/password/reset/", {"email": e}, HTTP_HOST="[::1]", HTTP_X_FORWARDED_HOST="evil.example")
    print(mails_to(e)[0].text_body)
