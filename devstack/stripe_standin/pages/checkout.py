"""The hosted checkout page: what is bought, how to pay, and the way back."""

from __future__ import annotations

from html import escape

from devstack.stripe_standin.forms import Params
from devstack.stripe_standin.pages.html import (
    CARDS,
    Page,
    card_labels,
    choices,
    done,
    error,
    link,
    page,
    redirect,
    row,
)
from devstack.stripe_standin.resources import checkout_flow
from devstack.stripe_standin.store import Obj
from devstack.stripe_standin.world import World

_OTHERS = {
    "alipay": {"alipay": ("Alipay: pays at once", "pays")},
    "wechat_pay": {"wechat_pay": ("WeChat Pay: pays at once", "pays")},
    "link": {"link": ("Link: pays at once", "pays")},
    "us_bank_account": {
        "bank": ("Bank debit: the money arrives days later", "pays"),
        "bank_fails": ("Bank debit: fails days later", "fails_later"),
    },
    "sepa_debit": {
        "sepa": ("SEPA debit: the money arrives days later", "pays"),
        "sepa_fails": ("SEPA debit: fails days later", "fails_later"),
    },
}


def show(world: World, session: Obj, refusal: str | None = None) -> Page:
    title = "Save a payment method" if session["mode"] == "setup" else "Pay"
    if session["status"] == "expired":
        return page("This checkout has expired", link(session["cancel_url"], "Go back", "cancel"))
    if session["status"] == "complete":
        return _complete(session)
    content = [error(refusal), _amounts(session)]
    content.append("<form method='post'>" + choices(_options(session)))
    if session["mode"] == "payment" and session["automatic_tax"]["enabled"]:
        content.append(
            f"<p class='note'>Tax of {world.settings.tax_percent:g} % is added by the stand-in.</p>"
        )
    if session["billing_address_collection"] == "required" or session["_saves"]["address"]:
        content.append(
            "<label class='field'>Country<input name='country' value='US' maxlength='2' size='2' "
            "data-testid='country'></label>"
        )
    content.append(
        "<label class='note'><input type='checkbox' name='stay' value='1' data-testid='stay'> Stay here "
        "afterwards, as if this tab had been closed</label>"
        f"<button class='wide' data-testid='pay'>{escape(title)}</button></form>"
    )
    content.append(link(session["cancel_url"], "Cancel and go back", "cancel"))
    return page(title, "".join(content))


def submit(world: World, session: Obj, params: Params) -> Page:
    """The person chose, and confirmed."""
    choice, stays = params.text("choice") or "card", params.flag_word("stay")
    if session["status"] != "open":
        return show(world, session)
    method, behaviour, last4 = _chosen(choice)
    country = params.text("country")
    refusal = checkout_flow.complete(
        world, session, method=method, behaviour=behaviour, last4=last4, country=country and country.upper()
    )
    session = world.get("checkout.session", session["id"])
    if refusal is not None or stays:
        return show(world, session, refusal)
    return redirect(_way_back(session))


def _chosen(choice: str) -> tuple[str, str, str]:
    """(method, behaviour, last four digits)"""
    if choice in CARDS:
        _, last4, behaviour = CARDS[choice]
        return "card", behaviour, last4
    for method, options in _OTHERS.items():
        if choice in options:
            return method, options[choice][1], "4242"
    return choice, "pays", "4242"


def _options(session: Obj) -> dict[str, str]:
    offered = session["payment_method_types"]
    labels = card_labels() if "card" in offered else {}
    for method, options in _OTHERS.items():
        if method in offered:
            labels |= {value: label for value, (label, _) in options.items()}
    return labels


def _amounts(session: Obj) -> str:
    if session["mode"] == "setup":
        return "<p>Nothing is charged now.</p>"
    currency = session["currency"]
    rows = [row(line["description"], line["amount_subtotal"], currency) for line in session["_lines"]]
    if session["automatic_tax"]["enabled"]:
        rows.append(row("Tax", session["total_details"]["amount_tax"], currency, testid="tax"))
    rows.append(row("Total", session["amount_total"], currency, testid="total", total=True))
    return f"<table>{''.join(rows)}</table><h2>How would you like to pay?</h2>"


def _complete(session: Obj) -> Page:
    words = {
        "paid": "Paid.",
        "unpaid": "The payment is on its way; it arrives days later.",
        "no_payment_required": "The payment method is saved.",
    }
    content = done(words[session["payment_status"]]) + link(
        _way_back(session), "Go back to the shop", "return"
    )
    return page("Done", content)


def _way_back(session: Obj) -> str:
    return str(session["success_url"]).replace("{CHECKOUT_SESSION_ID}", session["id"])
