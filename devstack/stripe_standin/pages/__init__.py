"""Pages for people: hosted checkout, customer portal, invoices, receipts. Each says that it is a stand-in."""

from __future__ import annotations

from devstack.stripe_standin.api import Request
from devstack.stripe_standin.errors import ApiError
from devstack.stripe_standin.forms import Params, decode
from devstack.stripe_standin.pages import checkout, invoice, portal
from devstack.stripe_standin.pages.html import Page, error, page
from devstack.stripe_standin.store import Obj
from devstack.stripe_standin.world import World

__all__ = ["Page", "serve_page"]


def serve_page(world: World, request: Request) -> Page:
    """Answers a browser, in one transaction; what a person is refused is a page, too."""
    try:
        with world.store.transaction():
            found = _find(world, request)
    except ApiError as refused:
        return page("That did not work", error(refused.body["error"]["message"]), status=refused.status)
    return found or page("Nothing here", "<p>This address leads nowhere.</p>", status=404)


def _find(world: World, request: Request) -> Page | None:
    is_post = request.method == "POST"
    params = Params(decode(request.body)) if is_post else None
    match request.path.strip("/").split("/"):
        case ["c", "pay", identifier]:
            session = world.get("checkout.session", identifier)
            return (
                checkout.submit(world, session, params)
                if params is not None
                else checkout.show(world, session)
            )
        case ["p", "session", _]:
            sessions = world.store.find("billing_portal.session", {"url": world.base_url + request.path})
            if not sessions:
                return None
            return (
                portal.submit(world, sessions[0], params)
                if params is not None
                else portal.show(world, sessions[0])
            )
        case ["i", identifier, _, *rest]:
            return _invoice(world, world.get("invoice", identifier), request, params, rest)
        case ["receipts", identifier]:
            return invoice.receipt(world.get("charge", identifier))
    return None


def _invoice(
    world: World, found: Obj, request: Request, params: Params | None, rest: list[str]
) -> Page | None:
    address = world.base_url + request.path
    if rest == ["pdf"] and address == found["invoice_pdf"]:
        return invoice.document(world, found)
    if address != found["hosted_invoice_url"]:
        return None
    return invoice.submit(world, found, params) if params is not None else invoice.show(world, found)
