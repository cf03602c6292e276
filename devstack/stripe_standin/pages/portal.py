"""The hosted customer portal: saved methods, billing details, tax ids, invoices."""

from __future__ import annotations

from html import escape

from devstack.stripe_standin.forms import Params
from devstack.stripe_standin.pages.html import (
    CARDS,
    Page,
    card_labels,
    choices,
    error,
    link,
    money,
    page,
    redirect,
)
from devstack.stripe_standin.resources import billing_portal, customers, payment_methods
from devstack.stripe_standin.store import Obj
from devstack.stripe_standin.world import World, shown

_FIELDS = ("line1", "line2", "city", "state", "postal_code", "country")
_TAX_ID_TYPES = ("eu_vat", "gb_vat", "us_ein", "cn_tin", "ch_vat", "sg_gst")


def show(world: World, session: Obj, refusal: str | None = None) -> Page:
    if session["created"] + billing_portal.LIVES_S < world.now():
        return page("This link has expired", link(session["return_url"], "Go back", "return"), status=410)
    customer = world.get("customer", session["customer"])
    content = [error(refusal), link(session["return_url"], "Go back", "return")]
    if session["flow"] is None:
        content += [
            _methods(world, customer),
            _details(customer),
            _tax_ids(customer),
            _invoices(world, customer),
        ]
    content.append(
        "<h2>Add a payment method</h2><form method='post'><input type='hidden' name='act' value='add_card'>"
        f"{choices(card_labels())}<button data-testid='add-card'>Save this card</button></form>"
    )
    return page("Billing", "".join(content))


def submit(world: World, session: Obj, params: Params) -> Page:
    """One act of the person: add_card, make_default, remove, details or tax_id."""
    customer = world.get("customer", session["customer"])
    before = shown(customer)
    act = params.choice("act", ("add_card", "make_default", "remove", "details", "tax_id"))
    refusal = None
    if act == "add_card":
        refusal = _add_card(world, customer, params)
        after = (session["flow"] or {}).get("after_completion", {})
        if refusal is None and after.get("type") == "redirect":
            return redirect(after["redirect"]["return_url"])
    elif act in ("make_default", "remove"):
        method = world.get("payment_method", params.needed("method"))
        if method["customer"] != customer["id"]:
            refusal = "That is somebody else's."
        elif act == "remove":
            payment_methods.unattach(world, method)
        else:
            customer["invoice_settings"]["default_payment_method"] = method["id"]
            customers.save(world, customer, before)
    elif act == "details":
        customer["name"], customer["email"] = params.text("name"), params.text("email")
        customer["address"] = {field: params.text(field) for field in _FIELDS}
        customers.save(world, customer, before)
    elif act == "tax_id":
        customers.add_tax_id(
            world, customer, params.choice("type", _TAX_ID_TYPES) or "eu_vat", params.needed("value")
        )
    if refusal is not None:
        return show(world, session, refusal)
    return redirect(session["url"])


def _add_card(world: World, customer: Obj, params: Params) -> str | None:
    _, last4, behaviour = CARDS[params.choice("choice", CARDS, "card") or "card"]
    if payment_methods.BEHAVIOURS[behaviour][0] != "pays":
        return "Your card was declined."
    before = shown(customer)
    method = payment_methods.make(world, "card", behaviour=behaviour, last4=last4)
    payment_methods.attach(world, method, customer["id"])
    customer["invoice_settings"]["default_payment_method"] = method["id"]
    customers.save(world, customer, before)
    return None


def _methods(world: World, customer: Obj) -> str:
    default = customer["invoice_settings"]["default_payment_method"]
    rows = []
    for method in world.store.find("payment_method", {"customer": customer["id"]}, oldest_first=True):
        name = method["type"] + (f" …{method['card']['last4']}" if method["type"] == "card" else "")
        buttons = _button("remove", method, "Remove")
        if method["id"] == default:
            name += " (default)"
        else:
            buttons += " " + _button("make_default", method, "Make default")
        rows.append(f"<tr data-testid='method'><td>{escape(name)}</td><td class='amount'>{buttons}</td></tr>")
    table = f"<table>{''.join(rows)}</table>" if rows else "<p data-testid='no-methods'>None saved.</p>"
    return f"<h2>Payment methods</h2>{table}"


def _button(act: str, method: Obj, label: str) -> str:
    return (
        f"<form class='inline' method='post'><input type='hidden' name='act' value='{act}'>"
        f"<input type='hidden' name='method' value='{escape(method['id'])}'>"
        f"<button class='quiet' data-testid='{act}'>{label}</button></form>"
    )


def _details(customer: Obj) -> str:
    address = customer["address"] or {}
    values = {
        "name": customer["name"],
        "email": customer["email"],
        **{key: address.get(key) for key in _FIELDS},
    }
    fields = "".join(
        f"<label class='field'>{key.replace('_', ' ').capitalize()}"
        f"<input name='{key}' value='{escape(value or '', quote=True)}'></label>"
        for key, value in values.items()
    )
    return (
        "<h2>Billing details</h2><form method='post'><input type='hidden' name='act' value='details'>"
        f"{fields}<button data-testid='save-details'>Save</button></form>"
    )


def _tax_ids(customer: Obj) -> str:
    known = "".join(
        f"<p data-testid='tax-id'>{escape(part['type'])} {escape(part['value'])}</p>"
        for part in customer["_tax_ids"]
    )
    kinds = "".join(f"<option>{kind}</option>" for kind in _TAX_ID_TYPES)
    return (
        f"<h2>Tax ids</h2>{known}<form method='post'><input type='hidden' name='act' value='tax_id'>"
        f"<label class='field'>Type<select name='type'>{kinds}</select></label>"
        "<label class='field'>Number<input name='value' required></label>"
        "<button data-testid='add-tax-id'>Add</button></form>"
    )


def _invoices(world: World, customer: Obj) -> str:
    rows = [
        f"<tr data-testid='invoice'><td><a href='{escape(invoice['hosted_invoice_url'])}'>"
        f"{escape(invoice['number'])}</a> {invoice['status']}</td>"
        f"<td class='amount'>{money(invoice['total'], invoice['currency'])}</td></tr>"
        for invoice in world.store.find("invoice", {"customer": customer["id"]})
        if invoice["number"]
    ]
    return f"<h2>Invoices</h2><table>{''.join(rows)}</table>" if rows else ""
